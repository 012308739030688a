"""What computes a graph: one module or room for each engine. A new one is that, and one line in ENGINES."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from edge_ad.errors import ConfigError

if TYPE_CHECKING:  # whoever only starts a process does not wait for NumPy
    from edge_ad.bundle.graph.contract import CheckedGraph
    from edge_ad.engine import Engine, EngineSpec

ENGINES = {
    "openvino": "edge_ad.runtime.engines.openvino:OpenVinoEngine",
    "onnxruntime": "edge_ad.runtime.engines.onnxruntime:OnnxRuntimeEngine",
    "tensorrt": "edge_ad.runtime.engines.tensorrt.runner.engine:TensorRtEngine",
    "fake": "edge_ad.runtime.engines.fake:FakeEngine",
}
"""Class of each engine by the name that the user gives it."""


def known_engine(value: object) -> object:
    """A name of `ENGINES`, for options. Raises: ValueError for anything else."""
    if value not in ENGINES:
        raise ValueError(f"wanted one of {', '.join(ENGINES)}")
    return value


def engine_class(name: str) -> type[Engine]:
    """The class of an engine. Raises: ConfigError when there is none of that name."""
    if name not in ENGINES:
        raise ConfigError("engine", [f"{name!r} is unknown, wanted one of {', '.join(ENGINES)}"])
    module, _, attribute = ENGINES[name].partition(":")
    found: type[Engine] = getattr(import_module(module), attribute)
    return found


def make_engine(name: str, read_model: Callable[[], CheckedGraph], spec: EngineSpec) -> Engine:
    """An engine that is not loaded yet. Raises: ConfigError when there is none of that name."""
    return engine_class(name)(read_model, spec)
