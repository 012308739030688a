"""Kernel sources → machine code for one GPU, compiled on the machine that runs it.

NVRTC is asked first: it is part of JetPack and of CUDA, comes as a wheel too, and needs no compiler for the host. Where
there is none, nvcc is. Machine code is kept, for NVRTC takes about a second.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from edge_ad.disk.blob_cache import BlobCache
from edge_ad.errors import EngineError, os_reason
from edge_ad.runtime.engines.tensorrt.kernels.launch import source

OPTIONS = ("--std=c++14",)
"""C++14 is what the oldest CUDA that edge-ad names, 11.4 of JetPack 5, knows well. No fast math: it flushes halves."""
CUDA_FOLDER = "/usr/local/cuda"
LOADER_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so")
NVCC_S = 120.0
REMEDY = (
    "install NVRTC: on Jetson 'apt install cuda-nvrtc-12-6' (of your CUDA), elsewhere 'pip install nvidia-cuda-nvrtc',"
    " or nvidia-cuda-nvrtc-cu12 for a driver of CUDA 12"
)


class Compiler(Protocol):
    """Attributes: version: of CUDA, that it came with; text: for the cache and for messages."""

    version: tuple[int, int]
    text: str

    def knows(self, sm: int) -> bool: ...

    def compile(self, name: str, text: str, sm: int, *more: str) -> tuple[bytes, str]:
        """Returns: a cubin, and what the compiler said. Raises: EngineError with its first error."""
        ...


def compiled(name: str, sm: int, cache_dir: Path | None, *, driver_cuda: tuple[int, int] | None = None) -> bytes:
    """A kernel's machine code (a cubin).

    Args:
        name: of the source: `resize_smooth` or `preprocess`.
        sm: compute capability, 87 for 8.7.
        cache_dir: folder where cubins are kept; None compiles every time.
        driver_cuda: the newest CUDA that the driver runs; a compiler of a later major number makes what it cannot load.

    Raises: EngineError when there is no compiler for this GPU, or it refuses the source.
    """
    text = source(name)
    compiler = _compiler_for(sm, driver_cuda)
    fingerprint = {
        "kernel": name,
        "source": hashlib.sha256(text.encode()).hexdigest(),
        "sm": str(sm),
        "compiler": compiler.text,
        "options": " ".join(OPTIONS),
    }
    cache = BlobCache(cache_dir, "compiled kernel") if cache_dir is not None else None
    cubin = cache.get(fingerprint) if cache is not None else None
    if cubin is not None:
        return bytes(cubin)
    compiled_now, _ = compiler.compile(name, text, sm)
    if cache is not None:
        cache.put(fingerprint, compiled_now)
    return compiled_now


def compilers() -> Iterator[Compiler]:
    """Those of this machine: every NVRTC, the newest first, then nvcc."""
    libraries = {library.version: library for path in _nvrtc_places() if (library := _nvrtc(path)) is not None}
    for version in sorted(libraries, reverse=True):
        yield libraries[version]
    nvcc = _nvcc()
    if nvcc is not None:
        yield nvcc


def _compiler_for(sm: int, driver_cuda: tuple[int, int] | None) -> Compiler:
    found = list(compilers())
    for compiler in found:
        if compiler.knows(sm) and (driver_cuda is None or compiler.version[0] <= driver_cuda[0]):
            return compiler
    if not found:
        raise EngineError(f"no CUDA compiler for the kernels is here; {REMEDY}")
    held = ", ".join(compiler.text for compiler in found)
    driver = "" if driver_cuda is None else f" and a driver of CUDA {driver_cuda[0]}.{driver_cuda[1]}"
    raise EngineError(f"none of the CUDA compilers here ({held}) compiles for SM{sm}{driver}; {REMEDY}")


class Nvrtc:
    """NVIDIA's compiler as a library.

    Args:
        library: libnvrtc.

    Raises: AttributeError for a library that is too old; it has to make cubins (CUDA 11.1) and list GPUs (11.2).
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = major.value, minor.value
        self.text = f"NVRTC {major.value}.{minor.value}"
        library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
        capabilities = (ctypes.c_int * count.value)()
        library.nvrtcGetSupportedArchs(capabilities)
        self._capabilities = frozenset(capabilities)
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        _ = library.nvrtcGetCUBIN

    def knows(self, sm: int) -> bool:
        return sm in self._capabilities

    def compile(self, name: str, text: str, sm: int, *more: str) -> tuple[bytes, str]:
        library, program = self._library, ctypes.c_void_p()
        self._check(
            library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), f"{name}.cu".encode(), 0, None, None), name
        )
        try:
            options = [option.encode() for option in (f"--gpu-architecture=sm_{sm}", *OPTIONS, *more)]
            status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
            log = self._read(program, "ProgramLog").rstrip(b"\0").decode("utf-8", "replace")
            if status:
                raise _refused(self.text, name, sm, log)
            return self._read(program, "CUBIN"), log
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), what)
        content = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, content), what)
        return content.raw

    def _check(self, status: int, what: str) -> None:
        if status:
            raise EngineError(f"{self.text} failed on {what}: {self._library.nvrtcGetErrorString(status).decode()}")


