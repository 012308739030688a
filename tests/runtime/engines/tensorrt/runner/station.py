"""A bundle, engines of it, and the emulated driver, for the scenarios."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_ad.bundle.bundle import Bundle
from edge_ad.engine import Engine, EngineSpec
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.engines.tensorrt.choices import Choices, write_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import KERNEL_TAIL, Fingerprint, this_platform
from edge_ad.runtime.engines.tensorrt.gpu import find_gpu
from edge_ad.runtime.engines.tensorrt.plans import PlanFile
from edge_ad.runtime.engines.tensorrt.runner import engine as runner

HELD = (
    "device_allocations",
    "host_allocations",
    "streams",
    "events",
    "modules",
    "context_depth",
    "captures",
    "graphs",
    "graph_execs",
)
OUTPUTS = ("patch_map", "anomaly_map", "pred_score")
SAME_ATOL = 1e-6  # what two ways to add up the same in float32 may be apart
TAIL_VARIABLE = "EDGE_AD_TEST_TAIL"
GRAPH_VARIABLE = "EDGE_AD_TEST_CUDA_GRAPH"
INVALID, OUT_OF_MEMORY, ILLEGAL_ADDRESS = 1, 2, 700


class Emulator:
    """What the emulated driver offers to tests."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def report(self) -> dict[str, Any]:
        text = ctypes.create_string_buffer(1 << 16)
        self._library.emulated_cuda_report(text, ctypes.c_size_t(len(text)))
        return dict(json.loads(text.value))

    def held(self) -> dict[str, int]:
        """What is not freed."""
        report = self.report()
        return {name: report[name] for name in HELD if report[name]}

    def fail(self, name: str, after: int, code: int, *, for_good: bool = False) -> None:
        self._library.emulated_cuda_fail(name.encode(), ctypes.c_long(after), code, int(for_good))


class Station:
    """A bundle and engines of it."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        opened = self.bundle = Bundle.read(bundle)
        file = opened.model_file("fp32")
        self.graph = opened.read_file(file)
        self.cache = folder
        manifest = opened.manifest
        sha256 = hashlib.sha256(self.graph).hexdigest()
        self.spec = EngineSpec(
            manifest.input, manifest.outputs, "fp32", None, sha256, folder, postprocess=manifest.postprocess
        )
        self.flags = (KERNEL_TAIL,) if os.environ.get(TAIL_VARIABLE) == "kernel" else ()
        self.height, self.width = manifest.preprocess.size_hw

    def put(self, batches: tuple[int, int, int] = (1, 2, 3), plan: bytes | None = None, **changes: Any) -> PlanFile:
        """Put a plan into the cache, as 'edge-ad build' does; of its fingerprint `changes` are other than needed."""
        import tensorrt

        fitting = Fingerprint(
            flavour="tensorrt",
            version=tensorrt.__version__,
            sm=(86,),
            gpu="emulated GPU",
            precision="fp32",
            batch_min=batches[0],
            batch_best=batches[1],
            batch_max=batches[2],
            dla=None,
            flags=self.flags,
            onnx_sha256=self.spec.model_sha256,
            platform=this_platform(),
            edge_ad="0",
        )
        fingerprint = replace(fitting, **changes)
        place = PlanFile(self.cache / f"{fingerprint.key}.plan")
        kept = OUTPUTS[:1] if fingerprint.tail == "kernel" else OUTPUTS
        if os.environ.get(GRAPH_VARIABLE):
            need = runner.plan_need(self.spec, find_gpu(0), "tensorrt", tensorrt.__version__)
            write_choices(self.cache, need, Choices(tail=fingerprint.tail, cuda_graph=True))
        place.write(fingerprint, tensorrt.write_plan(self.graph, batches, outputs=kept) if plan is None else plan)
        return place

    def engine(self, name: str = "tensorrt", **changes: Any) -> Engine:
        return make_engine(name, lambda: self.graph, replace(self.spec, **changes))

    def images(self, count: int, seed: int = 0) -> Any:
        return np.random.default_rng(seed).integers(0, 256, (count, self.height, self.width, 3), np.uint8)


def difference(one: Any, other: Any) -> float:
    return max(float(np.abs(getattr(one, name) - getattr(other, name)).max()) for name in OUTPUTS)


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except EdgeAdError as exc:
        return f"{type(exc).__name__}: {exc}"
    return "no error"
