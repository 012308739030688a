"""How far a build is: TensorRT's progress monitor, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any, Protocol

from edge_ad.runtime.engines.tensorrt.flavour import optional


class Progress(Protocol):
    """Told how far a build is, from the builder's own threads. Phases lie in one another."""

    def begin(self, phase: str, parent: str | None, steps: int) -> None: ...

    def step(self, phase: str, step: int) -> None: ...

    def end(self, phase: str) -> None: ...


class NoProgress:
    """For those who do not watch."""

    def begin(self, phase: str, parent: str | None, steps: int) -> None:
        pass

    def step(self, phase: str, step: int) -> None:
        pass

    def end(self, phase: str) -> None:
        pass


def progress_monitor(trt: Any, progress: Progress, cancelled: Event) -> Any:
    """An `IProgressMonitor`; None where TensorRT has none. Nothing may be raised through its callbacks."""
    base: Any = optional(trt, "IProgressMonitor")
    if base is None:
        return None

    class Monitor(base):  # type: ignore[misc]  # the class comes with the module
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            _quietly(lambda: progress.begin(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            _quietly(lambda: progress.step(phase_name, step))
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            _quietly(lambda: progress.end(phase_name))

    return Monitor()


def _quietly(call: Callable[[], None]) -> None:
    """An exception would end the process inside of TensorRT, and a display that fails is no reason to end a build."""
    with suppress(Exception):
        call()
