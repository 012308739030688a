"""Compiles the emulated driver, and says what a process needs in its environment to use it.

The library answers every function of the driver that the installed pycuda links against: those that are not emulated
say so when they are called.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
UNITS = ("device", "memory", "streams", "modules", "graphs")
OPTIONS = ("-std=c++20", "-O1", "-g1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")
STAND_IN = HERE.parent / "tensorrt_stand_in"
LIBRARY = "libcuda.so.1"
COMPILE_SECONDS = 300


def missing() -> str | None:
    """What is not installed that the emulated driver needs, in words."""
    for tool in ("g++", "nm"):
        if shutil.which(tool) is None:
            return f"no {tool}: apt install g++"
    if _headers() is None:
        return "no cuda.h: CUDA_ROOT names no CUDA toolkit"
    if find_spec("pycuda") is None:
        return "no pycuda: pip install 'edge-ad[tensorrt]'"
    return None


def build(folder: Path) -> Path:
    """The library for the installed pycuda, compiled unless it lies in `folder` from before. Returns: its path."""
    headers = _headers()
    assert headers is not None
    wanted = _driver_functions(_pycuda(), "--undefined-only")
    sources = [
        *sorted(HERE.glob("*.cpp")),
        *sorted(HERE.glob("*.h")),
        HERE.parent / "cuda_on_cpu" / "cuda_on_cpu.h",
        Path(__file__),
    ]
    content = b"".join(path.read_bytes() for path in sources) + " ".join((*sorted(wanted), str(headers))).encode()
    place = folder / hashlib.sha256(content).hexdigest()[:16]
    library = place / LIBRARY
    if library.exists():
        return library
    scratch = place.with_name(f"{place.name}.{os.getpid()}")
    scratch.mkdir(parents=True)
    objects = []
    for unit in UNITS:
        objects.append(scratch / f"{unit}.o")
        _run("g++", *OPTIONS, f"-I{headers}", "-c", str(HERE / f"{unit}.cpp"), "-o", str(objects[-1]))
    emulated = set().union(*(_driver_functions(path, "--defined-only") for path in objects))
    stubs = scratch / "stubs.cpp"
    stubs.write_text(_stubs(sorted(wanted - emulated)))
    # Instances of the C++ library's templates that are seen outside would take the place of those in NVRTC.
    exported = scratch / "exported.map"
    exported.write_text("{ global: cu[A-Z]*; emulated_cuda_*; local: *; };")
    made = scratch / LIBRARY
    options = ("-shared", f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={exported}", "-pthread", "-ldl")
    _run("g++", *OPTIONS, str(stubs), *map(str, objects), *options, "-o", str(made))
    place.mkdir(exist_ok=True)
    made.replace(library)
    shutil.rmtree(scratch)
    return library


def environment(library: Path, **settings: str) -> dict[str, str]:
    """This process's environment, changed so that a child of it finds the emulated driver and the stand-in of TensorRT.

    Args:
        settings: further variables. Of PYTHONPATH it is what is looked into before the installed packages.
    """
    folders = (str(STAND_IN), settings.get("PYTHONPATH"), os.environ.get("PYTHONPATH"))
    path = os.pathsep.join(filter(None, folders))
    return {**os.environ, **settings, "LD_PRELOAD": str(library), "PYTHONPATH": path}


def _headers() -> Path | None:
    nvcc = shutil.which("nvcc")
    roots = [
        os.environ.get("CUDA_ROOT"),
        os.environ.get("CUDA_HOME"),
        nvcc and Path(nvcc).parents[1],
        "/usr/local/cuda",
    ]
    for root in roots:
        if root and (Path(root) / "include" / "cuda.h").is_file():
            return Path(root) / "include"
    return None


def _pycuda() -> Path:
    spec = find_spec("pycuda")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("_driver.*"))


def _driver_functions(path: Path, which: str) -> set[str]:
    """Functions of CUDA's driver that an object file or library defines, or lacks."""
    dynamic = () if path.suffix == ".o" else ("-D",)
    listed = _run("nm", *dynamic, which, "--format=posix", str(path))
    names = (line.split()[0].split("@")[0] for line in listed.splitlines() if line)
    return {name for name in names if name.startswith("cu") and name[2:3].isupper()}


def _stubs(names: list[str]) -> str:
    lines = ['extern "C" {', "int emulated_cuda_not_there(const char* name);"]
    lines += [f'int {name}() {{ return emulated_cuda_not_there("{name}"); }}' for name in names]
    return "\n".join((*lines, "}", ""))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"
    return done.stdout
