"""`python -m edge_ad` is `edge-ad`, for where the command is not on the path."""

from __future__ import annotations

import sys

from edge_ad.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
