"""What an engine is to be like, as TensorRT's builder can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_ad.bundle.specs import Precision
from edge_ad.runtime.engines.tensorrt.fingerprint import (
    HARDWARE_COMPATIBLE,
    KERNEL_TAIL,
    TF32,
    VERSION_COMPATIBLE,
    Tail,
    batches,
)
from edge_ad.runtime.engines.tensorrt.flavour import FlavourName
from edge_ad.runtime.engines.tensorrt.gpu import Gpu


@dataclass(frozen=True)
class BatchRange:
    """Images per call: fewest, those that the engine is fastest at, and most; `smallest <= best <= largest`."""

    smallest: int = 1
    best: int = 1
    largest: int = 1

    def __str__(self) -> str:
        accepted = batches(self.smallest, self.largest)
        return accepted if self.smallest == self.largest else f"{accepted}, fastest at {self.best}"


@dataclass(frozen=True)
class EngineRequest:
    """One engine.

    Attributes:
        precision: what the graph was made for; TensorRT 8 has to be told, later ones read it in the graph.
        batches: what the engine accepts, where the graph leaves it open.
        flavour: which TensorRT builds it.
        sm: compute capabilities that TensorRT-RTX compiles for; TensorRT compiles for `gpu`, whose capability this is.
        gpu: that builds; None for TensorRT-RTX, which needs none.
        workspace_mb: most that a layer may take for intermediate results, in MiB; None leaves it to TensorRT.
        timing_cache: file that remembers how fast layers were, so that the next build is quicker.
        dla: core of the deep learning accelerator to build for; layers that it cannot compute go to the GPU.
        hardware_compatible: runs on every GPU from SM80 on, in place of this kind alone.
        version_compatible: runs with later versions of TensorRT of the same major number.
        tf32: let float32 layers multiply in TF32, with 10 bits of mantissa in place of 23.
        tail: `kernel` ends the engine at the patch map.
    """

    precision: Precision
    batches: BatchRange = BatchRange()
    flavour: FlavourName = "tensorrt"
    sm: tuple[int, ...] = ()
    gpu: Gpu | None = None
    workspace_mb: int | None = None
    timing_cache: Path | None = None
    dla: int | None = None
    hardware_compatible: bool = False
    version_compatible: bool = False
    tf32: bool = False
    tail: Tail = "graph"

    @property
    def target(self) -> str:
        """Where the engine is to run, in words."""
        where = ", ".join(f"SM{sm}" for sm in self.sm)
        if self.gpu is not None:
            where = f"{self.gpu.name} ({where})"
        return where if self.dla is None else f"DLA core {self.dla} of {where}"

    @property
    def flags(self) -> tuple[str, ...]:
        """Options that change the plan, for its fingerprint."""
        given = {
            HARDWARE_COMPATIBLE: self.hardware_compatible,
            VERSION_COMPATIBLE: self.version_compatible,
            TF32: self.tf32,
            KERNEL_TAIL: self.tail == "kernel",
            f"workspace {self.workspace_mb} MiB": self.workspace_mb is not None,
        }
        return tuple(sorted(flag for flag, is_given in given.items() if is_given))
