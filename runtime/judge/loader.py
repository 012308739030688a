"""From a bundle, or a graph that is not in one yet, to the detector that judges with it: `edge_ad.open`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.bundle.specs import Precision, Thresholds
from edge_ad.disk.blob_cache import ENGINE_FOLDER, default_cache_dir
from edge_ad.engine import Engine, EngineSpec
from edge_ad.errors import BundleError, ConfigError
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.judge.detector import Detector
from edge_ad.validation import build

MakeEngine = Callable[[str, Callable[[], CheckedGraph], EngineSpec], Engine]


def open_detector(
    bundle: str | Path | Bundle,
    *,
    engine: str = "openvino",
    precision: Precision | None = None,
    threshold: float | None = None,
    engine_cache: str | Path | None = None,
    device: int = 0,
    dla: int | None = None,
    batch: int = 1,
    make: MakeEngine = make_engine,
    around_engine: Callable[[Engine], Engine] = lambda engine: engine,
) -> Detector:
    """Open a bundle for judging frames.

    ``with edge_ad.open("bottle.edgead") as detector: verdict = detector.judge(image_hwc)``

    Args:
        bundle: its directory, of which every file is checked before this returns, or a bundle that was read already.
        engine: `openvino`, `onnxruntime` or `tensorrt`.
        precision: which of the bundle's models; that of `Bundle.precision` when None.
        threshold: raw score to use in place of the bundle's for that precision.
        engine_cache: folder for compiled models; the user's cache folder when None.
        device: number of the GPU, for TensorRT.
        dla: core of its deep learning accelerator; None for the GPU itself.
        batch: frames that the engine is to take at once, for lines of several cameras.
        make: makes the engine of that name; `EngineProcess.engine` puts it into a process of its own.
        around_engine: puts another engine around the one that was made, to watch it or to make it fail.

    Raises: BundleError, ConfigError, MissingExtraError.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.read(bundle)
    chosen = opened.precision(precision)
    file = opened.model_file(chosen)
    cache_dir = Path(engine_cache) if engine_cache is not None else default_cache_dir(ENGINE_FOLDER)
    spec = replace(engine_spec(opened, chosen, opened.manifest.files[file], cache_dir), device=device, dla=dla)
    fixed = opened.manifest.input.shape[0]
    if fixed is None and batch > 1:
        spec = replace(spec, batch=None)  # any number of frames, as they come
    thresholds = (
        opened.thresholds(chosen) if threshold is None else build(Thresholds, {"image": threshold}, "threshold")
    )
    made = make(engine, lambda: opened.read_graph(chosen), spec)
    if made.runs_graph:
        opened.examine_graph(chosen)  # at once, and where a compiled blob means that the graph itself is not read
    if fixed is not None and batch > fixed:
        raise ConfigError("batch", [f"wanted 1 to {fixed}, which the bundle's graph is made for, got {batch}"])
    return Detector(opened, around_engine(made), thresholds, max_batch=fixed or batch)


def open_graph(
    bundle: Bundle,
    graph: bytes,
    precision: Precision,
    *,
    engine: str = "openvino",
    engine_cache: str | Path | None = None,
) -> Detector:
    """Open a graph that is not in a bundle, or not yet, for judging frames as that bundle does.

    Preprocessing, post-processing and the thresholds of `precision` are the bundle's.

    Args:
        bundle: the one that the graph was made from.
        graph: ONNX model with the inputs and outputs of the bundle's.
        precision: what the graph is to be computed in.
        engine: as for `open_detector`.
        engine_cache: folder for compiled models; nothing is kept when None.

    Raises: BundleError, ConfigError, MissingExtraError.
    """
    cache_dir = Path(engine_cache) if engine_cache is not None else None
    spec = engine_spec(bundle, precision, hashlib.sha256(graph).hexdigest(), cache_dir)
    try:
        checked = checked_graph(graph, bundle.graph_contract)
    except BundleError as exc:
        raise BundleError(f"a {precision} graph for bundle {bundle.path}: {exc}; make it again") from exc
    return Detector(bundle, make_engine(engine, lambda: checked, spec), bundle.thresholds(precision))


def engine_spec(bundle: Bundle, precision: Precision, model_sha256: str, cache_dir: Path | None) -> EngineSpec:
    """What the engine is to compute."""
    manifest = bundle.manifest
    return EngineSpec(
        image=manifest.input,
        outputs=manifest.outputs,
        precision=precision,
        batch=manifest.input.shape[0] or 1,
        model_sha256=model_sha256,
        cache_dir=cache_dir,
        postprocess=manifest.postprocess,
    )
