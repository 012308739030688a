"""ONNX Runtime on the CPU: the second opinion, and the engine for machines that OpenVINO does not serve."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import numpy as np

from edge_ad.engine import BatchArray, Engine, Outputs
from edge_ad.errors import EngineError, MissingExtraError, library_lines


class OnnxRuntimeEngine(Engine):
    """Runs the graph as it is written, in the arithmetic that is in it. Loads in a moment, so nothing is cached."""

    name = "onnxruntime"

    @classmethod
    def import_libraries(cls) -> None:
        with suppress(ImportError):
            import onnxruntime  # noqa: F401

    def load_impl(self) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as exc:
            raise MissingExtraError("engine 'onnxruntime'", "onnxruntime", "onnxruntime") from exc
        graph = self._read_model()
        try:
            self._session: Any = onnxruntime.InferenceSession(
                graph, session_options(onnxruntime), providers=["CPUExecutionProvider"]
            )
        except Exception as exc:
            raise EngineError(f"ONNX Runtime cannot load the bundle's graph: {library_lines(exc)[0]}") from exc

    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        names = [tensor.name for tensor in self.spec.outputs]
        try:
            tensors = self._session.run(names, {self.spec.image.name: np.ascontiguousarray(batch_nhwc)})
        except Exception as exc:
            raise EngineError(f"ONNX Runtime failed on a batch: {library_lines(exc)[0]}") from exc
        return Outputs(*tensors)

    def close_impl(self) -> None:
        del self._session


def session_options(onnxruntime: Any) -> Any:
    """How sessions of this engine are set up."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    # Threads that spin between frames would take the processor from capture and preprocessing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
