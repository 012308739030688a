"""One configuration on one data set with one seed: trained, exported and quantized as processes, and judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configurations import OURS, Configuration
from results import Result

PEERS = Path(__file__).resolve().parents[1] / "peers"
SIDE = 256
STARTS = 1
WITNESSED = "peak_mib "


class FailedError(Exception):
    """A process ended with an error; the message is its last line.

    Attributes: result: what was found before, where that is known.
    """

    result: Result | None = None


@dataclass(frozen=True)
class Setting:
    """What all configurations share.

    Attributes:
        folder: for what is made.
        python: of anomalib's environment; None where there is none.
        minutes: that anomalib may train, and after which a process of ours is ended.
        rounds: frames that are timed.
        threads: of the processor.
    """

    folder: Path
    python: Path | None
    minutes: float
    rounds: int
    threads: int


@dataclass(frozen=True)
class Cost:
    """Of a process: seconds of the wall clock, and the most memory in MiB."""

    seconds: float
    mib: float


def measured(configuration: Configuration, data: Path, seed: int, setting: Setting) -> Result:
    """Everything of one; what fails keeps what was found before, and the reason."""
    result = Result(configuration.name, configuration.side, data.name, seed)
    folder = setting.folder / f"{data.name}-{configuration.name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if configuration.side == OURS:
            return _ours(result, configuration, data, folder, setting)
        return _anomalibs(result, configuration, data, folder, setting)
    except FailedError as exc:
        return replace(exc.result or result, reason=str(exc))


@contextmanager
def keeping(result: Result) -> Iterator[None]:
    """What fails inside keeps this result."""
    try:
        yield
    except FailedError as exc:
        exc.result = exc.result or result
        raise


def process(command: Sequence[str], limit_s: float) -> tuple[Cost, str]:
    """Run it. Returns: what it cost, and its standard output. Raises: FailedError."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            out, err = running.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as exc:
            running.kill()
            raise FailedError(f"not done after {limit_s:.0f} s") from exc
    if running.returncode:
        lines = [line.strip() for line in err.splitlines() if line.strip() and not line.startswith(WITNESSED)]
        raise FailedError(lines[-1] if lines else f"exit code {running.returncode}")
    return Cost(time.perf_counter() - began, _mib(err)), out


def _mib(err: str) -> float:
    """What `_WITNESS` wrote last on standard error."""
    said = [line for line in err.splitlines() if line.startswith(WITNESSED)]
    return float(said[-1].removeprefix(WITNESSED)) if said else 0.0


_WITNESS = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv.pop(0))
code = 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__") if sys.argv[0].endswith(".py") else runpy.run_module(
        sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as exc:
    code = exc.code
