"""Every name of TensorRT that the source uses exists in TensorRT 8.6, 10.3, 10.13, 11.4 and TensorRT-RTX.

What `optional` looks up may lack in some of them, but not in all. The bindings are NVIDIA's own, imported over stub
libraries; of 10.13 it is the type stubs.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.rung(4)

ROOT = Path(__file__).resolve().parents[5]
SUPPORT = ROOT / "tests" / "support"
WHEELS = Path(os.environ.get("EDGE_AD_TENSORRT_BINDINGS", ROOT / "build" / "tensorrt_bindings"))
FETCH = f"python -m pip download --no-deps -r tests/support/tensorrt_bindings.txt -d {WHEELS}"
TENSORRT = ROOT / "runtime" / "engines" / "tensorrt"
SOURCES = [
    *sorted(TENSORRT.glob("*.py")),
    *sorted((TENSORRT / "builder").glob("*.py")),
    # the runner's others speak to CUDA alone
    *(TENSORRT / "runner" / name for name in ("engine.py", "execution.py", "loaded_plan.py")),
]
SECONDS = 60
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")

CLASS_OF = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "error": "ParserError",
    "cache": "ITimingCache",
    "image": "ITensor",
    "tensor": "ITensor",
    "severity_of": "ILogger.Severity",
    "levels": "HardwareCompatibilityLevel",
    "features": "PreviewFeature",
    "known": "ComputeCapability",
    "base": "IProgressMonitor",
    "strategy": "ExecutionContextAllocationStrategy",
    "_runtime": "Runtime",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "context": "IExecutionContext",
    "modes": "TensorIOMode",
}
"""Class of the objects of TensorRT, by the names that the source gives them."""

DECLARATION = re.compile(
    r"(?P<indent>(?:    )*)(?:class (?P<class>\w+)(?:\((?P<base>\w+)\))?:|def (?P<def>\w+)\(|(?P<variable>\w+): [\w.]+)"
)

Names = dict[str, list[str]]
Used = tuple[str, str]

GUARD_OF = {
    ("IBuilderConfig", "progress_monitor"): "IProgressMonitor",
    ("IBuilderConfig", "num_compute_capabilities"): "ComputeCapability",
    ("IBuilderConfig", "set_compute_capability"): "ComputeCapability",
    ("IExecutionContext", "set_device_memory"): "ExecutionContextAllocationStrategy",
    ("ExecutionContextAllocationStrategy", "USER_MANAGED"): "ExecutionContextAllocationStrategy",
}
"""What may lack where a class lacks that the source looks for first."""

VERSIONS = ["8.6.1", "10.3.0", "10.13 (type stubs)", "11.4.0", "RTX"]
PACKAGES = {
    "8.6.1": "tensorrt_bindings-8.6.1",
    "10.3.0": "tensorrt_cu12_bindings-10.3.0",
    "11.4.0": "tensorrt_cu13_bindings-11.4",
}
NEWEST_PYTHON = {"8.6.1": (3, 11), "10.3.0": (3, 12)}


def owner_of(node: ast.expr) -> str | None:
    """Class that an attribute is looked up in: of `trt.BuilderFlag.TF32` or `session.config.set_flag`; "" for `trt`."""
    match node:
        case ast.Name(id="trt") | ast.Attribute(attr="trt" | "_trt"):
            return ""
        case ast.Attribute(value=ast.Name(id="trt") | ast.Attribute(attr="trt" | "_trt"), attr=attr):
            return None if attr == "__version__" else attr
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return CLASS_OF.get(name)
    return None


def used_names(source: str) -> Iterator[tuple[bool, Used]]:
    """(is optional, (class, name)) of everything of TensorRT in a source text."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="optional"), args=[place, ast.Constant(value=str(name))]):
                found = True, place, name
            case ast.Call(func=ast.Name(id="_needed"), args=[_, place, ast.Constant(value=str(name)), _]):
                found = True, place, name
            case ast.Attribute(value=place, attr=name):
                found = False, place, name
            case _:
                continue
        is_optional, place, name = found
        owner = owner_of(place)
        if owner is not None and (name == "__version__" or name[0] != "_"):
            yield is_optional, (owner, name)


