"""Both kernels compile for every GPU that edge-ad names, without spills and within their registers.

NVRTC needs no GPU; it comes with the package nvidia-cuda-nvrtc. Nothing is run here.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_ad.runtime.kernels.launch import source

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
OPTIONS = ("--ptxas-options=-v", "--std=c++14")  # the oldest CUDA that edge-ad names, 11.4 of JetPack 5, knows it well

Compile = Callable[..., tuple[int, str]]
PROPERTIES = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<target>\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@pytest.fixture(scope="session")
def nvrtc(absent: Callable[[str], None]) -> Compile:
    """Compiles for a compute capability: (text, 87, *options) → NVRTC's status, and what it and ptxas said."""
    libraries = _libraries()
    if not libraries:
        absent("no NVRTC: pip install nvidia-cuda-nvrtc")
    library = ctypes.CDLL(str(max(libraries, key=lambda path: int(path.suffix[1:]))))

    def compile_(text: str, target: int, *more: str) -> tuple[int, str]:
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        assert library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None) == 0
        options = [option.encode() for option in (f"--gpu-architecture=sm_{target}", *OPTIONS, *more)]
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        assert library.nvrtcGetProgramLogSize(program, ctypes.byref(size)) == 0
        log = ctypes.create_string_buffer(size.value)
        assert library.nvrtcGetProgramLog(program, log) == 0
        assert library.nvrtcDestroyProgram(ctypes.byref(program)) == 0
        return int(status), log.value.decode()

    return compile_


def _libraries() -> list[Path]:
    """libnvrtc.so.<major> of every CUDA version among the installed packages."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec is not None else None
    return [path for folder in folders or () for path in Path(folder).glob("*/lib/libnvrtc.so.*")]


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
