"""GStreamer for Python: PyGObject of this environment, or that of the system's Python where it fits."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import warnings
from contextlib import suppress
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any

from edge_ad.errors import one_line

INSTALL = "sudo apt install python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"

_FOLDERS = ("/usr/lib/python3/dist-packages", "/usr/lib64/python{0}.{1}/site-packages")
"""Where distributions put PyGObject; a virtual environment does not look there."""


@cache
def load_gst() -> Any:
    """The module `gi.repository.Gst`, initialised.

    Raises: ImportError when PyGObject or the description of GStreamer is absent, with the reason on one line.
    """
    _keep_exceptions_whole()
    with warnings.catch_warnings():
        # PyGObject before 3.44 imports in a way that Python 3.10 deprecated.
        warnings.simplefilter("ignore", ImportWarning)
        gi = _gi()
        try:
            gi.require_version("Gst", "1.0")
            from gi.repository import GLib, Gst  # noqa: F401 - GLib for those who catch its errors
        except (ImportError, ValueError) as exc:  # ValueError: there is no such namespace
            raise ImportError(one_line(exc)) from exc
    if not Gst.is_initialized():
        Gst.init(None)
    return Gst


def _keep_exceptions_whole() -> None:
    """Let every library that is loaded later find libgcc's unwinder first.

    GStreamer brings libunwind, whose functions of the same names PyGObject makes visible to all of the process; C++
    libraries loaded after it (inference engines, PyTorch) would take those, and abort when they throw.
    """
    with suppress(OSError):  # absent outside of Linux with glibc
        ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)


def _gi() -> Any:
    try:
        import gi

        return gi
    except ImportError as exc:
        found = _of_the_system(_FOLDERS)
        if found is None:
            raise ImportError(one_line(exc)) from exc
        return found


def _of_the_system(folders: tuple[str, ...]) -> Any | None:
    """The package `gi` of the system's Python if it was compiled for this version; nothing else of that folder.

    PyPI has PyGObject as source only, which needs a compiler and many headers.
    """
    major, minor = sys.version_info[:2]
    for folder in (Path(folder.format(major, minor), "gi") for folder in folders):
        if not glob(f"{folder}/_gi.cpython-{major}{minor}-*.so"):
            continue
        spec = importlib.util.spec_from_file_location(
            "gi", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        sys.modules["gi"] = module
        try:
            spec.loader.exec_module(module)
        except ImportError:  # another build of the same version of Python
            sys.modules.pop("gi", None)
            continue
        return module
    return None
