"""What the builder is told by version of TensorRT, recorded by stand-ins with the flags that each version has."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from edge_ad.errors import EngineError, OutputError
from edge_ad.runtime.engines.tensorrt.builder.builder import build_plan, foresee
from edge_ad.runtime.engines.tensorrt.builder.request import BatchRange, EngineRequest
from edge_ad.runtime.engines.tensorrt.messages import MAX_CHARACTERS, plain

pytestmark = pytest.mark.rung(4)

FLAGS = {
    "8.5.2": ("FP16", "GPU_FALLBACK", "INT8", "TF32"),
    "8.6.2": ("FP16", "GPU_FALLBACK", "INT8", "TF32", "VERSION_COMPATIBLE"),
    "10.3.0": ("FP16", "GPU_FALLBACK", "INT8", "TF32", "VERSION_COMPATIBLE"),
    "11.4.0": ("GPU_FALLBACK", "TF32", "VERSION_COMPATIBLE"),
}
NETWORK_FLAGS = {
    "8.5.2": ("EXPLICIT_BATCH",),
    "8.6.2": ("EXPLICIT_BATCH",),
    "10.3.0": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
    "11.4.0": ("STRONGLY_TYPED",),
}
PREVIEW_FEATURES = {
    "8.5.2": ("FASTER_DYNAMIC_SHAPES_0805",),
    "8.6.2": ("FASTER_DYNAMIC_SHAPES_0805", "PROFILE_SHARING_0806"),
    "10.3.0": ("PROFILE_SHARING_0806",),
    "11.4.0": ("RUNTIME_ACTIVATION_RESIZE_10_10",),
}
BIT = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
VERSIONS = tuple(FLAGS)
DLA_CORES = 2

Install = Callable[..., "Recorded"]


class Recorded(SimpleNamespace):
    """What a build was told.

    Attributes:
        network_flags: names.
        flags: of the builder that were set and not cleared.
        features: previews of later versions that were switched on.
        profile: shapes of the image: smallest, best, largest; None without a profile.
        settings: attributes of the configuration.
        pools: bytes of each memory pool.
        cache: bytes that the timing cache was started with.
        steps: how many the builder went through.
    """


def severity_enum() -> Any:
    names = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    return IntEnum("Severity", {name: number for number, name in enumerate(names)})


def fake_module(version: str, recorded: Recorded, behaviour: dict[str, Any]) -> ModuleType:
    """A module `tensorrt` of a version that records and compiles nothing.

    `behaviour`: `errors` and `warnings` that are logged while building, `refusals` of the parser as (name, operator,
    text), `batch` of the graph, `no_builder`, `old_cache` (bytes that the timing cache refuses).
    """
    trt = ModuleType("tensorrt")
    trt.__version__ = version
    trt.BuilderFlag = IntEnum("BuilderFlag", FLAGS[version], start=0)
    trt.NetworkDefinitionCreationFlag = IntEnum(
        "NetworkDefinitionCreationFlag", {name: BIT[name] for name in NETWORK_FLAGS[version]}
    )
    trt.MemoryPoolType = IntEnum("MemoryPoolType", ["WORKSPACE"])
    trt.DeviceType = IntEnum("DeviceType", ["GPU", "DLA"])
    if version != "8.5.2":
        trt.HardwareCompatibilityLevel = IntEnum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
    trt.PreviewFeature = IntEnum("PreviewFeature", PREVIEW_FEATURES[version])

    class ILogger:
        Severity = severity_enum()

    class Config:
        progress_monitor = None

        def __init__(self) -> None:
            recorded.flags.add("TF32")  # as TensorRT does
            self._told = True

        def __setattr__(self, name: str, value: Any) -> None:
            if name not in ("_told", "progress_monitor"):
                recorded.settings[name] = getattr(value, "name", value)
            super().__setattr__(name, value)

        def set_flag(self, flag: Any) -> None:
            recorded.flags.add(flag.name)

        def clear_flag(self, flag: Any) -> None:
            recorded.flags.discard(flag.name)

        def set_memory_pool_limit(self, pool: Any, size_bytes: int) -> None:
            recorded.pools[pool.name] = size_bytes

        def add_optimization_profile(self, profile: Any) -> int:
            recorded.profile = profile.shapes
            return 0

        def set_preview_feature(self, feature: Any, on: bool) -> None:
            assert on
            recorded.features.add(feature.name)

        def create_timing_cache(self, data: bytes) -> Any:
            return None if data == behaviour.get("old_cache", b"none") else SimpleNamespace(data=data)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert ignore_mismatch is False
            recorded.cache = cache.data
            return True

        def get_timing_cache(self) -> Any:
            return SimpleNamespace(serialize=lambda: memoryview(b"measured"))

    class Profile:
        def set_shape(self, name: str, smallest: Any, best: Any, largest: Any) -> None:
            assert name == "image"
            self.shapes = (smallest, best, largest)

    class Builder:
        num_DLA_cores = DLA_CORES  # noqa: N815  # the name is NVIDIA's

        def __init__(self, logger: Any) -> None:
            if behaviour.get("no_builder"):
                logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self.logger = logger

        def create_network(self, flags: int) -> Any:
            recorded.network_flags = {name for name in NETWORK_FLAGS[version] if flags >> BIT[name] & 1}
            assert flags == sum(1 << BIT[name] for name in recorded.network_flags)
            image = SimpleNamespace(
                name="image", shape=(behaviour.get("batch", -1), 4, 4, 3), dtype=SimpleNamespace(name="UINT8")
            )
            score = SimpleNamespace(name="pred_score", shape=(-1,), dtype=SimpleNamespace(name="FLOAT"))
            return SimpleNamespace(
                num_inputs=1, num_outputs=1, num_layers=7, get_input=lambda _: image, get_output=lambda _: score
            )

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def is_network_supported(self, network: Any, config: Any) -> bool:
            return not behaviour.get("errors")

        def build_serialized_network(self, network: Any, config: Config) -> memoryview | None:
            for severity in ("errors", "warnings"):
                for line in behaviour.get(severity, ()):
                    self.logger.log(ILogger.Severity[severity.upper()[:-1]], line)
            monitor = config.progress_monitor
            if monitor is not None:
                monitor.phase_start("Building", None, 1000)
                for step in range(1000):
                    recorded.steps += 1
                    if not monitor.step_complete("Building", step):
                        return None
                    time.sleep(behaviour.get("step_seconds", 0))
                monitor.phase_finish("Building")
            return None if behaviour.get("errors") else memoryview(b"plan")

    class Parser:
        def __init__(self, network: Any, logger: Any) -> None:
            self._refusals = behaviour.get("refusals", ())
            self.num_errors = len(self._refusals)

        def parse(self, model: bytes) -> bool:
            return not self._refusals

        def get_error(self, index: int) -> Any:
            name, operator, text = self._refusals[index]
            error = SimpleNamespace(desc=lambda: text, node=lambda: 12 if name else -1)
            if not version.startswith("8."):
                error.node_name, error.node_operator = lambda: name, lambda: operator
            return error

    trt.ILogger, trt.Builder, trt.OnnxParser = ILogger, Builder, Parser
    if not version.startswith("8."):
        trt.IProgressMonitor = type("IProgressMonitor", (), {})
    return trt


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a stand-in of a version in place of TensorRT: (version, behaviour) → what it records."""

    def place(version: str, **behaviour: Any) -> Recorded:
        recorded = Recorded(
            network_flags=set(), flags=set(), features=set(), profile=None, settings={}, pools={}, cache=None, steps=0
        )
        monkeypatch.setitem(sys.modules, "tensorrt", fake_module(version, recorded, behaviour))
        return recorded

    return place


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("version", VERSIONS)
def test_precision_lives_in_the_graph_where_it_can(version: str, precision: Any, install: Install) -> None:
    recorded = install(version)
    plan = build_plan(b"onnx", EngineRequest(precision, BatchRange(1, 2, 4)))
    assert plan.data == b"plan" and plan.notes == ()
    assert recorded.network_flags == ({"EXPLICIT_BATCH"} if version.startswith("8.") else {"STRONGLY_TYPED"})
    told = {"fp16": {"FP16"}, "int8": {"INT8"}}.get(precision, set())
    assert recorded.flags == (told if version.startswith("8.") else set())
    assert recorded.profile == ((1, 4, 4, 3), (2, 4, 4, 3), (4, 4, 4, 3))
    assert recorded.features == ({"PROFILE_SHARING_0806"} if version == "8.6.2" else set())
    assert recorded.settings == {} and recorded.pools == {} and recorded.cache is None