print(f"peak_mib {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}", file=sys.stderr)
sys.exit(code)
"""
"""Runs a script or a module and says in the end how much memory it took."""


def witnessed(python: str, what: str, *args: str) -> list[str]:
    folder = str(Path(what).parent) if what.endswith(".py") else ""
    return [python, "-c", _WITNESS, folder, what, *args]


def _edge_ad(setting: Setting, *args: object) -> Cost:
    return process(witnessed(sys.executable, "edge_ad", *map(str, args)), 60 * setting.minutes)[0]


def _ours(result: Result, configuration: Configuration, data: Path, folder: Path, setting: Setting) -> Result:
    run, plain, both = folder / "run", folder / "plain.edgead", folder / "both.edgead"
    caches = ("--calibration-cache", folder / "calibrations", "--engine-cache", folder / "engines")
    cost = _edge_ad(setting, "train", data, *configuration.told, "--seed", result.seed, "-o", run, "--force")
    result = replace(result, train_s=cost.seconds, train_mib=cost.mib)
    with keeping(result):
        _edge_ad(setting, "export", run, "-o", plain, "--force")
        figures = _evaluated(plain, "fp32", data, folder, setting)
    pixel = figures.get("pixel") or {}
    result = replace(
        result, image_auroc=figures["image"]["auroc"], pixel_auroc=pixel.get("auroc"), pro=pixel.get("pro")
    )
    frame = str(next(iter(sorted((data / "test" / "good").iterdir()))))
    good = data / "train" / "good"
    with keeping(result):
        result = replace(result, fp32_ms=_bench(plain, "fp32", frame, folder, setting))
        _edge_ad(setting, "calibrate", plain, "--data", good, "--gate", "report", *caches, "-o", both, "--force")
    with keeping(result):
        int8 = _evaluated(both, "int8", data, folder, setting)
        result = replace(result, int8_image_auroc=int8["image"]["auroc"])
        return replace(result, int8_ms=_bench(both, "int8", frame, folder, setting))


def _evaluated(bundle: Path, precision: str, data: Path, folder: Path, setting: Setting) -> dict[str, Any]:
    output = folder / f"eval-{precision}"
    cache = ("--engine-cache", folder / "engines")
    _edge_ad(setting, "eval", bundle, data, "--precision", precision, *cache, "-o", output, "--force")
    found: dict[str, Any] = json.loads((output / "results.json").read_text("utf-8"))
    return found


def _bench(bundle: Path, precision: str, frame: str, folder: Path, setting: Setting) -> float:
    """Median milliseconds from a decoded frame to its verdict."""
    written = folder / f"bench-{precision}.json"
    told = ("--precision", precision, "--image", frame, "--duration", "5", "--export-json", written, "--force")
    _edge_ad(setting, "bench", bundle, *told, "--engine-cache", folder / "engines")
    return judged_ms(json.loads(written.read_text("utf-8")))


def judged_ms(bench: dict[str, Any]) -> float:
    """The median of the whole frame in what `edge-ad bench` writes."""
    return float(bench["latency_ms"]["total"]["p50"])


def _anomalibs(result: Result, configuration: Configuration, data: Path, folder: Path, setting: Setting) -> Result:
    if setting.python is None:
        raise FailedError("anomalib's environment is not there; see --anomalib")
    from accuracy import labelled
    from contenders import anomalibs
    from measure import Found, measure

    from edge_ad.bundle.specs import PreprocessSpec

    pictures = labelled(data, PreprocessSpec(SIDE, SIDE, resize_mode="stretch"))
    told = {
        "model": configuration.told[0],
        "data": str(data),
        "seed": result.seed,
        "side": SIDE,
        "weights": str(packaged_weights(folder)),
        "frames": {"seen": pictures.frame_hw()},
        "output": str(folder / "anomalib"),
        "max_s": int(60 * setting.minutes),
        "threads": setting.threads,
    }
    script = str(Path(__file__).parent / "anomalib_train.py")
    cost, out = process(
        witnessed(str(setting.python), script, json.dumps(told)), 60 * setting.minutes + 600
    )  # and the export
    result = replace(result, train_s=cost.seconds, train_mib=cost.mib)
    name = "anomalib 2.7.0, OpenVINO, fp32"
    paths = json.loads(out.rstrip().rpartition("\n")[2])["seen"]
    peer = anomalibs(name, folder, setting.python, paths, paths)
    frame = frame_of(data, folder)
    found: Found = measure(
        {name: peer}, frame, pictures.paths, starts=STARTS, rounds=setting.rounds, say=lambda _: None
    )[name]
    if found.reason is not None:
        return replace(result, reason=found.reason)
    return replace(result, fp32_ms=_median(found.latency_ms), **worth(pictures, found.scores, Path(found.maps)))


def worth(pictures: Any, scores: Sequence[float], maps: Path) -> dict[str, float | None]:
    """Of a peer's scores and maps, by the same code as `edge-ad eval`."""
    from edge_ad.metrics.ranking import auroc

    pixel = pictures.pixel_figures(maps)
    return {"image_auroc": auroc(list(scores), pictures.truth), "pixel_auroc": pixel.auroc, "pro": pixel.pro}


def packaged_weights(folder: Path) -> Path:
    """The weights that the preset `fast` has, as a file that anomalib's process reads."""
    import torch

    from edge_ad.models.packaged import PACKAGED
    from edge_ad.models.weights import backbone_state

    path = folder / "mobilenet_v2.pth"
    torch.save(backbone_state("mobilenet_v2", PACKAGED).tensors, path)
    return path


def frame_of(data: Path, folder: Path) -> Path:
    """The picture that is timed, as an array file for a peer."""
    import numpy as np
    from PIL import Image

    path = folder / "frame.npy"
    first = next(iter(sorted((data / "test" / "good").iterdir())))
    with Image.open(first) as opened:
        np.save(path, np.asarray(opened.convert("RGB")))
    return path


def _median(values: Sequence[float]) -> float | None:
    import statistics

    return statistics.median(values) if values else None


def environment(threads: int) -> None:
    """Threads of this process's children, before they start."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
