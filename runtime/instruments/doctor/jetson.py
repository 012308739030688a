"""Jetson: which one, which JetPack, what that brings, and the power mode."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_ad.runtime.instruments.doctor.check import Check
from edge_ad.runtime.instruments.doctor.machine import Machine

NAMES = ("jetson", "jetpack", "power-mode")


@dataclass(frozen=True)
class Bundled:
    """What a JetPack brings. Attributes: tensorrt, cuda: versions."""

    tensorrt: str
    cuda: str


BUNDLED = {
    "5.1": Bundled("8.5.2", "11.4"),
    "6.0": Bundled("8.6.2", "12.2"),
    "6.1": Bundled("10.3", "12.6"),
    "6.2": Bundled("10.3", "12.6"),
    "7.1": Bundled("10.13.3", "13.0"),
    "7.2": Bundled("10.16.2", "13.2"),
}
"""By JetPack, as in docs/tensorrt.md."""

JETPACK_OF = {
    "35.1": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5": "5.1.3",
    "35.6": "5.1.4",
    "35.6.2": "5.1.5",
    "36.2": "6.0 DP",
    "36.3": "6.0",
    "36.4": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "38.2": "7.0",
    "38.2.1": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
}
"""JetPack by release of Jetson Linux (L4T), from NVIDIA's archive of both, and from meta-tegra for 39.2; a release
that is not listed is not guessed."""


def check_jetson(machine: Machine) -> list[Check]:
    if not machine.is_jetson:
        return [Check("jetson", "note", "this is none")]
    board = machine.board or "a Jetson, whose device tree does not say which"
    return [Check("jetson", "ok", board), _jetpack(machine), _power_mode(machine)]


def bundled_with(jetpack: str) -> Bundled | None:
    """What a JetPack such as `6.2.1` brings; None where that is not known."""
    return BUNDLED.get(".".join(jetpack.split(".")[:2]))


def _jetpack(machine: Machine) -> Check:
    release = _release(machine)
    package = machine.package("nvidia-jetpack")
    jetpack = package.split("+")[0].split("-")[0] if package else JETPACK_OF.get(release or "")
    linux = f"Jetson Linux {release}" if release else "Jetson Linux of an unknown release"
    if jetpack is None:
        return Check("jetpack", "note", f"{linux}, of an unknown JetPack")
    bundled = bundled_with(jetpack)
    if bundled is None:
        return Check("jetpack", "ok", f"{jetpack} ({linux})")
    found = f"{jetpack} ({linux}), brings TensorRT {bundled.tensorrt} and CUDA {bundled.cuda}"
    version = machine.probe("tensorrt").value.get("version")
    if version is not None and not f"{version}.".startswith(f"{bundled.tensorrt}."):
        return Check("jetpack", "note", f"{found}; installed is TensorRT {version}")
    return Check("jetpack", "ok", found)


def _release(machine: Machine) -> str | None:
    """Release of Jetson Linux, such as `36.4.3`, without zeros at its end."""
    text = machine.read("/etc/nv_tegra_release") or ""
    named = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    if named:
        return _without_zeros(f"{named[1]}.{named[2]}")
    version = machine.package("nvidia-l4t-core")  # 36.4.3-20250107174145
    return _without_zeros(version.split("-")[0]) if version else None


def _without_zeros(release: str) -> str:
    return re.sub(r"^(\d+\.\d+)\.0$", r"\1", release.strip("."))


def _power_mode(machine: Machine) -> Check:
    ran = machine.run("nvpmodel", "-q")
    if ran.absent:
        return Check("power-mode", "note", "not known, nvpmodel is not here")
    mode = re.search(r"NV Power Mode:\s*(\S+)", f"{ran.out}\n{ran.err}")
    if ran.failure is not None or mode is None:
        return Check("power-mode", "note", f"not known, nvpmodel {ran.failure or 'does not say'}", "sudo nvpmodel -q")
    return Check("power-mode", "ok", mode[1])
