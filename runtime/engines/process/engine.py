"""An engine in a process of its own, for whoever has an engine in mind and no process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.engine import BatchArray, Engine, EngineHealth, EngineSpec, Outputs
from edge_ad.runtime.engines import engine_class
from edge_ad.runtime.engines.process.keeper import Keeper, Limits
from edge_ad.runtime.engines.process.launch import Launched
from edge_ad.runtime.engines.process.worker import Worker

log = logging.getLogger(__name__)


class ProcessEngine(Engine):
    """Computes with the engine of that name in another process.

    Frames are resized in this process, on the processor, whatever the engine could do on its device.

    Args:
        name: of the engine.
        read_model, spec: as for `Engine`; the graph is handed to the process when it asks for it.
        limits: how long things may take.
        first: a process that was started already.

    Raises: ConfigError when there is no engine of that name.
    """

    def __init__(
        self,
        name: str,
        read_model: Callable[[], CheckedGraph],
        spec: EngineSpec,
        *,
        limits: Limits | None = None,
        first: Worker | None = None,
    ) -> None:
        super().__init__(read_model, spec)
        kind = engine_class(name)
        self.name, self.runs_graph = kind.name, kind.runs_graph
        self._limits = limits or Limits()
        self._first = first
        self._keeper: Keeper | None = None

    @property
    def health(self) -> EngineHealth:
        return EngineHealth() if self._keeper is None else self._keeper.health

    def unused(self) -> Worker | None:
        """The process that was started already, if the engine was not loaded since; it is the caller's then."""
        first, self._first = self._first, None
        return first

    def load_impl(self) -> None:
        self._keeper = Keeper(self.name, self.spec, self._read_model, self._limits, first=self.unused())
        loaded = self._keeper.load()
        self.effective_precision = loaded.effective_precision
        self.from_cache = loaded.from_cache
        if loaded.resizes_on_device:
            log.warning(
                "engine %s was found to be faster when it resizes frames on its device, which it does not do in a"
                " process of its own; --engine-process off lets it",
                self.name,
            )

    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        assert self._keeper is not None  # since it was loaded
        return self._keeper.infer(batch_nhwc)

    def give_up(self) -> None:
        if self._keeper is not None:
            self._keeper.give_up()

    def close_impl(self) -> None:
        if self._keeper is not None:
            self._keeper.close()


class EngineProcess:
    """A process that gets ready for an engine while its caller still reads what that is to compute.

    Args:
        name: of the engine.
        launched: a process that was started before its name was known.

    Raises: ConfigError when there is no engine of that name; EngineError when there can be no such process.
    """

    def __init__(self, name: str, limits: Limits | None = None, launched: Launched | None = None) -> None:
        engine_class(name)
        self._limits = limits or Limits()
        self._worker: Worker | None = Worker(name, end_s=self._limits.end_s, launched=launched)
        self._made: ProcessEngine | None = None

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process, if no engine was loaded in it."""
        worker, self._worker = self._worker, None
        if worker is None and self._made is not None:
            worker = self._made.unused()
        if worker is not None:
            worker.kill("was not needed")
            worker.release()

    def engine(self, name: str, read_model: Callable[[], CheckedGraph], spec: EngineSpec) -> Engine:
        """The engine, not loaded yet, which owns the process as soon as it is; as `make_engine`."""
        worker, self._worker = self._worker, None
        self._made = ProcessEngine(name, read_model, spec, limits=self._limits, first=worker)
        return self._made
