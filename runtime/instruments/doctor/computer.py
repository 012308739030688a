"""The computer: edge-ad and Python, operating system, processor, memory."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from edge_ad.runtime.instruments.doctor.check import Check
from edge_ad.runtime.instruments.doctor.machine import DISTRIBUTION, Machine

OLDEST_PYTHON = (3, 10)
VECTORS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "asimddp": "NEON dotprod",
    "i8mm": "NEON i8mm",
    "sve": "SVE",
}
"""What the system's names for instructions mean; those that matter to inference, as /proc/cpuinfo has them."""
INT8_DOT_PRODUCTS = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
ARM = {"0x41": "Arm", "0x4e": "NVIDIA", "0xc0": "Ampere", "0x61": "Apple"}
NAMES = ("edge-ad", "python", "system", "processor", "memory")


def check_computer(machine: Machine) -> list[Check]:
    return [_edge_ad(machine), _python(machine), _system(machine), _processor(machine), _memory(machine)]


def _edge_ad(machine: Machine) -> Check:
    version = machine.version_of(DISTRIBUTION)
    if version is None:
        return Check("edge-ad", "broken", "not installed, only its files are here", machine.pip(DISTRIBUTION))
    return Check("edge-ad", "ok", version)


def _python(machine: Machine) -> Check:
    python = machine.python
    where = "no virtual environment"
    if python.is_venv:
        where = "virtual environment, " + ("sees" if python.sees_system else "does not see") + " the system's packages"
    found = f"{python.version}, {python.executable} ({where})"
    if tuple(map(int, python.minor.split("."))) < OLDEST_PYTHON:
        return Check("python", "broken", f"{found}; wanted 3.10 or later", machine.apt("python3"))
    if not python.is_venv and list(machine.path("/usr/lib").glob(f"python{python.minor}/EXTERNALLY-MANAGED")):
        return Check("python", "note", f"{found}; pip refuses to install here", "python3 -m venv .venv")
    return Check("python", "ok", found)


def _system(machine: Machine) -> Check:
    name = machine.field("/etc/os-release", "PRETTY_NAME") or machine.system
    kernel = machine.read("/proc/sys/kernel/osrelease")
    parts = [name, f"kernel {kernel}" if kernel else None, machine.processor]
    parts += [f"in a container ({machine.container})" if machine.container else None, "WSL" if machine.is_wsl else None]
    found = ", ".join(part for part in parts if part)
    if machine.system != "Linux":
        return Check("system", "note", f"{found}; edge-ad is tested on Linux")
    return Check("system", "ok", found)


def _processor(machine: Machine) -> Check:
    text = machine.read("/proc/cpuinfo")
    if not text:
        return Check("processor", "note", f"{machine.processor}; the system does not say more")
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    flags = set(listed[1].split()) if listed else set()
    count = len(re.findall(r"^processor\s*:", text, re.MULTILINE))
    vectors = [title for flag, title in VECTORS.items() if flag in flags]
    found = ", ".join(
        [processor_model(text) or machine.processor, f"{count} thread{'' if count == 1 else 's'}", *vectors]
    )
    if not flags & set(INT8_DOT_PRODUCTS):
        return Check("processor", "note", f"{found}; no int8 dot products: int8 gains little here")
    return Check("processor", "ok", found)


def processor_model(cpuinfo: str) -> str | None:
    """Name of the processor in the text of /proc/cpuinfo, or None."""
    named = re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if named:
        return named[1].strip()
    maker, part = (re.search(rf"^CPU {key}\s*:\s*(\w+)$", cpuinfo, re.MULTILINE) for key in ("implementer", "part"))
    return f"{ARM.get(maker[1], maker[1])} core {part[1]}" if maker and part else None


def processor_here(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name of the processor that this runs on; its architecture where the system does not say more."""
    try:
        named = processor_model(cpuinfo.read_text("utf-8", "replace"))
    except OSError:
        named = None
    return named or platform.processor() or platform.machine()


def _memory(machine: Machine) -> Check:
    total, free = (machine.field("/proc/meminfo", key) for key in ("MemTotal", "MemAvailable"))
    if not total:
        return Check("memory", "note", "the system does not say how much there is")
    found = f"{_gib(total)} GiB"
    return Check("memory", "ok", f"{found}, {_gib(free)} GiB free" if free else found)


def _gib(kilobytes: str) -> str:
    return f"{int(kilobytes.split()[0]) / (1 << 20):.1f}"
