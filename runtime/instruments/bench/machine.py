"""What a machine is called, as far as times depend on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edge_ad.runtime.instruments.doctor.computer import processor_here
from edge_ad.runtime.instruments.doctor.machine import installed_version

PACKAGES = ("numpy", "openvino", "pillow")


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Processor, system, and versions of what computes, by name."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": processor_here(cpuinfo),
        "processors": str(usable),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: installed_version(package) or "not installed" for package in PACKAGES},
    }
