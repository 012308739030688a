"""NVIDIA's driver and its GPUs, what compiles CUDA kernels, and what drives the GPU from Python."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edge_ad.runtime.instruments.doctor.check import Check
from edge_ad.runtime.instruments.doctor.machine import Machine

NAMES = ("driver", "gpu", "cuda-compiler", "pycuda", "cuda-graphs")
DRIVER_FOR_CUDA = {11: 450, 12: 525, 13: 580}
"""Oldest driver for Linux that runs programs of a CUDA version, from NVIDIA's page on minor version compatibility."""
WSL_DRIVER = "/usr/lib/wsl/lib/libcuda.so.1"
PCI_VENDOR, PCI_DISPLAY = "0x10de", "0x03"
UNKNOWN, NO_DEVICE, STUB, NOT_READY, MISMATCH, NOT_FORWARD = 999, 100, 34, 802, 803, 804
MEANING = {
    3: "it is not initialized",
    STUB: "this is the toolkit's stub, and not the driver",
    NO_DEVICE: "it sees no GPU",
    101: "CUDA_VISIBLE_DEVICES names a GPU that is not there",
    NOT_READY: "it waits for NVIDIA's fabric manager",
    MISMATCH: "libcuda and the kernel's driver are of different versions",
    NOT_FORWARD: "libcuda is of CUDA's compatibility package, which does not support this GPU",
    UNKNOWN: "it does not say why",
}
"""What the codes of CUresult say of a driver that does not start, from the CUDA driver API."""


@dataclass(frozen=True)
class Driver:
    """What is known of the driver.

    Attributes:
        cuda: the newest CUDA that it runs; None where there is no driver, or it does not say.
        gpus: as the probe lists them; empty when none can be used.
        failure: why none can be used; None when one can.
        absent: True when there is no driver.
        is_expected: True when there is a GPU of NVIDIA, with or without its driver.
        error: CUDA's code, where it gave one.
    """

    cuda: tuple[int, int] | None
    gpus: tuple[dict[str, Any], ...]
    failure: str | None
    absent: bool
    is_expected: bool
    error: int | None = None

    def runs(self, cuda_major: int | None) -> bool:
        """Whether it runs what was made for a CUDA version; what is not known counts as yes."""
        return cuda_major is None or self.cuda is None or cuda_major <= self.cuda[0]

    @property
    def cuda_text(self) -> str:
        return "an unknown CUDA" if self.cuda is None else f"CUDA {self.cuda[0]}.{self.cuda[1]}"


def look_at_driver(machine: Machine) -> Driver:
    answer = machine.probe("cuda")
    cuda = answer.value.get("cuda")
    error = answer.value.get("error")
    gpus = tuple(answer.value.get("gpus", ()))
    failure = answer.failure or answer.value.get("failure")
    if error is not None:
        failure = f"cuInit failed with CUDA error {error}: {MEANING.get(error, 'see the CUDA driver API')}"
    elif failure is None and not gpus:
        failure = "the driver lists no GPU"
    return Driver(
        cuda=(int(cuda[0]), int(cuda[1])) if cuda else None,
        gpus=gpus,
        failure=failure,
        absent=answer.absent,
        is_expected=not answer.absent or machine.is_jetson or _is_on_the_bus(machine) or machine.exists(WSL_DRIVER),
        error=error,
    )


def check_nvidia(machine: Machine) -> list[Check]:
    driver = look_at_driver(machine)
    return [
        _driver(machine, driver),
        _gpu(machine, driver),
        _compiler(machine, driver),
        _pycuda(machine, driver),
        _cuda_graphs(machine, driver),
    ]


def driver_remedy(machine: Machine, cuda_major: int | None = None) -> str:
    """How a driver is installed or renewed here; one that runs a CUDA version, where that is given."""
    oldest = DRIVER_FOR_CUDA.get(cuda_major or 0)
    wanted = f" {oldest} or later" if oldest else ""
    if machine.is_jetson:
        return f"{machine.sudo('apt update')} && {machine.sudo('apt dist-upgrade')} (it is part of Jetson Linux)"
    if machine.is_wsl:
        return f"install NVIDIA's driver{wanted} in Windows; WSL takes it from there"
    if machine.container:
        return f"install NVIDIA's driver{wanted} on the host, and start the container with '--gpus all'"
    if machine.family == "ubuntu":
        return machine.sudo(f"ubuntu-drivers install{f' nvidia:{oldest}' if oldest else ''}") + ", then restart"
    if machine.family == "debian" and not oldest:
        return machine.sudo("apt install nvidia-driver") + " (section non-free), then restart"
    if machine.family == "debian":
        return f"{machine.sudo('apt install cuda-drivers')} from NVIDIA's repository (driver{wanted}), then restart"
    return f"install NVIDIA's driver{wanted}, then restart"


