"""Compiles the unchanged .cu files with g++ and runs them on the CPU, in a process of their own.

A `Case` stands for a device: arrays are put into its memory, launches are added, and the arrays are read back after
`Program.run`. Addresses are made up; the process that runs the case puts each array into an allocation of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_ad.runtime.engines.tensorrt import kernels
from edge_ad.runtime.engines.tensorrt.kernels.launch import Launch

Variant = Literal["plain", "address", "thread"]

HERE = Path(__file__).resolve().parent
KERNELS = Path(kernels.__file__).resolve().parent
UNITS = ("resize_smooth_kernels", "preprocess_kernels")
OPTIONS = ("-std=c++20", "-g1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
VARIANTS: dict[Variant, tuple[str, tuple[str, ...]]] = {
    "plain": ("fibers", ("-O2",)),
    "address": ("fibers", ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")),
    "thread": ("threads", ("-O1", "-fsanitize=thread")),
}
"""Scheduler and options. The second one has fibers too: they are fast, and a thread's stack is watched all the same."""

COMPILE_SECONDS = 120
RUN_SECONDS = 120
ADDRESS_BITS = 40  # of the offset within an array


class KernelError(Exception):
    """What the driver, a sanitizer or the time limit says against a run."""


@dataclass
class Case:
    """A device's memory and what is launched on it. Args: seed: of the order of threads and blocks; 0 is in order."""

    seed: int = 0
    arrays: list[NDArray[Any]] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)

    def put(self, array: NDArray[Any]) -> int:
        """Copy an array to the device. Returns: its address."""
        self.arrays.append(np.ascontiguousarray(array))
        return len(self.arrays) << ADDRESS_BITS

    def __getitem__(self, address: int) -> NDArray[Any]:
        """The array at an address, as the last run left it."""
        return self.arrays[(address >> ADDRESS_BITS) - 1]

    def encoded(self) -> bytes:
        parts = [struct.pack("=2I", self.seed, len(self.arrays))]
        for array in self.arrays:
            parts += [struct.pack("=Q", array.nbytes), array.tobytes()]
        parts.append(struct.pack("=I", len(self.launches)))
        for launch in self.launches:
            parts.append(_text(launch.kernel.encode()))
            parts.append(struct.pack("=7I", *launch.grid, *launch.block, launch.shared_bytes))
            parts.append(struct.pack("=I", len(launch.values)))
            parts += [_argument(value) for value in launch.values]
        return b"".join(parts)


@dataclass(frozen=True)
class Program:
    """The compiled kernels. Args: path: the executable; folder: for the files that go to it and come back."""

    path: Path
    folder: Path

    def run(self, cases: Case | Sequence[Case]) -> None:
        """Run cases one after another and put the results into their arrays. Raises: KernelError."""
        given = [cases] if isinstance(cases, Case) else list(cases)
        inputs, outputs = self.folder / "cases", self.folder / "results"
        inputs.write_bytes(struct.pack("=I", len(given)) + b"".join(case.encoded() for case in given))
        outputs.unlink(missing_ok=True)
        command = [str(self.path), str(inputs), str(outputs)]
        done = _run(command, RUN_SECONDS)
        if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
            # Older ThreadSanitizers cannot live with the address randomisation of newer kernels.
            done = _run(["setarch", platform.machine(), "-R", *command], RUN_SECONDS)
        if done.returncode != 0:
            raise KernelError(done.stderr[:6000] or f"ended with {done.returncode}")
        content, at = outputs.read_bytes(), 0
        for case in given:
            for index, array in enumerate(case.arrays):
                flat = np.frombuffer(content, array.dtype, array.size, at)
                case.arrays[index] = flat.reshape(array.shape).copy()
                at += array.nbytes
        assert at == len(content)


class Compiler:
    """Builds programs; what does not depend on the kernels is compiled once. Args: folder: for all files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built = 0

    def program(self, variant: Variant = "plain", sources: Path = KERNELS, units: Iterable[str] = UNITS) -> Program:
        """An executable that runs cases.

        Args:
            variant: which scheduler and sanitizer.
            sources: folder of the .cu files.
            units: which of the kernels; the others are left out.
        """
        scheduler, _ = VARIANTS[variant]
        objects = [self._support(variant, name) for name in ("launch", scheduler, "replay")]
        folder = self._new_folder()
        objects += [_compile(variant, unit, sources, folder) for unit in units]
        path = folder / "replay"
        _link(variant, objects, path)
        return Program(path, folder)

    def library(self, path: Path, sources: Path = KERNELS) -> None:
        """A shared library with the kernels and the functions of cuda_on_cpu.h, for an emulated driver.

        Args:
            sources: folder of the .cu files.
        """
        folder = self._new_folder()
        objects = [self._support("plain", name) for name in ("launch", "fibers")]
        objects += [_compile("plain", unit, sources, folder) for unit in UNITS]
        _link("plain", objects, path, "-shared")

    def _new_folder(self) -> Path:
        self._built += 1
        folder = self._folder / f"build{self._built}"
        folder.mkdir()
        return folder

    def _support(self, variant: Variant, name: str) -> Path:
        folder = self._folder / variant
        folder.mkdir(exist_ok=True)
        made = folder / f"{name}.o"
        return made if made.exists() else _compile(variant, name, KERNELS, folder)


def placed(address: int) -> tuple[int, int]:
    """Number of the array that an address belongs to, and bytes from its beginning.

    These are negative for kernels that do not read the beginning, and are told where it would be.
    """
    index = ((address + (1 << (ADDRESS_BITS - 1))) >> ADDRESS_BITS) - 1
    return index, address - ((index + 1) << ADDRESS_BITS)


def _compile(variant: Variant, name: str, sources: Path, folder: Path) -> Path:
    made = folder / f"{name}.o"
    _checked("g++", *OPTIONS, *VARIANTS[variant][1], f"-I{sources}", "-c", f"{HERE / name}.cpp", "-o", str(made))
    return made


def _link(variant: Variant, objects: list[Path], path: Path, *options: str) -> None:
    _checked("g++", *VARIANTS[variant][1], *options, *map(str, objects), "-pthread", "-o", str(path))


def _checked(*command: str) -> None:
    done = _run(command, COMPILE_SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"


def _run(command: Sequence[str], seconds: int) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
        )
    except subprocess.TimeoutExpired as exc:
        raise KernelError(f"no end after {seconds} s: a barrier that only some threads reach?") from exc


def _text(content: bytes) -> bytes:
    return struct.pack("=I", len(content)) + content


def _argument(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return struct.pack("=I", 1) + _text(value)
    index, offset = placed(value) if value else (0xFFFFFFFF, 0)
    return struct.pack("=IIq", 0, index, offset)
