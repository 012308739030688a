"""A process that judges a picture as soon as it can; the suite starts it to time a start and to see its memory.

    python start.py BUNDLE PRECISION ENGINE_CACHE PICTURE

It prints a line of JSON with the first verdict, judges the picture `FRAMES` times in all, and prints another with the
peak of its resident memory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import edge_ad

FRAMES = 20


def main() -> None:
    bundle, precision, engine_cache, picture = sys.argv[1:]
    with edge_ad.open(bundle, precision=precision, threshold=0.5, engine_cache=engine_cache) as detector:
        from edge_ad.image.pictures import read_picture

        image = read_picture(picture)
        verdict = detector.judge(image)
        print(json.dumps({"status": verdict.status, "from_cache": detector.from_cache}), flush=True)
        for _ in range(FRAMES - 1):
            detector.judge(image)
    sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
    from protocol import peak_rss_mib

    print(json.dumps({"peak_rss_mib": peak_rss_mib()}), flush=True)


if __name__ == "__main__":
    main()
