"""`python -m edge_ad` and the command `edge-ad`: from here on signals are heard, before anything else is loaded."""

from __future__ import annotations

import sys

from edge_ad.signals.supervisor import EXIT_INTERRUPTED, supervise_process


def main() -> int:
    """Run the command line of this process. Returns: the exit code."""
    supervisor = supervise_process()
    try:
        from edge_ad.cli.main import main as run_command

        return run_command()
    except BaseException:
        if not supervisor.interrupted:
            raise
        supervisor.finish(EXIT_INTERRUPTED)  # while it was being loaded
        supervisor.last_words()
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
