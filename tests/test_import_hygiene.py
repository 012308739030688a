"""What importing edge_ad costs: measured in fresh interpreters, outside of the source tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = frozenset(
    {
        "PIL",
        "cv2",
        "onnx",
        "onnxruntime",
        "openvino",
        "prometheus_client",
        "pydantic",
        "scipy",
        "simplejpeg",
        "tensorrt",
        "timm",
        "torch",
        "torchvision",
        "tornado",
        "yaml",
    }
)
ENTRY_POINT = """
import sys
from importlib.metadata import entry_points
(entry,) = entry_points(group="console_scripts", name="edge-ad")
sys.argv = ["edge-ad", "--help"]
entry.load()()
"""
IMPORT_THE_RUNTIME = """
import pkgutil, importlib, edge_ad.runtime as runtime
for module in pkgutil.walk_packages(runtime.__path__, "edge_ad.runtime."):
    importlib.import_module(module.name)
"""


def python(folder: Path, *arguments: str) -> tuple[str, frozenset[str]]:
    """Run an interpreter in `folder`; its output and the top-level names of all that it imported."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False
    )
    lines = done.stderr.splitlines()
    timed = [line for line in lines if line.startswith("import time:")]
    assert done.returncode == 0, "\n".join(line for line in lines if line not in timed)
    return done.stdout, frozenset(line.rsplit("|", 1)[1].strip().split(".")[0] for line in timed)


def test_the_probe_sees_a_lazy_heavy_import(tmp_path: Path) -> None:
    _, loaded = python(tmp_path, "-c", "def f():\n    import yaml\nf()")
    assert loaded & HEAVY == {"yaml"}


def test_importing_edge_ad_loads_nothing_heavy(tmp_path: Path) -> None:
    _, loaded = python(tmp_path, "-c", "import edge_ad")
    assert "edge_ad" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("arguments", [("-m", "edge_ad", "--help"), ("-c", ENTRY_POINT)], ids=["module", "script"])
def test_help_loads_nothing_heavy(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    output, loaded = python(tmp_path, *arguments)
    assert "Usage:" in output
    assert {"run", "export", "info", "demo"} <= set(output.split())
    assert loaded & HEAVY == set()


def test_no_module_of_the_runtime_loads_torch(tmp_path: Path) -> None:
    _, loaded = python(tmp_path, "-c", IMPORT_THE_RUNTIME)
    assert loaded & {"torch", "torchvision", "timm", "onnx"} == set()
