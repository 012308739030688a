"""Energy and clocks, where the device tells; and where it does not, who was asked.

Energy is what the whole package or board took while frames were judged: idle power is in it, and so is whatever else
ran on it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Reading:
    """What one source told during the frames of a run.

    Attributes:
        source: such as `RAPL package-0`.
        joules: energy of all frames; None where it tells none.
        watts: mean power while frames were judged.
        clocks_mhz: lowest, median and highest clock that was seen; None where it tells none.
    """

    source: str
    joules: float | None
    watts: float | None
    clocks_mhz: tuple[float, float, float] | None


@dataclass(frozen=True)
class Probe:
    """A source that can be read. Each function may raise OSError or ValueError, which ends its readings.

    Attributes:
        source: its name.
        joules: a counter of energy; None where there is none.
        joules_wrap: where the counter begins anew.
        watts: power now, for devices that count no energy.
        clocks_mhz: clocks now.
    """

    source: str
    joules: Callable[[], float] | None = None
    joules_wrap: float | None = None
    watts: Callable[[], float] | None = None
    clocks_mhz: Callable[[], list[float]] | None = None


class ProbeMeter:
    """Reads a probe before and after the frames of every round."""

    def __init__(self, probe: Probe, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._probe = probe
        self._now_s = now_s
        self._joules = self._seconds = 0.0
        self._clocks: list[float] = []
        self._failed = False
        self._begun: tuple[float, float] | None = None

    def begin(self) -> None:
        self._begun = None
        with self._reading():
            level = self._level()
            self._begun = self._now_s(), level

    def end(self) -> None:
        if self._begun is None:
            return
        began_s, before = self._begun
        took_s = self._now_s() - began_s
        with self._reading():
            after = self._level()
            if self._probe.joules is not None:
                wrap = self._probe.joules_wrap
                gone = after - before + (wrap if wrap is not None and after < before else 0.0)
            else:
                gone = (before + after) / 2 * took_s
            if self._probe.clocks_mhz is not None:
                self._clocks += self._probe.clocks_mhz()
            self._joules += gone
            self._seconds += took_s

    def reading(self) -> Reading | None:
        """What was read; None where the source failed on the way or had nothing to tell."""
        tells_energy = self._probe.joules is not None or self._probe.watts is not None
        if self._failed or not self._seconds or not (tells_energy or self._clocks):
            return None
        clocks = None
        if self._clocks:
            clocks = (min(self._clocks), float(np.median(self._clocks)), max(self._clocks))
        joules = self._joules if tells_energy else None
        return Reading(self._probe.source, joules, joules / self._seconds if joules is not None else None, clocks)

    def _level(self) -> float:
        reader = self._probe.joules or self._probe.watts
        return reader() if reader is not None else 0.0

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Let the source fail without the run: it then has no reading."""
        try:
            yield
        except Exception:  # NVML and jtop have trees of their own
            self._failed = True


def find_probes(stack: ExitStack, *, root: Path = Path("/"), gpu: int = 0) -> tuple[list[Probe], list[str]]:
    """All sources of this machine that answer.

    Args:
        stack: closes what had to be opened.
        root: of the file system.
        gpu: number of the GPU to ask.

    Returns: the sources, and one line for each that has nothing to tell.
    """
    probes: list[Probe] = []
    notes: list[str] = []
    finders: Iterable[tuple[str, Callable[[], list[Probe]]]] = (
        ("NVML (package nvidia-ml-py)", lambda: _nvml(stack, gpu)),
        ("jtop (package jetson-stats)", lambda: _jtop(stack)),
        ("RAPL", lambda: _rapl(root)),
        ("processor clock", lambda: _clocks(root)),
    )
    for name, find in finders:
        try:
            found = find()
            for probe in found:
                for reader in (probe.joules, probe.watts, probe.clocks_mhz):
                    if reader is not None:
                        reader()
        except Exception as exc:  # whatever a foreign library raises, the run goes on without it
            notes.append(f"{name}: {_why(exc)}")
            continue
        probes += found
        if not found:
            notes.append(f"{name}: this machine does not tell")
    return probes, notes


def _nvml(stack: ExitStack, gpu: int) -> list[Probe]:
    nvml = import_module("pynvml")
    nvml.nvmlInit()
    stack.callback(nvml.nvmlShutdown)
    handle = nvml.nvmlDeviceGetHandleByIndex(gpu)
    name = nvml.nvmlDeviceGetName(handle)
    source = f"NVML {name.decode() if isinstance(name, bytes) else name}"

    def clocks() -> list[float]:
        return [float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))]

    def joules() -> float:
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3

    def watts() -> float:
        return float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3

    try:
        joules()
    except Exception:  # GPUs before Volta count no energy
        return [Probe(source, watts=watts, clocks_mhz=clocks)]
    return [Probe(source, joules=joules, clocks_mhz=clocks)]


def _jtop(stack: ExitStack) -> list[Probe]:
    jetson = stack.enter_context(import_module("jtop").jtop())

    def watts() -> float:
        return float(jetson.power["tot"]["power"]) / 1e3

    def clocks() -> list[float]:
        return [float(each["freq"]["cur"]) / 1e3 for each in jetson.gpu.values()]

    return [Probe("jtop, whole board and clock of the GPU", watts=watts, clocks_mhz=clocks)]


def _rapl(root: Path) -> list[Probe]:
    probes = []
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        if re.fullmatch(r"intel-rapl:\d+", folder.name):  # a package, not one of its parts
            name = (folder / "name").read_text("ascii").strip()
            wrap = float((folder / "max_energy_range_uj").read_text("ascii")) / 1e6
            probes.append(Probe(f"RAPL {name}", joules=_counter(folder / "energy_uj"), joules_wrap=wrap))
    return probes


def _counter(path: Path) -> Callable[[], float]:
    return lambda: float(path.read_text("ascii")) / 1e6


def _clocks(root: Path) -> list[Probe]:
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if files:
        return [
            Probe("processor clock (cpufreq)", clocks_mhz=lambda: [float(f.read_text("ascii")) / 1e3 for f in files])
        ]
    cpuinfo = root / "proc/cpuinfo"

    def listed() -> list[float]:
        return [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", cpuinfo.read_text(), re.MULTILINE)]

    source = "processor clock (/proc/cpuinfo; of a virtual machine it may be a fixed figure)"
    return [Probe(source, clocks_mhz=listed)] if listed() else []


def _why(exc: Exception) -> str:
    if isinstance(exc, ModuleNotFoundError):
        return "not installed"
    if isinstance(exc, PermissionError):
        return f"{os.path.basename(exc.filename or '')} may be read by root only"
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}" if str(exc) else type(exc).__name__
