"""Both kernels compile for every GPU that edge-ad names, without spills and within their registers.

NVRTC needs no GPU; it comes with the package nvidia-cuda-nvrtc. Nothing is run here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.kernels.compile import Nvrtc, compilers
from edge_ad.runtime.engines.tensorrt.kernels.launch import source

pytestmark = pytest.mark.rung(5)

TARGETS = {
    75: "Turing",
    80: "A100",
    86: "RTX 30",
    87: "Orin",
    89: "RTX 40",
    90: "Hopper",
    100: "B200",
    110: "Thor",
    120: "RTX 50",
}
ENTRY_POINTS = {
    "resize_smooth": {"resize_smooth_float", "resize_smooth_half"},
    "preprocess": {f"preprocess_{frame}_{image}" for frame in ("packed", "nv12") for image in ("u8", "half")},
}
REGISTERS = 64
"""Of a thread: with 65,536 in a multiprocessor, four blocks of 256 threads run at once, all that Turing can hold."""

Compile = Callable[..., tuple[int, str]]
PROPERTIES = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<target>\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@pytest.fixture(scope="session")
def nvrtc(absent: Callable[[str], None]) -> Compile:
    """Compiles for a compute capability: (text, 87, *options) → 0 and what NVRTC and ptxas said, or 1 and the error."""
    compiler = next((compiler for compiler in compilers() if isinstance(compiler, Nvrtc)), None)
    if compiler is None:
        absent("no NVRTC: pip install nvidia-cuda-nvrtc")
    assert compiler is not None

    def compile_(text: str, target: int, *more: str) -> tuple[int, str]:
        try:
            return 0, compiler.compile("kernel", text, target, "--ptxas-options=-v", *more)[1]
        except EngineError as exc:
            return 1, str(exc)

    return compile_


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"sm_{target}")
@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_kernels_compile_without_spills(
    nvrtc: Compile, name: str, target: int, record_property: Callable[[str, object], None]
) -> None:
    status, log = nvrtc(source(name), target)
    assert status == 0, log
    assert "warning" not in log
    entries = {match["name"]: match for match in PROPERTIES.finditer(log)}
    assert entries.keys() == ENTRY_POINTS[name], log
    for entry, match in entries.items():
        assert int(match["target"]) == target
        assert [int(match[key]) for key in ("stack", "stores", "loads")] == [0, 0, 0], log
        assert int(match["registers"]) <= REGISTERS, log
        record_property(f"{entry}.registers", int(match["registers"]))
        print(f"sm_{target} ({TARGETS[target]}): {entry} takes {match['registers']} registers")


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_kernel_that_spills_is_seen(nvrtc: Compile, name: str) -> None:
    """Held to too few registers, ptxas must say so, or the zeros above would mean nothing."""
    unbound = source(name).replace("__launch_bounds__(THREADS)", "")  # which would take precedence
    status, log = nvrtc(unbound, 87, "--maxrregcount=24")
    assert status == 0, log
    spills = [int(match["stores"]) for match in PROPERTIES.finditer(log)]
    assert len(spills) == len(ENTRY_POINTS[name]) and min(spills) > 0, log


def test_a_source_that_is_wrong_is_seen(nvrtc: Compile) -> None:
    status, log = nvrtc(source("preprocess").replace("#define TILE_COLUMNS 32\n", ""), 87)
    assert status != 0 and "TILE_COLUMNS" in log
