"""The two kinds of TensorRT, and whether `--engine tensorrt` has all that it needs."""

from __future__ import annotations

import re

from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS, RTX_SM
from edge_ad.runtime.instruments.doctor import nvidia
from edge_ad.runtime.instruments.doctor.check import Check, State
from edge_ad.runtime.instruments.doctor.machine import Machine
from edge_ad.runtime.instruments.doctor.nvidia import Driver, check_nvidia, driver_remedy, look_at_driver

NAMES = (*nvidia.NAMES, "flavour-tensorrt", "flavour-rtx", "tensorrt")
APT_PACKAGE = "python3-libnvinfer"
X86 = ("x86_64", "amd64")


def check_gpu(machine: Machine) -> list[Check]:
    driver = look_at_driver(machine)
    checks = [*check_nvidia(machine), _tensorrt(machine, driver), _rtx(machine, driver)]
    return [*checks, _engine(driver, {check.name: check for check in checks})]


def _engine(driver: Driver, checks: dict[str, Check]) -> Check:
    """What `edge-ad run --engine tensorrt` asks for: a GPU, pycuda, and one of the two kinds."""
    if not driver.is_expected:
        return Check("tensorrt", "note", "needs an NVIDIA GPU")
    kinds = [checks["flavour-tensorrt"], checks["flavour-rtx"]]
    usable = [check for check in kinds if check.state == "ok"]
    for needed in (checks["driver"], checks["gpu"], checks["pycuda"], *([] if usable else kinds[:1])):
        if needed.state != "ok":
            state: State = "broken" if needed.state == "broken" else "missing"
            return Check("tensorrt", state, f"cannot run: {needed.name}: {needed.found}", needed.remedy)
    titles = " or ".join(check.found for check in usable)
    return Check("tensorrt", "ok", f"{titles}, on {driver.gpus[0]['name']}; engines are made by 'edge-ad build'")


def _tensorrt(machine: Machine, driver: Driver) -> Check:
    name = "flavour-tensorrt"
    answer = machine.probe("tensorrt")
    if answer.absent and not driver.is_expected:
        return Check(name, "note", "not installed, and without a GPU not needed")
    if answer.absent:
        package = machine.package(APT_PACKAGE)
        if package is None:
            return Check(name, "missing", "not installed", _how_to_install(machine))
        found = f"the system's Python has it ({APT_PACKAGE} {package}), but not this one ({machine.python.minor})"
        return Check(name, "missing", found, machine.system_venv())
    if answer.failure is not None:
        return Check(name, "broken", answer.failure, _how_to_install(machine))
    version = answer.value["version"]
    made_for = answer.value.get("cuda") or _cuda_of_package(machine)
    return _fits_driver(machine, driver, name, f"TensorRT {version}", made_for)


def _rtx(machine: Machine, driver: Driver) -> Check:
    name, install = "flavour-rtx", machine.pip("edge-ad[rtx]")
    answer = machine.probe("rtx")
    if answer.absent and (machine.processor.lower() not in X86 or machine.is_jetson):
        return Check(name, "note", "not installed; it is for RTX cards of x86-64 PCs")
    if answer.absent and not driver.is_expected:
        return Check(name, "note", "not installed; it could build engines for RTX PCs here, without a GPU", install)
    if answer.absent:
        return Check(name, "missing", "not installed; for RTX cards", install)
    if answer.failure is not None:
        return Check(name, "broken", answer.failure, install)
    version, made_for = answer.value["version"], answer.value.get("cuda")
    unfit = [gpu for gpu in driver.gpus if gpu["sm"] not in RTX_SM]
    if unfit and len(unfit) == len(driver.gpus):
        found = f"TensorRT-RTX {version} builds engines for RTX PCs, but runs none on SM{unfit[0]['sm']}"
        return Check(name, "note", found)
    return _fits_driver(machine, driver, name, f"TensorRT-RTX {version}", made_for)


def _fits_driver(machine: Machine, driver: Driver, name: str, title: str, made_for: int | None) -> Check:
    found = f"{title}, for CUDA {made_for}" if made_for else title
    if not driver.runs(made_for):
        remedy = _how_to_install(machine) if machine.is_jetson else driver_remedy(machine, made_for)
        return Check(name, "broken", f"{found}; the driver runs {driver.cuda_text}", remedy)
    return Check(name, "ok", found)


def _how_to_install(machine: Machine) -> str:
    if machine.is_jetson:
        return machine.apt(APT_PACKAGE)
    if machine.has_apt:
        return f"{machine.apt(APT_PACKAGE)}, from NVIDIA's repository; for an RTX card {machine.pip('edge-ad[rtx]')}"
    return FLAVOURS["tensorrt"].remedy


def _cuda_of_package(machine: Machine) -> int | None:
    """Major number of CUDA in the version of NVIDIA's Debian package, 12 of `10.3.0.30-1+cuda12.5`."""
    found = re.search(r"\+cuda(\d+)", machine.package(APT_PACKAGE) or "")
    return int(found[1]) if found else None