def test_a_fixed_batch_has_no_profile(install: Install) -> None:
    for version in VERSIONS:
        recorded = install(version, batch=2)
        build_plan(b"onnx", EngineRequest("fp32", BatchRange(2, 2, 2)))
        assert recorded.profile is None and recorded.features == set()


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_every_option_reaches_the_builder(version: str, install: Install) -> None:
    recorded = install(version)
    request = EngineRequest("fp32", workspace_mb=64, hardware_compatible=True, version_compatible=True, tf32=True)
    build_plan(b"onnx", request)
    assert recorded.flags == {"TF32", "VERSION_COMPATIBLE"}
    assert recorded.settings == {"hardware_compatibility_level": "AMPERE_PLUS"}
    assert recorded.pools == {"WORKSPACE": 64 * 1024 * 1024}


@pytest.mark.parametrize(
    ("version", "network", "flags"),
    [
        ("8.6.2", {"EXPLICIT_BATCH"}, {"FP16", "GPU_FALLBACK"}),
        ("10.3.0", set(), {"FP16", "GPU_FALLBACK"}),
        ("11.4.0", {"STRONGLY_TYPED"}, {"GPU_FALLBACK"}),
    ],
)
def test_the_dla(version: str, network: set[str], flags: set[str], install: Install) -> None:
    recorded = install(version)
    build_plan(b"onnx", EngineRequest("fp16", BatchRange(4, 4, 4), dla=1))
    assert (recorded.network_flags, recorded.flags) == (network, flags)
    assert recorded.settings == {"default_device_type": "DLA", "DLA_core": 1}
    with pytest.raises(EngineError, match="sees 2 DLA cores here, wanted core 2"):
        build_plan(b"onnx", EngineRequest("fp16", dla=2))


