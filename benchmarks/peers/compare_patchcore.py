"""The same bank on the same features through anomalib's Patchcore and through ours, measured in turns.

    python benchmarks/peers/compare_patchcore.py --anomalib PYTHON [--coreset 0.1] [--frame 1080p] [--json FILE]

The bank is that of `edge-ad train --family patchcore --preset fast` (MobileNetV2 at 256²) on the cookies of
EDGE_AD_SHARED. anomalib exports it with its own exporter and judges it with its own inferencer; edge-ad exports it as
anomalib's checkpoints are: nearest resize, mirrored border, re-weighted score. `--anomalib make` makes the environment
(some 7 GB in TMPDIR) and deletes it afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from suite.threads import fix_threads  # before anything that starts threads

HERE = Path(__file__).parent
LONGEST_S = 1800
REFERENCE = "anomalib 2.7.0, OpenVINO, fp32"


@click.command(help=__doc__.split("\n")[0])
@click.option("--coreset", default="0.1", help="Share of the patches; 0.1 is anomalib's default.")
@click.option("--frame", "size", default="1080p", help="720p, 1080p or 4k.")
@click.option("--rounds", default=15, type=click.IntRange(min=1), help="Turns of every peer.")
@click.option("--starts", default=3, type=click.IntRange(min=1), help="Starts of every peer.")
@click.option("--cores", default=2, type=click.IntRange(min=1), help="Processors to measure on.")
@click.option("--anomalib", default="make", help="make, none, or the Python of an environment that has it.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all figures there.")
def main(coreset: str, size: str, rounds: int, starts: int, cores: int, anomalib: str, json_path: Path | None) -> None:
    fix_threads(cores)
    import numpy as np
    from compare import labelled, say
    from contenders import shared_folder
    from environment import UnavailableError, existing_environment, made_environment
    from measure import Found, measure
    from suite.scenes import SIZES, scene
    from table import rows, table

    shared = shared_folder()
    if shared is None:
        raise click.UsageError("EDGE_AD_SHARED names no folder with data/cookies")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="patchcore-peers-")))
        contenders, installed = ours(shared, coreset, folder, say)
        missing = {}
        try:
            if anomalib == "none":
                raise UnavailableError("left out by --anomalib none")
            if anomalib == "make":
                python = stack.enter_context(made_environment())
            else:
                python = existing_environment(Path(anomalib).absolute())
            contenders |= theirs(python, SIZES[size], folder, say)
        except UnavailableError as exc:
            missing = {REFERENCE: Found(reason=str(exc))}
        frame = folder / "frame.npy"
        np.save(frame, scene(size)[:, :, ::-1])
        pictures, truth = labelled(shared)
        result = measure(contenders, frame, pictures, starts=starts, rounds=rounds, say=say) | missing
    figures = rows(result, installed, truth, REFERENCE)
    print(f"\nbank of {coreset}, {size} frame in memory → score and map; {len(pictures)} pictures\n")
    print(table(figures).replace("x authors'", "x anomalib fp32"))
    if json_path is not None:
        raw = {name: vars(each) for name, each in result.items()}
        json_path.write_text(json.dumps({"rows": figures, "raw": raw}, indent=1), "utf-8")


def ours(shared: Path, coreset: str, folder: Path, say: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """Fit, export and quantize with the command line, as users do. Returns: contenders, and MiB of each."""
    from contenders import own_folder
    from exports import THIS_PYTHON, installed_mib, own_files_mib

    cookies, run = str(shared / "data" / "cookies"), folder / "run"
    good = f"{cookies}/train/good"
    plain, bundle, best = folder / "plain.edgead", folder / "both.edgead", folder / "map_max.edgead"
    say("fitting, exporting and quantizing with edge-ad")
    _edge_ad("train", cookies, "--family", "patchcore", "--preset", "fast", "--coreset", coreset, "-o", run)
    _edge_ad("export", anomalib_like(run, folder), "--backbone-weights", run / "backbone.pth", "-o", plain)
    _edge_ad("export", run, "-o", best)
    for float_bundle, output in ((plain, bundle), (best, folder / "map_max8.edgead")):
        caches = ("--calibration-cache", folder / "calibrations", "--engine-cache", folder / "engines")
        _edge_ad("calibrate", float_bundle, "--data", good, "--gate", "report", *caches, "-o", output)
    names = {
        "edge-ad, fp32": (bundle, "fp32"),
        "edge-ad, int8": (bundle, "int8"),
        "edge-ad, int8, map_max": (folder / "map_max8.edgead", "int8"),
    }
    found = {}
    for name, (path, precision) in names.items():
        given = {"bundle": str(path), "precision": precision, "engine_cache": str(folder / "engines")}
        found[name] = _contender([THIS_PYTHON, str(HERE / "ours.py")], own_folder(folder, name), given)
    mib = installed_mib(THIS_PYTHON, "edge-ad") + own_files_mib()
    return found, dict.fromkeys(names, mib)


def anomalib_like(run: Path, folder: Path) -> Path:
    """The run's checkpoint in anomalib's form, so that it is exported with anomalib's defaults."""
    import torch

    from edge_ad.models.patchcore.source import ANOMALIB_BANK

    data = torch.load(run / "ckpt_best_0.pth", weights_only=True)
    config = data["config"]
    told = {"backbone": config["backbone"], "layers": config["layers"], "num_neighbors": config["neighbours"]}
    path = folder / "anomalib.ckpt"
    torch.save({"state_dict": {ANOMALIB_BANK: data["memory_bank"]}, "hyper_parameters": told}, path)
    return path


def theirs(python: Path, frame_hw: tuple[int, int], folder: Path, say: Any) -> dict[str, Any]:
    """Raises: UnavailableError."""
    from contenders import ANOMALIB, own_folder
    from environment import UnavailableError

    say("exporting with anomalib")
    found = {}
    exports = {}
    for name, hw in (("frame", frame_hw), ("pictures", (768, 576))):
        told = {
            "checkpoint": str(folder / "run" / "ckpt_best_0.pth"),
            "weights": str(folder / "run" / "backbone.pth"),
            "side": 256,
            "frame_hw": list(hw),
            "output": str(folder / f"anomalib-{name}"),
        }
        command = [str(python), str(HERE / "anomalib_patchcore.py"), json.dumps(told)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_S, check=False)
        if done.returncode:
            raise UnavailableError(f"anomalib's export failed: {done.stderr.strip().splitlines()[-1:]}")
        exports[name] = json.loads(done.stdout.splitlines()[-1])
    for name, (form, config) in ANOMALIB.items():
        given = {"graph": exports["frame"][form], "config": config}
        pictures = {"graph": exports["pictures"][form], "config": config}
        found[name] = _contender(
            [str(python), str(HERE / "anomalib_peer.py")], own_folder(folder, name), given, pictures
        )
    return found


def _contender(command: list[str], folder: Path, given: dict[str, Any], pictures: dict[str, Any] | None = None) -> Any:
    from measure import Contender

    return Contender(command, folder, given, pictures or given)


def _edge_ad(*arguments: Any) -> None:
    from edge_ad.cli.main import main as edge_ad

    with redirect_stdout(sys.stderr):  # standard output is the table's
        code = edge_ad([str(argument) for argument in arguments])
    if code != 0:
        raise RuntimeError(f"edge-ad {arguments[0]} failed; see above")


if __name__ == "__main__":
    main()
