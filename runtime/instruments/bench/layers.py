"""Where the time goes inside the graph, by the engine's own account."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.engine import BatchArray, EngineSpec
from edge_ad.errors import EngineError, one_line
from edge_ad.openvino_core import openvino_core, openvino_reason
from edge_ad.runtime.engines.openvino import DEVICE, compile_config

CALLS = 10
WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Layer:
    """One layer as it is executed, which may be several layers of the graph in one.

    Attributes:
        name: its name, of the last of those layers.
        kind: such as `Convolution`.
        kernel: what computes it and in which arithmetic, as the engine names it; empty where it does not say.
        mean_ms: of one call; an engine that computes layers side by side counts each in full.
    """

    name: str
    kind: str
    kernel: str
    mean_ms: float


@dataclass(frozen=True)
class LayerTimes:
    """Where the time of a call goes.

    Attributes:
        layers: those that take time, slowest first.
        note: how they were taken, or why there are none.
    """

    layers: tuple[Layer, ...]
    note: str


Profile = Callable[[CheckedGraph, EngineSpec, BatchArray], list[Layer]]


def layer_times(engine: str, graph: CheckedGraph, spec: EngineSpec, batch_nhwc: BatchArray) -> LayerTimes:
    """Profile a graph on an engine by name, in a second instance, so that the measured one is not slowed down.

    Raises: EngineError.
    """
    profile = PROFILES.get(engine)
    if profile is None:
        how = "; NVIDIA's trtexec and Nsight Systems do" if engine == "tensorrt" else ""
        return LayerTimes((), f"edge-ad takes no times by layer on the engine {engine!r}{how}")
    layers = sorted(profile(graph, spec, batch_nhwc), key=lambda layer: -layer.mean_ms)
    return LayerTimes(tuple(layers), f"mean of {CALLS} calls of a second instance, counted by the engine itself")


def _openvino(graph: CheckedGraph, spec: EngineSpec, batch_nhwc: BatchArray) -> list[Layer]:
    import io

    core = openvino_core()
    config = compile_config(spec.precision, core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))
    try:
        model = core.read_model(io.BytesIO(graph))
        model.reshape(list(batch_nhwc.shape))
        request = core.compile_model(model, DEVICE, {**config, "PERF_COUNT": "YES"}).create_infer_request()
        sums: dict[tuple[str, str, str], float] = {}
        for call in range(WARM_UP_CALLS + CALLS):
            request.infer({0: batch_nhwc}, share_inputs=True)
            if call < WARM_UP_CALLS:
                continue
            for node in request.get_profiling_info():
                key = node.node_name, node.node_type, node.exec_type
                sums[key] = sums.get(key, 0.0) + node.real_time.total_seconds() * 1e3
    except Exception as exc:  # see the engine
        raise EngineError(f"OpenVINO cannot profile the graph: {openvino_reason(exc)}") from exc
    return [Layer(*key, total / CALLS) for key, total in sums.items() if total > 0]


def _onnxruntime(graph: CheckedGraph, spec: EngineSpec, batch_nhwc: BatchArray) -> list[Layer]:
    import onnxruntime

    from edge_ad.runtime.engines.onnxruntime import session_options

    try:
        with tempfile.TemporaryDirectory() as folder:
            options = session_options(onnxruntime)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "layers")
            session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for _ in range(WARM_UP_CALLS + CALLS):
                session.run(None, {spec.image.name: np.ascontiguousarray(batch_nhwc)})
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    except Exception as exc:
        raise EngineError(f"ONNX Runtime cannot profile the graph: {one_line(exc)}") from exc
    return _of_events(events)


def _of_events(events: list[dict[str, Any]]) -> list[Layer]:
    """Layers of ONNX Runtime's events, without the calls that warmed up."""
    taken: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            facts = event.get("args", {})
            key = name.removesuffix("_kernel_time"), str(facts.get("op_name", "")), str(facts.get("provider", ""))
            taken.setdefault(key, []).append(float(event["dur"]) / 1e3)
    return [Layer(*key, float(np.mean(times_ms[-CALLS:]))) for key, times_ms in taken.items()]


PROFILES: Mapping[str, Profile] = {"openvino": _openvino, "onnxruntime": _onnxruntime}
"""By name of the engine; the others give no account that edge-ad reads."""
