"""Which TensorRT: the one of JetPack and data centres, or TensorRT-RTX, which has a module of its own."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from edge_ad.errors import EngineError, one_line

FlavourName = Literal["tensorrt", "rtx"]
RTX_SM = (75, 80, 86, 89, 120, 121)
"""Compute capabilities that TensorRT-RTX 1.7 compiles for; 86 stands for 8.6."""


@dataclass(frozen=True)
class Flavour:
    """One of the two.

    Attributes:
        name: as the user writes it after `--flavour`.
        title: as NVIDIA writes it.
        module: name of its Python module.
        remedy: how it is installed.
    """

    name: FlavourName
    title: str
    module: str
    remedy: str

    def load(self) -> Any:
        """The Python module. Raises: EngineError when it is not installed, or its libraries do not load."""
        try:
            trt = import_module(self.module)
        except ModuleNotFoundError as exc:
            raise EngineError(f"{self.title} is not installed: no module {exc.name!r}; {self.remedy}") from exc
        except (ImportError, OSError) as exc:
            raise EngineError(f"{self.title} cannot be loaded: {one_line(exc)}; {self.remedy}") from exc
        if not hasattr(trt, "Builder"):  # type stubs, or what an uninstallation left, make an empty module
            raise EngineError(f"{self.title} is not installed: the module {self.module!r} is empty; {self.remedy}")
        return trt


FLAVOURS: dict[FlavourName, Flavour] = {
    "tensorrt": Flavour(
        "tensorrt",
        "TensorRT",
        "tensorrt",
        "on Jetson it comes with JetPack (apt install python3-libnvinfer), elsewhere with NVIDIA's installer; for RTX"
        " PCs there is --flavour rtx",
    ),
    "rtx": Flavour("rtx", "TensorRT-RTX", "tensorrt_rtx", "pip install tensorrt-rtx-cu13"),
}


def installed_flavours() -> tuple[dict[FlavourName, str], list[str]]:
    """Versions of the TensorRTs that are installed, and in words why the others are not."""
    versions: dict[FlavourName, str] = {}
    reasons = []
    for flavour in FLAVOURS.values():
        try:
            versions[flavour.name] = str(flavour.load().__version__)
        except EngineError as exc:
            reasons.append(str(exc))
    return versions, reasons


def optional(owner: Any, name: str) -> Any:
    """A flag or class that not every version of TensorRT has; None where it lacks."""
    return getattr(owner, name, None)
