"""Prints, as JSON, the public names of the classes in a module of Python bindings: {class: [names]}.

    python list_bindings.py MODULE [FOLDER_OF_THE_PACKAGE [LIBRARY ...]]

The libraries are loaded first, so that bindings that link against them find them.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import sys
from importlib import import_module


def main() -> None:
    name, *rest = sys.argv[1:]
    for library in rest[1:]:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    sys.path[:0] = rest[:1]
    module = import_module(name)
    classes = {"": module} | {key: value for key, value in vars(module).items() if inspect.isclass(value)}
    severity = getattr(getattr(module, "ILogger", None), "Severity", None)
    if severity is not None:
        classes["ILogger.Severity"] = severity
    names = {
        key: [entry for entry in dir(owner) if entry == "__version__" or entry[0] != "_"]
        for key, owner in classes.items()
    }
    print(json.dumps(names))


if __name__ == "__main__":
    main()
