"""The same weights through the authors' graph, anomalib and edge-ad: one command, one table, measured in turns.

    python benchmarks/peers/compare.py [--network wide_resnet50_2-288] [--frame 1080p] [--json FILE]

It makes anomalib's environment in a temporary folder (some 7 GB; TMPDIR says where), and deletes it afterwards;
`--anomalib none` leaves anomalib out, `--anomalib PYTHON` uses an environment that is there (`peers/anomalib.txt`). For
the speed the weights are random. The accuracy is that of a trained checkpoint on photographs of cookies, where
EDGE_AD_SHARED names a folder that has both.

Everything counts from a decoded frame in memory to score and map. Each peer is a process; one at a time is asked.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from suite.threads import fix_threads  # before anything that starts threads


@click.command(help=__doc__.split("\n")[0])
@click.option("--network", default="wide_resnet50_2-288", help="A network of benchmarks/suite/networks.py.")
@click.option("--frame", "size", default="1080p", help="720p, 1080p or 4k.")
@click.option("--rounds", default=15, type=click.IntRange(min=1), help="Turns of every peer.")
@click.option("--starts", default=5, type=click.IntRange(min=1), help="Starts of every peer.")
@click.option("--cores", default=2, type=click.IntRange(min=1), help="Processors to measure on.")
@click.option("--anomalib", default="make", help="make, none, or the Python of an environment that has it.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all figures there.")
def main(network: str, size: str, rounds: int, starts: int, cores: int, anomalib: str, json_path: Path | None) -> None:
    threads = fix_threads(cores)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the environment is deleted then too
    import numpy as np
    from accuracy import labelled, pixel_aurocs
    from contenders import AUTHORS, cookies_input, make_peers, shared_folder
    from environment import UnavailableError, chosen_environment
    from measure import Found, measure
    from suite.networks import NETWORKS
    from suite.scenes import SIZES, scene
    from table import rows, table

    for value, known in ((network, NETWORKS), (size, SIZES)):
        if value not in known:
            raise click.UsageError(f"{value!r} is unknown, wanted one of {', '.join(known)}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        python: Path | UnavailableError
        try:
            python = stack.enter_context(chosen_environment(anomalib, say))
        except UnavailableError as exc:
            python = exc
        shared = shared_folder()
        peers = make_peers(network, size, folder, python, shared, say)
        frame = folder / "frame.npy"
        np.save(frame, scene(size)[:, :, ::-1])
        pictures = None if shared is None else labelled(shared / "data" / "cookies", cookies_input())
        paths = [] if pictures is None else pictures.paths
        found = measure(peers.contenders, frame, paths, starts=starts, rounds=rounds, say=say)
        pixel = pixel_aurocs(pictures, found)
        found |= {name: Found(reason=reason) for name, reason in peers.missing.items()}
    result = rows(found, peers.installed_mib, [] if pictures is None else pictures.truth, AUTHORS, pixel)
    print(
        f"\n{network}, {size} frame in memory → score and map, {threads} of {os.cpu_count()} processors"
        f" ({platform.processor() or platform.machine()}), Python {platform.python_version()};"
        f" medians of {rounds} turns and {starts} starts; accuracy: {len(paths)} pictures\n"
    )
    print(table(result))
    if json_path is not None:
        raw = {name: each.plain() for name, each in found.items()}
        json_path.write_text(json.dumps({"rows": result, "raw": raw}, indent=1), "utf-8")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