def used(is_optional: bool) -> set[Used]:
    found = [entry for path in SOURCES for entry in used_names(path.read_text(encoding="utf-8"))]
    return {name for optional, name in found if optional == is_optional}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The stub libraries of each major version."""
    compiler = shutil.which("cc")
    if compiler is None:
        stop("no C compiler for the stub libraries: install one that is called cc")
    folder = tmp_path_factory.mktemp("stubs")
    source = str(SUPPORT / "nvidia_stubs.c")
    made: dict[str, list[str]] = {}
    for major in ("8", "10", "11"):
        (folder / major).mkdir()
        made[major] = []
        for name in LIBRARIES:
            path = str(folder / major / f"lib{name}.so.{major}")
            options = ["-shared", "-fPIC", f"-Wl,-soname,lib{name}.so.{major}", "-o", path, source]
            subprocess.run([str(compiler), *options], check=True, timeout=SECONDS)
            made[major].append(path)
    return made


@pytest.fixture(scope="module")
def surface(
    libraries: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory, tensorrt_rtx: None
) -> dict[str, Names]:
    """Public names of every class, of each version that can be had for this Python."""
    found = {"RTX": listed("tensorrt_rtx")}
    for version, package in PACKAGES.items():
        if sys.version_info[:2] <= NEWEST_PYTHON.get(version, sys.version_info[:2]):
            folder = unpacked(package, tmp_path_factory)
            found[version] = listed("tensorrt_bindings", str(folder), *libraries[version.split(".")[0]])
    stubs = unpacked("tensorrt_stubs-10.13", tmp_path_factory)
    found["10.13 (type stubs)"] = declared((stubs / "tensorrt_bindings" / "tensorrt.pyi").read_text(encoding="utf-8"))
    return found


def stop(reason: str) -> None:
    """Skip; under CI fail, where the system is one that the wheels are made for."""
    if os.environ.get("EDGE_AD_REQUIRE_LADDER") and (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        pytest.fail(f"{reason}; CI has to compare the source with NVIDIA's bindings")
    pytest.skip(reason)


def unpacked(package: str, factory: pytest.TempPathFactory) -> Path:
    wheels = sorted(WHEELS.glob(f"{package}*.whl"))
    if not wheels:
        stop(f"{package} is not in {WHEELS}: {FETCH}")
    folder = factory.mktemp("bindings")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        wheel.extractall(folder)
    return folder


def listed(module: str, *arguments: str) -> Names:
    command = [sys.executable, str(SUPPORT / "list_bindings.py"), module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-1000:]
    names: Names = json.loads(done.stdout)
    return names


def declared(text: str) -> Names:
    """Public names of the classes of a .pyi file; a subclass has those of its base.

    Read line by line: one of its signatures is no Python, on which a parser gives up.
    """
    names: Names = {"": ["__version__"]}
    base_of: dict[str, str] = {}
    owners: list[str] = []
    for line in text.splitlines():
        found = DECLARATION.match(line)
        if found is None or len(found["indent"]) // 4 > len(owners):
            continue  # prose, or the inside of a function
        owners = owners[: len(found["indent"]) // 4]
        name = found["class"] or found["def"] or found["variable"]
        names[".".join(owners)].append(name)
        if found["class"]:
            owners.append(name)
            names[".".join(owners)] = []
            base_of[name] = found["base"] or ""
    for name, base in base_of.items():
        while base in names and base:
            names.setdefault(name, []).extend(names[base])
            base = base_of.get(base, "")
    return names


def test_the_source_is_read() -> None:
    """Control: what must be seen of the source is seen."""
    required, guarded = used(is_optional=False), used(is_optional=True)
    assert {
        ("", "Builder"),
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "set_flag"),
        ("BuilderFlag", "TF32"),
        ("OnnxParser", "parse"),
        ("INetworkDefinition", "get_input"),
        ("IOptimizationProfile", "set_shape"),
        ("ITimingCache", "serialize"),
        ("ILogger", "Severity"),
        ("ILogger.Severity", "WARNING"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "get_tensor_shape"),
        ("IExecutionContext", "execute_async_v3"),
        ("TensorIOMode", "INPUT"),
    } <= required
    assert {
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
        ("BuilderFlag", "FP16"),
        ("BuilderFlag", "VERSION_COMPATIBLE"),
        ("", "HardwareCompatibilityLevel"),
        ("", "IProgressMonitor"),
        ("ParserError", "node_name"),
    } <= guarded


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_exists(version: str, surface: dict[str, Names]) -> None:
    if version not in surface:
        pytest.skip(f"NVIDIA has no wheel of TensorRT {version} for this Python")
    names = surface[version]
    assert len(names) > 100
    missing = {(owner, name) for owner, name in used(is_optional=False) if name not in names.get(owner, [])}
    assert missing == {entry for entry, guard in GUARD_OF.items() if guard not in names[""]}


def test_every_optional_name_exists_somewhere(surface: dict[str, Names]) -> None:
    nowhere = {
        (owner, name)
        for owner, name in used(is_optional=True)
        if not any(name in names.get(owner, []) for names in surface.values())
    }
    assert nowhere == set()


def test_a_name_that_does_not_exist_is_found(surface: dict[str, Names]) -> None:
    """Controls: names of other versions and of none."""
    planted = "session.config.int8_calibrator\ntrt.BuilderFlag.FP16\nnetwork.num_ports\ntrt.Bilder"
    names = {name for _, name in used_names(planted)}
    assert names >= {
        ("IBuilderConfig", "int8_calibrator"),
        ("BuilderFlag", "FP16"),
        ("INetworkDefinition", "num_ports"),
        ("", "Bilder"),
    }
    newest = surface["11.4.0"]
    assert "int8_calibrator" not in newest["IBuilderConfig"] and "FP16" not in newest["BuilderFlag"]
    assert "num_ports" not in newest["INetworkDefinition"] and "Bilder" not in newest[""]
    assert "int8_calibrator" in surface["10.13 (type stubs)"]["IBuilderConfig"]
