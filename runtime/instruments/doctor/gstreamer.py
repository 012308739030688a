"""What frames come through: OpenCV, and GStreamer with its elements."""

from __future__ import annotations

from edge_ad.runtime.instruments.doctor.check import Check, State
from edge_ad.runtime.instruments.doctor.machine import Machine

NAMES = ("opencv", "opencv-gstreamer", "gstreamer", "gst-elements")
BINDINGS = ("python3-gi", "gir1.2-gstreamer-1.0", "gstreamer1.0-plugins-good")
PACKAGE_OF = {
    "v4l2src": "gstreamer1.0-plugins-good",
    "rtspsrc": "gstreamer1.0-plugins-good",
    "appsink": "gstreamer1.0-plugins-base",
}
"""Debian package of the elements that a camera or a stream needs."""
PACKAGE_ON_JETSON = dict.fromkeys(("nvarguscamerasrc", "nvvidconv", "nvv4l2decoder"), "nvidia-l4t-gstreamer")


def check_gstreamer(machine: Machine) -> list[Check]:
    return [*_opencv(machine), _bindings(machine), _elements(machine)]


def _opencv(machine: Machine) -> list[Check]:
    answer = machine.probe("opencv")
    if answer.failure is not None:
        remedy = machine.pip("opencv-python")
        if ".so" in answer.failure:  # the wheel is there, and a library of the system's is not
            remedy = machine.apt("libgl1", "libglib2.0-0")
        state: State = "missing" if answer.absent else "broken"
        return [Check("opencv", state, answer.failure, remedy), Check("opencv-gstreamer", "note", "see opencv")]
    backends = answer.value["backends"]
    has = [name for name, is_there in backends.items() if is_there]
    lacks = "" if backends.get("FFMPEG") else "; without FFMPEG it reads no rtsp:// streams"
    opencv = Check("opencv", "note" if lacks else "ok", f"{answer.value['version']} with {', '.join(has)}{lacks}")
    if backends.get("GStreamer"):
        return [opencv, Check("opencv-gstreamer", "ok", "built with GStreamer")]
    return [opencv, Check("opencv-gstreamer", "note", "this OpenCV is built without GStreamer, as PyPI's wheels are")]


def _bindings(machine: Machine) -> Check:
    answer = machine.probe("gstreamer")
    if answer.failure is None:
        return Check("gstreamer", "ok", f"GStreamer {answer.value['version']} through PyGObject")
    if not answer.absent:
        return Check("gstreamer", "broken", answer.failure, machine.apt(*BINDINGS))
    tools = machine.run("gst-launch-1.0", "--version")
    here = f"; {tools.out.splitlines()[-1].strip()} is here for programs" if _says_gstreamer(tools.out) else ""
    if machine.exists("/usr/lib/python3/dist-packages/gi") and not machine.python.sees_system:
        found = f"the system's Python has PyGObject, but this one does not see it{here}"
        return Check("gstreamer", "missing", found, machine.system_venv())
    remedy = machine.apt(*BINDINGS)
    if not machine.python.sees_system:
        remedy = f"{remedy}; then {machine.system_venv()}"
    return Check("gstreamer", "missing", f"{answer.failure}{here}; optional", remedy)


def _says_gstreamer(text: str) -> bool:
    return bool(text.splitlines()) and "GStreamer" in text.splitlines()[-1]


def _elements(machine: Machine) -> Check:
    wanted = {**PACKAGE_OF, **(PACKAGE_ON_JETSON if machine.is_jetson else {})}
    there = _listed(machine, tuple(wanted))
    if there is None:
        return Check("gst-elements", "note", "not known without PyGObject or gst-inspect-1.0")
    lacking = [name for name in wanted if name not in there]
    if lacking:
        packages = dict.fromkeys(wanted[name] for name in lacking)
        found = f"has {', '.join(there) or 'none'}; lacks {', '.join(lacking)}"
        return Check("gst-elements", "missing", found, machine.apt(*packages))
    return Check("gst-elements", "ok", ", ".join(there))


def _listed(machine: Machine, wanted: tuple[str, ...]) -> list[str] | None:
    answer = machine.probe("gstreamer")
    if answer.failure is None:
        return [name for name in wanted if name in answer.value["elements"]]
    there = []
    for name in wanted:
        ran = machine.run("gst-inspect-1.0", "--exists", name)
        if ran.absent:
            return None
        if ran.failure is None:
            there.append(name)
    return there