def _driver(machine: Machine, driver: Driver) -> Check:
    if driver.absent:
        if not driver.is_expected:
            return Check("driver", "note", "no NVIDIA GPU in this machine, and none is needed")
        return Check("driver", "missing", f"no driver that programs can load ({driver.failure})", _absent(machine))
    kernel = _kernel_driver(machine)
    found = f"{f'{kernel}, ' if kernel else ''}runs {driver.cuda_text}"
    if driver.error is None and driver.failure is None:
        return Check("driver", "ok", found)
    details = _words_of_nvidia_smi(machine)
    found = f"{driver.failure}" if driver.cuda is None else f"{found}, but does not start: {driver.failure}"
    return Check("driver", "broken", found, _broken(machine, driver), details)


def _gpu(machine: Machine, driver: Driver) -> Check:
    if not driver.gpus:
        if not driver.is_expected:
            return Check("gpu", "note", "none of NVIDIA's")
        return Check("gpu", "missing", "none that can be used, see driver")
    lines = tuple(f"{gpu['index']}: {gpu['name']}, SM{gpu['sm']}{_memory(gpu)}" for gpu in driver.gpus)
    visible = machine.environment.get("CUDA_VISIBLE_DEVICES")
    limited = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
    if len(lines) == 1:
        return Check("gpu", "ok", lines[0] + limited)
    return Check("gpu", "ok", f"{len(lines)}{limited}", details=lines)


def _compiler(machine: Machine, driver: Driver) -> Check:
    answer = machine.probe("compilers")
    if answer.failure is not None:
        return Check("cuda-compiler", "broken", answer.failure, _compiler_remedy(machine, driver))
    compilers = answer.value["compilers"]
    found = ", ".join(compiler["text"] for compiler in compilers)
    if not compilers:
        if not driver.is_expected:
            return Check("cuda-compiler", "note", "none, and without a GPU none is needed")
        return Check("cuda-compiler", "missing", "neither NVRTC nor nvcc", _compiler_remedy(machine, driver))
    if not any(driver.runs(compiler["cuda"][0]) for compiler in compilers):
        too_new = f"{found}; its code does not load in a driver of {driver.cuda_text}"
        return Check("cuda-compiler", "broken", too_new, _compiler_remedy(machine, driver))
    return Check("cuda-compiler", "ok", found)


def _pycuda(machine: Machine, driver: Driver) -> Check:
    answer = machine.probe("pycuda")
    if answer.absent:
        if not driver.is_expected:
            return Check("pycuda", "note", "not installed, and without a GPU not needed")
        return Check("pycuda", "missing", "not installed; --engine tensorrt needs it", _pycuda_remedy(machine))
    if driver.absent:
        found = f"{machine.version_of('pycuda') or 'installed'}, does not load without a driver"
        return Check("pycuda", "broken", found, "see driver") if driver.is_expected else Check("pycuda", "note", found)
    if answer.failure is not None:
        return Check("pycuda", "broken", answer.failure, _pycuda_remedy(machine, again=True))
    made = answer.value["cuda"]
    found = f"{answer.value['version']}, made with CUDA {made[0]}.{made[1]}"
    if not driver.runs(made[0]):
        # On Jetson the driver comes with JetPack, so it is pycuda that has to follow.
        remedy = _pycuda_remedy(machine, again=True) if machine.is_jetson else driver_remedy(machine, made[0])
        return Check("pycuda", "broken", f"{found}; the driver runs {driver.cuda_text}", remedy)
    return Check("pycuda", "ok", found)


def _cuda_graphs(machine: Machine, driver: Driver) -> Check:
    version = machine.version_of("cuda-bindings")
    if version is not None:
        return Check("cuda-graphs", "ok", f"cuda-bindings {version}")
    if not driver.is_expected:
        return Check("cuda-graphs", "note", "no cuda-bindings, and without a GPU none are needed")
    major = "" if driver.cuda is None else f"=={driver.cuda[0]}.*"
    return Check("cuda-graphs", "missing", "no cuda-bindings; optional", machine.pip(f"cuda-bindings{major}"))


