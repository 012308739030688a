"""What computes on the processor: the engines, and the resize before them."""

from __future__ import annotations

from edge_ad.runtime.instruments.doctor.check import Check
from edge_ad.runtime.instruments.doctor.machine import Machine

NAMES = ("openvino", "onnxruntime", "resize")


def check_engines(machine: Machine) -> list[Check]:
    return [_openvino(machine), _onnxruntime(machine), _resize(machine)]


def _openvino(machine: Machine) -> Check:
    answer = machine.probe("openvino")
    install = machine.pip("--upgrade", "openvino")
    if answer.absent:
        return Check("openvino", "missing", "not installed; it is the engine that edge-ad takes by default", install)
    if answer.failure is not None:
        return Check("openvino", "broken", answer.failure, machine.pip("--force-reinstall", "openvino"))
    devices = answer.value["devices"]
    if "CPU" not in devices:
        found = f"{answer.value['version']} lists no CPU, only {', '.join(devices) or 'nothing'}"
        return Check("openvino", "broken", found, machine.pip("--force-reinstall", "openvino"))
    types = [name for name in ("BF16", "FP16", "INT8") if name in answer.value["capabilities"]]
    found = f"{answer.value['version']}, devices {', '.join(devices)}; on the CPU FP32 {' '.join(types)}".rstrip()
    return Check("openvino", "ok", found)


def _onnxruntime(machine: Machine) -> Check:
    answer = machine.probe("onnxruntime")
    install = machine.pip("edge-ad[onnxruntime]")
    if answer.absent:
        return Check("onnxruntime", "missing", "not installed; optional", install)
    if answer.failure is not None:
        return Check("onnxruntime", "broken", answer.failure, machine.pip("--force-reinstall", "onnxruntime"))
    providers = [name.removesuffix("ExecutionProvider") for name in answer.value["providers"]]
    return Check("onnxruntime", "ok", f"{answer.value['version']}, providers {', '.join(providers)}")


def _resize(machine: Machine) -> Check:
    answer = machine.probe("resize")
    again = (
        f"{machine.apt('gcc', 'libc6-dev')}, then in the folder of edge-ad's source"
        f" {machine.pip('--force-reinstall', '--no-deps', '--no-cache-dir', '.')}"
    )
    if answer.absent:
        found = "not compiled at installation; frames are resized with Pillow, several times slower"
        return Check("resize", "missing", found, again)
    if answer.failure is not None:
        return Check("resize", "broken", f"{answer.failure}; frames are resized with Pillow", again)
    return Check("resize", "ok", "compiled")
