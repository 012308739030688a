"""What a machine is called, as far as times depend on it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_ad.runtime.doctor.computer import processor_model

PACKAGES = ("numpy", "openvino", "pillow")


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Processor, system, and versions of what computes, by name."""
    try:
        named = processor_model(cpuinfo.read_text("utf-8", "replace"))
    except OSError:
        named = None
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": named or platform.processor() or platform.machine(),
        "processors": str(usable),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
