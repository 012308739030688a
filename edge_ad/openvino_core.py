"""The door to OpenVINO: its import without telemetry, the one `openvino.Core` of this process, and what it says."""

from __future__ import annotations

import ctypes
import importlib
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge_ad.errors import library_lines

TELEMETRY = "openvino_telemetry"
MOST_CHARACTERS = 300
"""Of what OpenVINO says, which may quote all of a file."""

_PLACE = re.compile(r"(Exception from|Check '.*' failed at) \S+:\d+:?")
_MISSING = object()
_lock = threading.Lock()
_cores: list[Any] = []


def load_openvino(part: str | None = None) -> Any:
    """The module `openvino`, or a part of it such as `opset8`, loaded without its telemetry.

    On its first import OpenVINO writes an identifier into the user's home folder and posts an event to an analytics
    service, through a package that it brings along. Where that package cannot be imported, it takes a stub of its own
    that does nothing, for as long as the process lives. What else the process does with that package stays possible.

    Raises: ModuleNotFoundError without OpenVINO, or that part of it.
    """
    with _lock, _without_telemetry():
        return importlib.import_module("openvino" if part is None else f"openvino.{part}")


def openvino_core() -> Any:
    """OpenVINO's entrance, made at the first call and kept until the process ends; from any thread.

    With the last object of a Core, OpenVINO frees the executors of its CPU device. A thread that has computed on one
    gives its part back when it ends, which is after it has told others that it is done (until Python 3.12 also after
    its `join` has returned). OpenVINO 2026 does not keep the two apart: it writes into freed memory, and the process
    crashes some time later, somewhere else. While the Core lives, executors are kept and used again, so nothing is
    freed under a thread that ends.

    Raises: ModuleNotFoundError without OpenVINO.
    """
    openvino = load_openvino()
    with _lock:
        if not _cores:
            core = openvino.Core()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(core))  # else the interpreter would free it when it ends
            _cores.append(core)
        return _cores[0]


def openvino_reason(exc: BaseException) -> str:
    """What an exception of OpenVINO says, on one line: its reason, without the places in OpenVINO's own source.

    What a terminal would not print is escaped.
    """
    lines = library_lines(exc)
    text = " ".join([line for line in lines if not _PLACE.fullmatch(line)] or lines[-1:])
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Nobody can import the telemetry while the block runs."""
    before = sys.modules.get(TELEMETRY, _MISSING)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # the import system's word for a module that may not be
    try:
        yield
    finally:
        if before is _MISSING:
            sys.modules.pop(TELEMETRY, None)
        else:
            sys.modules[TELEMETRY] = before  # type: ignore[assignment]