class Nvcc:
    """NVIDIA's compiler as a program. Args: path: of nvcc; version: that it says it is."""

    def __init__(self, path: str, version: tuple[int, int]) -> None:
        self._path = path
        self.version = version
        self.text = f"nvcc {version[0]}.{version[1]}"

    def knows(self, sm: int) -> bool:
        listed = _output_of([self._path, "--list-gpu-code"])  # CUDA 11.5 and later; it compiles what it is asked else
        return listed is None or f"sm_{sm}" in listed.split()

    def compile(self, name: str, text: str, sm: int, *more: str) -> tuple[bytes, str]:
        with tempfile.TemporaryDirectory(prefix="edge-ad-") as folder:
            # Named without their folder, since messages repeat the name.
            Path(folder, f"{name}.cu").write_text(text, encoding="utf-8")
            files = "-o", f"{name}.cubin", f"{name}.cu"
            command = [self._path, "--cubin", f"--gpu-architecture=sm_{sm}", *OPTIONS, *more, *files]
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=NVCC_S,
                    stdin=subprocess.DEVNULL,
                    check=False,
                )
            except subprocess.TimeoutExpired as exc:
                raise EngineError(f"{self.text} took more than {NVCC_S:g} s to compile {name}.cu; try again") from exc
            except OSError as exc:
                raise EngineError(f"{self._path} does not start: {os_reason(exc)}; install CUDA anew") from exc
            if done.returncode:
                raise _refused(self.text, name, sm, done.stderr + done.stdout)
            return Path(folder, f"{name}.cubin").read_bytes(), done.stderr


def _refused(compiler: str, name: str, sm: int, log: str) -> EngineError:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    cause = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "it does not say why")
    return EngineError(f"{compiler} does not compile {name}.cu for SM{sm}: {cause}")


@functools.cache
def _nvrtc(path: str) -> Nvrtc | None:
    try:
        # NVRTC asks the loader for its other half by name alone, and some of NVIDIA's wheels do not say where that is.
        for half in sorted(Path(path).parent.glob("libnvrtc-builtins.so*")) if "/" in path else ():
            ctypes.CDLL(str(half))
        return Nvrtc(ctypes.CDLL(path))
    except (OSError, AttributeError):
        return None


def _nvrtc_places() -> Iterator[str]:
    """Where libnvrtc may be: for the loader, in a CUDA toolkit, in NVIDIA's wheels."""
    yield from LOADER_NAMES
    for root in _toolkits():
        for folder in (root / "lib64", *sorted(root.glob("targets/*/lib"))):
            yield from map(str, sorted(folder.glob("libnvrtc.so*")))
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from map(str, sorted(Path(place).glob("*/lib/libnvrtc.so.*")))


def _toolkits() -> list[Path]:
    named = (os.environ.get("CUDA_ROOT"), os.environ.get("CUDA_HOME"), CUDA_FOLDER)
    return [Path(name) for name in dict.fromkeys(named) if name]


def _nvcc() -> Nvcc | None:
    places = [str(root / "bin" / "nvcc") for root in _toolkits()]
    path = next(filter(None, (shutil.which(place) for place in ("nvcc", *places))), None)
    said = None if path is None else _output_of([path, "--version"])
    release = re.search(r"release (\d+)\.(\d+)", said or "")
    return None if path is None or release is None else Nvcc(path, (int(release[1]), int(release[2])))


def _output_of(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=NVCC_S, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
