"""OpenVINO on the CPU: the embedded default."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import Precision
from edge_ad.disk.blob_cache import BlobCache
from edge_ad.engine import BatchArray, Engine, Outputs
from edge_ad.errors import EngineError
from edge_ad.openvino_core import load_openvino, openvino_core, openvino_reason

log = logging.getLogger(__name__)

DEVICE = "CPU"
EFFECTIVE = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class OpenVinoEngine(Engine):
    """Compiles the graph for this CPU, with the arithmetic that the bundle promises.

    OpenVINO's own default drops fp32 to bf16 or f16 where the CPU has them, so the precision is pinned and read back.
    The compiled model is kept in the cache; its fingerprint has the graph, OpenVINO's version, the CPU and the
    precision in it.
    """

    name = "openvino"
    _blob: NDArray[np.uint8] | None = None

    @classmethod
    def import_libraries(cls) -> None:
        with suppress(ImportError):
            openvino_core()

    def load_impl(self) -> None:
        try:
            openvino = load_openvino()
        except ModuleNotFoundError as exc:
            raise EngineError("engine 'openvino' needs the package 'openvino': pip install openvino") from exc
        core = openvino_core()
        capabilities = sorted(core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))
        config = compile_config(self.spec.precision, capabilities)
        fingerprint = {
            "engine": self.name,
            "version": openvino.get_version(),
            "device": str(core.get_property(DEVICE, "FULL_DEVICE_NAME")),
            "capabilities": " ".join(capabilities),
            "config": " ".join(f"{key}={value}" for key, value in sorted(config.items())),
            "precision": self.spec.precision,
            "batch": str(self.spec.batch),
            "model": self.spec.model_sha256,
        }
        folder = self.spec.cache_dir
        cache = BlobCache(folder, "compiled engine") if folder is not None else None
        if not (cache is not None and self._from_cache(core, cache, fingerprint, config)):
            self._compile(core, config)
            if cache is not None:
                self._keep(cache, fingerprint)

    def _from_cache(self, core: Any, cache: BlobCache, fingerprint: dict[str, str], config: dict[str, str]) -> bool:
        """Take the compiled model from the cache. Returns: whether it was there and OpenVINO takes it."""
        blob = cache.get(fingerprint)
        if blob is None:
            return False
        # OpenVINO computes with the weights where they lie, so the blob stays for as long as the compiled model.
        self._blob = np.frombuffer(blob, np.uint8)
        try:
            tensor = load_openvino().Tensor(self._blob, shared_memory=True)
            self._take(core.import_model(tensor, DEVICE, config))
        except Exception as exc:  # on a file it raises what it likes: RuntimeError, UnicodeDecodeError, MemoryError, …
            self._blob = None
            log.warning(
                "OpenVINO refuses the compiled model from the cache (%s); compiling it again", openvino_reason(exc)
            )
            cache.forget(fingerprint)
            return False
        self.from_cache = True
        return True

    def _compile(self, core: Any, config: dict[str, str]) -> None:
        graph = self._read_model()
        try:
            model = core.read_model(io.BytesIO(graph))
            if self.spec.batch is not None:
                model.reshape([self.spec.batch, *self.spec.image.shape[1:]])
            self._take(core.compile_model(model, DEVICE, config))
        except Exception as exc:  # as above
            raise EngineError(f"OpenVINO cannot compile the bundle's graph: {openvino_reason(exc)}") from exc

    def _take(self, compiled: Any) -> None:
        """Use a compiled model."""
        hint = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
        effective = EFFECTIVE.get(hint.strip("<>' ").rsplit(" ", 1)[-1].strip("'>"), hint)
        self._request = compiled.create_infer_request()
        self._compiled = compiled
        self.effective_precision = "int8" if self.spec.precision == "int8" and effective == "fp32" else effective

    def _keep(self, cache: BlobCache, fingerprint: dict[str, str]) -> None:
        try:
            blob = _exported(self._compiled)
        except Exception as exc:  # as above
            log.warning("OpenVINO cannot export the compiled model (%s); it is not kept", openvino_reason(exc))
            return
        cache.put(fingerprint, blob)

    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        try:
            self._request.infer({0: np.ascontiguousarray(batch_nhwc)}, share_inputs=True)
            tensors = [self._request.get_tensor(self._compiled.output(t.name)).data for t in self.spec.outputs]
        except Exception as exc:  # as above
            raise EngineError(f"OpenVINO failed on a batch: {openvino_reason(exc)}") from exc
        patch_map, anomaly_map, pred_score = (np.array(tensor) for tensor in tensors)
        return Outputs(patch_map, anomaly_map, pred_score)

    def close_impl(self) -> None:
        del self._request, self._compiled
        self._blob = None


def compile_config(precision: Precision, capabilities: Sequence[str]) -> dict[str, str]:
    """What OpenVINO is told to compile a graph of that precision.

    Args:
        capabilities: of the CPU, its OPTIMIZATION_CAPABILITIES.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": _hint(precision, capabilities),
    }


def _hint(precision: Precision, capabilities: Sequence[str]) -> str:
    """Arithmetic to ask for. int8 lives in the graph's Q/DQ, and the rest of that graph is float32.

    A CPU without float16 is asked for float32, which is what the graph's float16 values are computed in then: asked
    for float16, OpenVINO would take bfloat16, which is eight times as coarse.
    """
    return "f16" if precision == "fp16" and "FP16" in capabilities else "f32"


def _exported(compiled: Any) -> bytes:
    stream = io.BytesIO()
    compiled.export_model(stream)
    return stream.getvalue()
