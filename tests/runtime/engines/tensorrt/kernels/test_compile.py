"""Kernels are compiled on the machine by what it has: NVRTC first, then nvcc; and kept."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.kernels import compile as compile_module
from edge_ad.runtime.engines.tensorrt.kernels.compile import Compiler, Nvcc, Nvrtc, compiled, compilers

pytestmark = pytest.mark.rung(5)

ELF = b"\x7fELF"


@pytest.fixture
def nvrtc(absent: Callable[[str], None]) -> Nvrtc:
    found = [compiler for compiler in compilers() if isinstance(compiler, Nvrtc)]
    if not found:
        absent("no NVRTC: pip install nvidia-cuda-nvrtc")
    return found[0]


@pytest.fixture
def nvcc(absent: Callable[[str], None]) -> Nvcc:
    found = [compiler for compiler in compilers() if isinstance(compiler, Nvcc)]
    if not found:
        absent("no nvcc: install the CUDA toolkit")
    return found[0]


class Recorded:
    """A compiler that only counts. Args: version, knows: as in `Compiler`."""

    def __init__(self, version: tuple[int, int] = (12, 6), known: tuple[int, ...] = (87,)) -> None:
        self.version = version
        self.text = f"recorded {version[0]}.{version[1]}"
        self.calls = 0
        self._known = known

    def knows(self, sm: int) -> bool:
        return sm in self._known

    def compile(self, name: str, text: str, sm: int, *more: str) -> tuple[bytes, str]:
        self.calls += 1
        return ELF + f"{name} SM{sm} {self.text}".encode(), ""


def _only(monkeypatch: pytest.MonkeyPatch, *which: Compiler) -> None:
    monkeypatch.setattr(compile_module, "compilers", lambda: iter(which))


@pytest.mark.parametrize("name", ["resize_smooth", "preprocess"])
def test_nvrtc_and_nvcc_make_machine_code(nvrtc: Nvrtc, nvcc: Nvcc, name: str) -> None:
    for compiler in (nvrtc, nvcc):
        assert compiler.knows(87) and not compiler.knows(10)
        cubin, log = compiler.compile(name, compile_module.source(name), 87)
        assert cubin.startswith(ELF) and name.encode() in cubin
        assert "warning" not in log


def test_both_say_what_is_wrong_with_a_source_in_one_line(nvrtc: Nvrtc, nvcc: Nvcc) -> None:
    for compiler in (nvrtc, nvcc):
        with pytest.raises(EngineError) as caught:
            compiler.compile("smudge", "// fine\n__global__ void smudge() { int a = b; }", 86)
        said = str(caught.value)
        assert said.startswith(f"{compiler.text} does not compile smudge.cu for SM86: smudge.cu(2): error: ")
        assert '"b" is undefined' in said and "\n" not in said


def test_what_was_compiled_is_kept_for_each_gpu_and_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Recorded(known=(86, 87))
    _only(monkeypatch, first)
    cubins = [compiled(name, sm, tmp_path) for sm in (86, 87) for name in ("preprocess", "resize_smooth")]
    assert (first.calls, len(set(cubins))) == (4, 4)
    assert [compiled(name, sm, tmp_path) for sm in (86, 87) for name in ("preprocess", "resize_smooth")] == cubins
    assert first.calls == 4
    compiled("preprocess", 86, None)
    assert first.calls == 5
    newer = Recorded((12, 8), (86,))
    _only(monkeypatch, newer)
    compiled("preprocess", 86, tmp_path)
    assert newer.calls == 1


def test_a_changed_source_and_a_damaged_file_are_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = Recorded()
    _only(monkeypatch, compiler)
    cubin = compiled("preprocess", 87, tmp_path)
    (blob,) = tmp_path.glob("*.blob")
    blob.write_bytes(cubin[:-1] + b"?")
    assert compiled("preprocess", 87, tmp_path) == cubin
    assert compiler.calls == 2 and "damaged" in caplog.text
    monkeypatch.setattr(compile_module, "source", lambda name: "// another")
    compiled("preprocess", 87, tmp_path)
    assert compiler.calls == 3


def test_a_compiler_that_is_newer_than_the_driver_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    newer, older = Recorded((13, 0)), Recorded((12, 2))
    _only(monkeypatch, newer, older)
    assert b"recorded 13.0" in compiled("preprocess", 87, None)
    assert b"recorded 13.0" in compiled("preprocess", 87, None, driver_cuda=(13, 2))
    assert b"recorded 12.2" in compiled("preprocess", 87, None, driver_cuda=(12, 6))  # minor numbers do not matter
    with pytest.raises(EngineError, match=r"\(recorded 13\.0, recorded 12\.2\) compiles for SM87 and a dr"):
        compiled("preprocess", 87, None, driver_cuda=(11, 4))
    with pytest.raises(EngineError, match=r"compiles for SM72; install NVRTC: on Jetson 'apt install cuda-nvrtc-12-6'"):
        compiled("preprocess", 72, None)


def test_without_a_compiler_the_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch)
    with pytest.raises(
        EngineError, match=r"^no CUDA compiler for the kernels is here; install NVRTC: on Jetson 'apt install"
    ):
        compiled("preprocess", 87, None)


def test_nvcc_is_found_in_the_toolkit_and_not_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_module, "_nvrtc_places", lambda: iter(["libnvrtc-of-nowhere.so"]))
    monkeypatch.setattr(compile_module, "CUDA_FOLDER", str(tmp_path))
    monkeypatch.setenv("PATH", os.path.join(tmp_path, "none"))
    monkeypatch.delenv("CUDA_ROOT", raising=False)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert list(compilers()) == []
    _program(
        tmp_path / "bin" / "nvcc",
        'case "$1" in --version) echo "Cuda compilation tools, release 12.6, V12.6.68";; esac',
    )
    (found,) = compilers()
    assert (found.text, found.version) == ("nvcc 12.6", (12, 6))


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('echo "nvcc fatal   : Unsupported gpu architecture" >&2; exit 1', "Unsupported gpu architecture"),
        ("exit 1", "it does not say why"),
        ("while :; do :; done", "took more than 0.2 s"),
    ],
)
def test_an_nvcc_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str) -> None:
    program = _program(tmp_path / "nvcc", script)
    monkeypatch.setattr(compile_module, "NVCC_S", 0.2 if "while" in script else 30.0)
    with pytest.raises(EngineError, match=says):
        Nvcc(str(program), (12, 6)).compile("preprocess", "", 87)
    with pytest.raises(EngineError, match="does not start"):
        Nvcc(str(tmp_path / "gone"), (12, 6)).compile("preprocess", "", 87)


def test_several_at_once_do_not_disturb_each_other(tmp_path: Path, nvrtc: Nvrtc) -> None:
    def work(_: int) -> Any:
        return compiled("resize_smooth", 86, tmp_path)

    with ThreadPoolExecutor(4) as pool:
        cubins = set(pool.map(work, range(8)))
    assert len(cubins) == 1 and cubins.pop().startswith(ELF)
    assert not list(tmp_path.glob(".*"))


def test_two_processes_at_once_do_not_either(tmp_path: Path, nvrtc: Nvrtc) -> None:
    code = "import hashlib, pathlib, sys; from edge_ad.runtime.engines.tensorrt.kernels.compile import compiled; "
    code += "print(hashlib.sha256(compiled('preprocess', 87, pathlib.Path(sys.argv[1]))).hexdigest())"
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0] == said[1] == hashlib.sha256(compiled("preprocess", 87, tmp_path)).hexdigest() + "\n"
    assert len(list(tmp_path.glob("*.blob"))) == 1
    assert not list(tmp_path.glob(".*"))


def _program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