def test_what_a_version_lacks_is_said(install: Install) -> None:
    install("8.5.2")
    for option in ("hardware", "version"):
        with pytest.raises(EngineError, match=rf"TensorRT 8\.5\.2 has no {option} compatibility"):
            build_plan(b"onnx", EngineRequest("fp32", **{f"{option}_compatible": True}))


def test_the_timing_cache_is_kept(install: Install, tmp_path: Path) -> None:
    path = tmp_path / "caches" / "timing.bin"
    recorded = install("10.3.0", old_cache=b"of another GPU")
    request = EngineRequest("fp32", timing_cache=path)
    build_plan(b"onnx", request)
    assert recorded.cache == b"" and path.read_bytes() == b"measured"
    assert build_plan(b"onnx", request).notes == () and recorded.cache == b"measured"
    path.write_bytes(b"of another GPU")
    (note,) = build_plan(b"onnx", request).notes
    assert "of another GPU or version, or damaged" in note
    assert recorded.cache == b"" and path.read_bytes() == b"measured"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((EngineError, OutputError), match="timing cache"):
        build_plan(b"onnx", EngineRequest("fp32", timing_cache=tmp_path / "file" / "timing.bin"))


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("8.6.2", "node 12: Unsupported"),
        ("10.3.0", "node '/head/Gelu' (Gelu): Unsupported"),
        ("11.4.0", "node '/head/Gelu' (Gelu): Unsupported"),
    ],
)
def test_a_refused_node_is_named(version: str, words: str, install: Install) -> None:
    install(version, refusals=[("/head/Gelu", "Gelu", "Unsupported\n operator"), *[("b", "B", "more")] * 4])
    with pytest.raises(EngineError) as caught:
        build_plan(b"onnx", EngineRequest("fp16"))
    message = str(caught.value)
    assert message.startswith(f"TensorRT {version} cannot read the bundle's fp16 graph: {words} operator")
    assert message.endswith("(and 2 more)") and "\n" not in message


