"""The same weights of PatchCore or EfficientAD through anomalib's model and through ours, measured in turns.

    python benchmarks/peers/compare_family.py --family patchcore --anomalib PYTHON [--data DIR] [--coreset 0.01]
    python benchmarks/peers/compare_family.py --family efficientad --anomalib PYTHON [--data DIR]

DIR is in the layout of MVTec AD, by default the cookies of EDGE_AD_SHARED. anomalib exports its model with its own
exporter and judges with its own inferencer. What the weights are, `family_patchcore.py` and `family_efficientad.py`
say. `--anomalib make` makes the environment (some 7 GB in TMPDIR) and deletes it afterwards; `--starts 0 --rounds 0`
measures the accuracy alone.

The scores of all test pictures are compared twice: of the pictures as they are, and of the same pictures brought to the
model's size beforehand, so that no side has to resize them.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from suite.threads import fix_threads  # before anything that starts threads

MODULES = {"patchcore": "family_patchcore", "efficientad": "family_efficientad"}
REFERENCE = "anomalib 2.7.0, OpenVINO, fp32"


@click.command(help=__doc__.split("\n")[0])
@click.option("--family", required=True, type=click.Choice(list(MODULES)))
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Default: the cookies.")
@click.option("--coreset", default="0.1", help="PatchCore: share of the patches; 0.1 is anomalib's default.")
@click.option("--frame", "size", default="1080p", help="720p, 1080p or 4k.")
@click.option("--rounds", default=15, type=click.IntRange(min=0), help="Turns of every peer.")
@click.option("--starts", default=3, type=click.IntRange(min=0), help="Starts of every peer.")
@click.option("--cores", default=2, type=click.IntRange(min=1), help="Processors to measure on.")
@click.option("--anomalib", default="make", help="make, none, or the Python of an environment that has it.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all figures there.")
def main(
    family: str,
    data: Path | None,
    coreset: str,
    size: str,
    rounds: int,
    starts: int,
    cores: int,
    anomalib: str,
    json_path: Path | None,
) -> None:
    fix_threads(cores)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the environment is deleted then too
    import numpy as np
    from accuracy import differences, labelled, pixel_aurocs, told
    from compare import say
    from contenders import shared_folder
    from environment import UnavailableError, chosen_environment
    from made import FLOAT, INT8, Wanted
    from measure import Found, measure, score_pictures
    from suite.scenes import SIZES, scene
    from table import rows, table

    from edge_ad.bundle.specs import PreprocessSpec

    module: Any = import_module(MODULES[family])
    shared = shared_folder()
    if data is None and shared is None:
        raise click.UsageError("EDGE_AD_SHARED names no folder with data/cookies; give --data DIR")
    data = data or shared / "data" / "cookies"  # type: ignore[operator]  # one of them is there
    pictures = labelled(data, PreprocessSpec(module.SIDE, module.SIDE, resize_mode="stretch"))
    frames = {"frame": SIZES[size], "pictures": pictures.frame_hw(), "seen": (module.SIDE, module.SIDE)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{family}-peers-")))
        try:
            python: Path | UnavailableError = stack.enter_context(chosen_environment(anomalib, say))
        except UnavailableError as exc:
            python = exc
        try:
            made = module.make(Wanted(data, folder, python, frames, coreset, say))
        except UnavailableError as exc:
            raise click.UsageError(f"anomalib is not available: {exc}") from exc
        given, installed, missing = contenders(made, folder, python, REFERENCE)
        frame = folder / "frame.npy"
        np.save(frame, scene(size)[:, :, ::-1])
        measured = measure(given, frame, pictures.paths, starts=starts, rounds=rounds, say=say)
        result = measured | {name: Found(reason=reason) for name, reason in missing.items()}
        pixel = pixel_aurocs(pictures, measured) if made.trained else {}
        alone = {name: each for name, each in seen(made, given).items() if name in (FLOAT, INT8, REFERENCE)}
        at_size = {name: Found() for name in alone}
        score_pictures(alone, pictures.seen(folder / "seen"), at_size, say)
    figures = rows(result, installed, pictures.truth if made.trained else [], REFERENCE, pixel)
    apart = {
        "the pictures": differences(result, REFERENCE, (FLOAT, INT8)),
        "the pictures at model size": differences(at_size, REFERENCE, (FLOAT, INT8)),
    }
    bare = sum(sample.anomalous and sample.mask is None for sample in pictures.samples)
    print(
        f"\n{made.what}; {size} frame in memory → score and map; medians of {rounds} turns and {starts} starts;"
        f" {len(pictures.samples)} pictures of {data.name}, {bare} defective ones without a mask\n"
    )
    print(table(figures).replace("x authors'", "x anomalib fp32") + "\n")
    for of_what, differing in apart.items():
        print("\n".join(told(differing, REFERENCE, of_what)))
    if json_path is not None:
        shares = {what: {name: asdict(each) for name, each in found.items()} for what, found in apart.items()}
        raw = {name: each.plain() for name, each in result.items()}
        json_path.write_text(json.dumps({"rows": figures, "differences": shares, "raw": raw}, indent=1), "utf-8")


def contenders(made: Any, folder: Path, python: Any, reference: str) -> tuple[dict[str, Any], dict[str, float], Any]:
    """All peers that can be run, MiB of each, and why others cannot."""
    from contenders import ANOMALIB, anomalibs, anomalibs_mib, ours, ours_mib
    from environment import UnavailableError

    found = {name: ours(name, folder, precision, bundle, bundle) for name, (bundle, precision) in made.bundles.items()}
    installed = dict.fromkeys(found, ours_mib())
    if isinstance(made.exports, UnavailableError):
        return found, installed, {reference: str(made.exports)}
    for name in ANOMALIB:
        found[name] = anomalibs(name, folder, python, made.exports["frame"], made.exports["pictures"])
    installed |= dict.fromkeys(ANOMALIB, anomalibs_mib(python))
    return found, installed, {}


def seen(made: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The same peers for pictures of the model's size."""
    from accuracy import with_graph
    from contenders import ANOMALIB
    from environment import UnavailableError

    if isinstance(made.exports, UnavailableError):
        return {}
    graphs = {name: {"graph": made.exports["seen"][form]} for name, (form, _) in ANOMALIB.items()}
    return {name: with_graph(each, graphs.get(name, {})) for name, each in given.items()}


if __name__ == "__main__":
    main()
