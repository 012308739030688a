"""What a bug report needs to know of a machine: versions, processor, clocks; and nothing of whose machine it is."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_ad.runtime.engines.tensorrt.fingerprint import this_platform
from edge_ad.runtime.instruments.doctor.computer import processor_here
from edge_ad.runtime.instruments.doctor.machine import installed_version

NVIDIA_SMI_SECONDS = 5.0
NVIDIA_SMI_FIELDS = ("driver_version", "clocks.sm", "clocks.max.sm", "temperature.gpu", "power.draw", "pstate")
JETSON_CLOCKS = Path("/sys/class/devfreq")


def about_software(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of edge-ad and of some packages, the system and its Python."""
    versions = [f"{name} {found}" for name in packages if (found := installed_version(name)) is not None]
    return {
        "edge-ad": f"{version('edge-ad')}, Python {platform.python_version()}, {this_platform()}",
        "packages": ", ".join(versions),
        "processor": f"{os.cpu_count()} x {processor_here()}",
    }


def gpu_clocks(pci_bus_id: Callable[[], str | None]) -> str | None:
    """Clocks, heat and power of a GPU at this moment, as nvidia-smi or a Jetson's kernel says; None where none does.

    Args:
        pci_bus_id: says where the GPU is plugged in; asked only where that is of use.
    """
    tool = shutil.which("nvidia-smi")
    place = pci_bus_id() if tool is not None else None
    if tool is not None and place is not None:
        command = [tool, f"--query-gpu={','.join(NVIDIA_SMI_FIELDS)}", "--format=csv,noheader", "-i", place]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=NVIDIA_SMI_SECONDS, check=False
            )
            values = [part.strip() for part in done.stdout.strip().split(",")]
            if done.returncode == 0 and len(values) == len(NVIDIA_SMI_FIELDS):
                driver, clock, most, heat, power, state = values
                return f"{clock} of {most}, {heat} C, {power}, {state}, driver {driver}"
    return jetson_clocks(JETSON_CLOCKS)


def jetson_clocks(folder: Path) -> str | None:
    """The GPU's clock among the kernel's devices; None where there is none."""
    for device in sorted(folder.glob("*")):
        if not device.name.endswith((".gpu", ".ga10b", ".gv11b", ".gp10b")):
            continue
        with suppress(OSError, ValueError):
            now, most = (int((device / name).read_text()) for name in ("cur_freq", "max_freq"))
            return f"{now / 1e6:.0f} MHz of {most / 1e6:.0f} MHz"
    return None


def without_home(value: Any) -> Any:
    """Texts, and lists and dictionaries of them, with `~` in place of the user's home folder."""
    if isinstance(value, dict):
        return {without_home(key): without_home(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_home(entry) for entry in value]
    if not isinstance(value, str):
        return value
    for home in {os.path.expanduser("~"), os.path.realpath(os.path.expanduser("~"))}:
        if len(home) > 1 and home != "~":
            value = value.replace(home + os.sep, "~" + os.sep)
    return value
