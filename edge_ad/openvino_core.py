"""The one `openvino.Core` of this process."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

_lock = threading.Lock()
_cores: list[Any] = []


def openvino_core() -> Any:
    """OpenVINO's entrance, made at the first call and kept until the process ends; from any thread.

    With the last object of a Core, OpenVINO frees the executors of its CPU device. A thread that has computed on one
    gives its part back when it ends, which is after it has told others that it is done (until Python 3.12 also after
    its `join` has returned). OpenVINO 2026 does not keep the two apart: it writes into freed memory, and the process
    crashes some time later, somewhere else. While the Core lives, executors are kept and used again, so nothing is
    freed under a thread that ends.

    Raises: ModuleNotFoundError without OpenVINO.
    """
    import openvino

    with _lock:
        if not _cores:
            core = openvino.Core()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(core))  # else the interpreter would free it when it ends
            _cores.append(core)
        return _cores[0]