def test_errors_and_warnings_become_one_line_each(install: Install) -> None:
    first = (
        "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node)"
    )
    install("10.3.0", errors=[first, "a consequence"])
    with pytest.raises(
        EngineError, match=r"^TensorRT 10\.3\.0 cannot build fp16 for SM87: Could not find any implem[^;]*$"
    ):
        build_plan(b"onnx", EngineRequest("fp16", sm=(87,)))
    with pytest.raises(EngineError, match="cannot build fp16"):
        foresee(b"onnx", EngineRequest("fp16", sm=(87,)))
    install("10.3.0", warnings=["weights were\nclipped", "weights were\nclipped"])
    assert build_plan(b"onnx", EngineRequest("fp16")).notes == ("TensorRT 10.3.0: weights were clipped",)


def test_no_builder_without_a_gpu(install: Install) -> None:
    install("10.3.0", no_builder=True)
    with pytest.raises(EngineError, match="makes no builder on this machine: CUDA initialization failure"):
        build_plan(b"onnx", EngineRequest("fp32"))


def test_a_display_that_fails_does_not_end_the_build(install: Install) -> None:
    class Broken:
        def begin(self, phase: str, parent: str | None, steps: int) -> None:
            raise RuntimeError("no terminal")

        def step(self, phase: str, step: int) -> None:
            raise RuntimeError("no terminal")

        def end(self, phase: str) -> None:
            raise RuntimeError("no terminal")

    recorded = install("10.3.0")
    assert build_plan(b"onnx", EngineRequest("fp32"), Broken()).data == b"plan"
    assert recorded.steps == 1000


def test_the_outlook_builds_nothing(install: Install) -> None:
    recorded = install("10.3.0")
    outlook = foresee(b"onnx", EngineRequest("int8", BatchRange(1, 2, 4), sm=(87,), workspace_mb=64))
    assert recorded.steps == 0
    assert (outlook.builder, outlook.layers) == ("TensorRT 10.3.0", 7)
    assert outlook.tensors == ("image uint8 (any, 4, 4, 3)", "pred_score float (any)")
    assert outlook.settings == (
        "precision int8, the graph's own types",
        "for SM87",
        "profile of batches of 1 to 4, fastest at 2",
        "workspace 64 MiB",
    )


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("plain words", "plain words"),
        ("two\n  lines", "two lines"),
        (
            "IBuilder::build: Error Code 1: Myelin ([a.cpp:3: f] No GEMM (here). In g at /_src/b.cpp:12)",
            "No GEMM (here).",
        ),
        (
            "[cache.cpp::catch::25] Error Code 1: Cuda Runtime (In catch at /src/c.cpp:2 (cudaError 35: old driver))",
            "(cudaError 35: old driver)",
        ),
        ("x" * 1000, "x" * (MAX_CHARACTERS - 1) + "…"),
        ("", ""),
    ],
)
def test_messages_are_shortened(said: str, kept: str) -> None:
    assert plain(said) == kept


@pytest.mark.parametrize(
    ("name", "contents", "words"),
    [
        ("tensorrt", None, "TensorRT is not installed: no module 'tensorrt'; on Jetson it comes with JetPack"),
        ("tensorrt", "", "TensorRT is not installed: the module 'tensorrt' is empty"),
        ("tensorrt", "raise ImportError('libnvinfer.so.10: no such file')", "cannot be loaded: libnvinfer"),
        ("tensorrt", "import tensorrt_libraries", "no module 'tensorrt_libraries'"),
    ],
)
def test_a_missing_tensorrt_says_how_to_get_it(
    name: str, contents: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(path for path in sys.path if not (Path(path) / name).exists())])
    monkeypatch.delitem(sys.modules, name, raising=False)
    if contents is not None:
        (tmp_path / f"{name}.py").write_text(contents)
    else:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=words):
        build_plan(b"onnx", EngineRequest("fp32"))
