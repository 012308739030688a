"""Taking over an engine that was built elsewhere: the user vouches for it, and this machine's key does from then on."""

from __future__ import annotations

from pathlib import Path

from edge_ad.bundle.bundle import Bundle
from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.builder.build import Built, cached_place, graph_of
from edge_ad.runtime.engines.tensorrt.builder.lock import locked
from edge_ad.runtime.engines.tensorrt.builder.options import BuildOptions
from edge_ad.runtime.engines.tensorrt.builder.payload import plan_payload
from edge_ad.runtime.engines.tensorrt.fingerprint import PlanNeed, this_platform
from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS
from edge_ad.runtime.engines.tensorrt.gpu import find_gpu
from edge_ad.runtime.engines.tensorrt.plans import PlanFile, read_plan


def adopt_plan(path: Path, options: BuildOptions) -> Built:
    """Copy a plan into the engine cache, if it was built from the bundle and can be run on this machine.

    Args:
        path: of the plan; what it was built for lies beside it.
        options: `bundle`, `precision`, `device`, `dla` and `engine_cache` are looked at.

    Raises: EngineError when it does not fit, is damaged, or there is no GPU or TensorRT to run it; BundleError;
        OutputError.
    """
    claimed = PlanFile(path).fingerprint()
    if claimed is None:
        raise EngineError(f"engine {path}: there is no plan with a sound {PlanFile(path).sidecar.name} beside it")
    graph = graph_of(Bundle.read(options.bundle), options.precision or claimed.precision)
    gpu = find_gpu(options.device)
    need = PlanNeed(
        flavour=claimed.flavour,
        version=str(FLAVOURS[claimed.flavour].load().__version__),
        sm=gpu.sm,
        gpu=gpu.name,
        precision=graph.precision,
        batch=claimed.batch_best,
        onnx_sha256=graph.onnx_sha256,
        dla=options.dla,
        platform=this_platform(),
    )
    plan = read_plan(path, need)
    place = cached_place(options.engine_cache, claimed)
    place.prepare()
    with locked(place.path, lambda: None):
        place.write(claimed, plan)
    return Built(place.path, len(plan), False, plan_payload(plan))
