"""What is only found out by loading a library; `main` prints it as one line of JSON, in a process of its own.

A library may write whatever it likes, hang, or end the process; `processes` makes an answer of that too.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import re
from collections.abc import Callable
from importlib import metadata
from typing import Any

from edge_ad.errors import EdgeAdError, one_line
from edge_ad.openvino_core import load_openvino

Found = dict[str, Any]
GST_ELEMENTS = ("v4l2src", "rtspsrc", "appsink", "videoconvert", "nvarguscamerasrc", "nvvidconv", "nvv4l2decoder")


class AbsentError(Exception):
    """What the probe looks for is not installed."""


def cuda() -> Found:
    """The driver: the newest CUDA that it runs, and its GPUs or the error that it gives in place of them."""
    from edge_ad.runtime.engines.tensorrt.gpu import LIBRARY, find_gpus

    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError as exc:
        # A library that is there and does not load is named in the reason, as it is when there is none.
        if "No such file" in str(exc) and LIBRARY in str(exc).split(":")[0]:
            raise AbsentError(one_line(exc)) from exc
        raise
    version = ctypes.c_int()
    known = not driver.cuDriverGetVersion(ctypes.byref(version)) if hasattr(driver, "cuDriverGetVersion") else False
    found: Found = {"cuda": [version.value // 1000, version.value % 1000 // 10] if known else None, "gpus": []}
    status = driver.cuInit(0)
    if status:
        return {**found, "error": status}
    try:
        gpus = find_gpus()
    except EdgeAdError as exc:
        return {**found, "failure": str(exc)}
    for gpu in gpus:
        found["gpus"].append(
            {"index": gpu.index, "name": gpu.name, "sm": gpu.sm, "memory_bytes": _memory_bytes(driver, gpu.index)}
        )
    return found


def openvino() -> Found:
    _require("openvino")
    module = load_openvino()
    core = module.Core()
    devices = list(core.available_devices)
    capabilities = list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")) if "CPU" in devices else []
    return {"version": _short(str(module.get_version())), "devices": devices, "capabilities": capabilities}


def onnxruntime() -> Found:
    module = _loaded("onnxruntime")
    return {"version": str(module.__version__), "providers": list(module.get_available_providers())}


def resize() -> Found:
    from edge_ad.image.resize.native import load_native

    if load_native() is None:
        raise AbsentError("was not compiled")
    return {}


def tensorrt() -> Found:
    return _flavour("tensorrt")


def rtx() -> Found:
    return _flavour("rtx")


def pycuda() -> Found:
    _loaded("pycuda")
    driver = _loaded("pycuda.driver")
    return {"version": metadata.version("pycuda"), "cuda": list(driver.get_version()[:2])}


def compilers() -> Found:
    from edge_ad.runtime.engines.tensorrt.kernels.compile import compilers as found

    return {"compilers": [{"text": compiler.text, "cuda": list(compiler.version)} for compiler in found()]}


def opencv() -> Found:
    _loaded("cv2")
    from edge_ad.runtime.host.opencv import load_cv2

    cv2 = load_cv2()
    return {"version": str(cv2.__version__), "backends": _backends(cv2.getBuildInformation())}


def gstreamer() -> Found:
    gi = _loaded("gi")
    try:
        gi.require_version("Gst", "1.0")
    except ValueError as exc:
        raise AbsentError(f"PyGObject is here, but not GStreamer's description for it ({one_line(exc)})") from exc
    gst = importlib.import_module("gi.repository.Gst")
    gst.init(None)
    return {
        "version": ".".join(map(str, gst.version()[:3])),
        "elements": [name for name in GST_ELEMENTS if gst.ElementFactory.find(name) is not None],
    }


PROBES: dict[str, Callable[[], Found]] = {
    probe.__name__: probe
    for probe in (cuda, tensorrt, rtx, pycuda, openvino, onnxruntime, resize, opencv, gstreamer, compilers)
}


def _loaded(name: str) -> Any:
    _require(name)
    return importlib.import_module(name)


def _require(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise AbsentError(f"no module {name!r}")


def _flavour(name: Any) -> Found:
    from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS

    flavour = FLAVOURS[name]
    if not hasattr(_loaded(flavour.module), "Builder"):  # type stubs, or what an uninstallation left
        raise AbsentError(f"the module {flavour.module!r} is empty")
    return {"version": str(flavour.load().__version__), "cuda": _made_for(flavour.module.replace("_", "-"))}


def _made_for(package: str) -> int | None:
    """Major number of CUDA in the name of the installed wheel, such as 13 of `tensorrt-rtx-cu13`."""
    pattern = re.compile(rf"{package}-cu(\d+)(-bindings|-libs)?")
    names = (re.sub(r"[-_.]+", "-", str(entry.metadata["Name"])).lower() for entry in metadata.distributions())
    found = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    return max(found, default=None)


def _memory_bytes(driver: Any, index: int) -> int | None:
    device, size = ctypes.c_int(), ctypes.c_size_t()
    try:
        failed = driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDeviceTotalMem_v2(
            ctypes.byref(size), device
        )
    except AttributeError:
        return None
    return None if failed else size.value


def _backends(build_information: str) -> dict[str, bool]:
    """`GStreamer: YES (1.20.3)` and the like in OpenCV's words about itself."""
    found = re.findall(r"^\s*(FFMPEG|GStreamer|v4l/v4l2):\s*(YES|NO)\b", build_information, re.MULTILINE)
    return {name: state == "YES" for name, state in found}


def _short(version: str) -> str:
    """`2026.4.1` of `2026.4.1-22982-e213a147257-releases/2026/4`."""
    return version.split("-")[0]


def main(name: str) -> None:
    """Ask the probe of a name, and print what came of it."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    value: Found = {}
    failure, absent = None, False
    try:
        value = PROBES[name]()
    except AbsentError as exc:
        failure, absent = one_line(exc), True
    except BaseException as exc:
        failure = one_line(exc) if isinstance(exc, EdgeAdError) else f"{type(exc).__name__}: {one_line(exc)}"
    with answer:
        answer.write(json.dumps({"value": value, "failure": failure, "absent": absent}) + "\n")