def _absent(machine: Machine) -> str:
    if machine.is_jetson and machine.container:
        return "start the container with '--runtime nvidia'"
    return driver_remedy(machine)


def _broken(machine: Machine, driver: Driver) -> str:
    if driver.error == STUB:
        return "take the folder 'stubs' of the CUDA toolkit out of LD_LIBRARY_PATH"
    if driver.error == NOT_READY:
        return machine.sudo("systemctl restart nvidia-fabricmanager")
    if driver.error == 101:
        return "unset CUDA_VISIBLE_DEVICES"
    if driver.error in (MISMATCH, NOT_FORWARD):
        compatibility = "take the folder 'compat' of CUDA out of LD_LIBRARY_PATH, or remove the package cuda-compat"
        return f"restart the machine after an update of the driver; else {compatibility}"
    if machine.container and driver.error == NO_DEVICE:
        return f"start the container with '{'--runtime nvidia' if machine.is_jetson else '--gpus all'}'"
    if machine.is_jetson and driver.error in (UNKNOWN, NO_DEVICE) and not machine.is_root:
        return "sudo usermod -aG video,render $USER, then log in again (the GPU's device files belong to these groups)"
    if driver.error == UNKNOWN:
        return f"{machine.sudo('modprobe -r nvidia_uvm')} && {machine.sudo('modprobe nvidia_uvm')}; else restart"
    if driver.error == NO_DEVICE and machine.environment.get("CUDA_VISIBLE_DEVICES") is not None:
        return "unset CUDA_VISIBLE_DEVICES"
    return f"restart the machine; if it stays so: {driver_remedy(machine)}"


def _compiler_remedy(machine: Machine, driver: Driver) -> str:
    cuda = driver.cuda
    if machine.is_jetson and cuda is not None:
        return machine.apt(f"cuda-nvrtc-{cuda[0]}-{cuda[1]}")
    if machine.is_jetson:
        return machine.apt("nvidia-jetpack")
    # NVIDIA dropped the suffix from the names of its wheels with CUDA 13.
    return machine.pip("nvidia-cuda-nvrtc" if cuda is None or cuda[0] >= 13 else f"nvidia-cuda-nvrtc-cu{cuda[0]}")


def _pycuda_remedy(machine: Machine, *, again: bool = False) -> str:
    toolkit = "/usr/local/cuda"
    prefix = f"CUDA_ROOT={toolkit} "
    if again:
        return prefix + machine.pip("--force-reinstall", "--no-cache-dir", "--no-deps", "pycuda")
    install = prefix + machine.pip("edge-ad[tensorrt]")
    if machine.exists(f"{toolkit}/include/cuda.h"):
        return install
    if machine.is_jetson:
        return f"{machine.apt('nvidia-jetpack')} && {install}"
    return f"install the CUDA toolkit into {toolkit}, then {install}"


def _kernel_driver(machine: Machine) -> str | None:
    """Version of the driver in the kernel, such as `580.65.06`; of JetPack's, which counts otherwise, too."""
    text = machine.read("/proc/driver/nvidia/version") or machine.read("/sys/module/nvidia/version")
    if text is None:  # in WSL it is Windows that has it
        text = machine.run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").out
    found = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else None


def _words_of_nvidia_smi(machine: Machine) -> tuple[str, ...]:
    """What nvidia-smi says of a driver that does not work: often the reason."""
    ran = machine.run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if ran.absent:
        return ()
    lines = [line.strip() for line in (*ran.out.splitlines(), *ran.err.splitlines()) if line.strip()]
    return tuple(f"nvidia-smi: {line}" for line in lines[:2] or [ran.failure or "says nothing"])


def _is_on_the_bus(machine: Machine) -> bool:
    for vendor in sorted(machine.path("/sys/bus/pci/devices").glob("*/vendor")):
        kind = vendor.with_name("class")
        try:
            if vendor.read_text().strip() == PCI_VENDOR and kind.read_text().strip().startswith(PCI_DISPLAY):
                return True
        except OSError:
            continue
    return False


def _memory(gpu: dict[str, Any]) -> str:
    size = gpu.get("memory_bytes")
    return f", {size / (1 << 30):.1f} GiB" if size else ""
