"""Which process computes, and when the next one is started after it failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.engine import BatchArray, EngineHealth, EngineSpec, Outputs
from edge_ad.errors import EngineError, one_line
from edge_ad.runtime.engines.process.worker import DiedError, Loaded, Worker

UNWANTED = "was not waited for any longer"
SLOWER = 10  # times: a batch that takes so much longer than any before it hangs


@dataclass(frozen=True)
class Limits:
    """Seconds that things may take.

    Attributes:
        load_s: to load the engine, for which a graph may have to be compiled.
        first_answer_s: the first batch of a size, for which libraries prepare themselves.
        answer_s: any other batch, or ten times what the slowest took.
        wait_s: that a batch waits for a process; it does not when the pause before that is longer.
        end_s: to end when told to.
        first_pause_s, longest_pause_s: before a process is started: there is no pause after a first failure, then the
            first one, and each is twice as long as the one before.
        good_s: that a process has to work, and as long as the last pause, for its failure to be a first one.
    """

    load_s: float = 600.0
    first_answer_s: float = 120.0
    answer_s: float = 10.0
    wait_s: float = 10.0
    end_s: float = 5.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    good_s: float = 5.0


class Pauses:
    """How long to wait before another attempt."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._next_s = self._last_s = 0.0

    def after(self, worked_s: float) -> float:
        """The pause after a failure. Args: worked_s: for how long all was well before it."""
        if worked_s >= max(self._limits.good_s, self._last_s):
            self._next_s = 0.0
        self._last_s = self._next_s
        self._next_s = min(max(2 * self._last_s, self._limits.first_pause_s), self._limits.longest_pause_s)
        return self._last_s


class Keeper:
    """Keeps one process at work for an engine, and starts a fresh one whenever that fails.

    One caller at a time lets it compute; `health` may be asked and `give_up` called from any thread.

    Args:
        engine: name of the engine.
        spec: what it computes.
        read_model: gives the graph, when a process asks for it; called in another thread.
        first: a process that was started already.
        reason: why there is none yet that computes, for errors; only where nobody waits for the first one.
        clock_s: what pauses and failures are measured by.
    """

    def __init__(
        self,
        engine: str,
        spec: EngineSpec,
        read_model: Callable[[], CheckedGraph],
        limits: Limits,
        *,
        first: Worker | None = None,
        reason: str | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._read_model = read_model
        self._limits = limits
        self._clock_s = clock_s
        self._pauses = Pauses(limits)
        self._using = threading.Lock()  # held while a process is used
        self._changed = threading.Condition()
        self._worker: Worker | None = first
        self._ready = False
        self._next_s: float | None = None  # when the next process is started; None while there is one
        self._closing = False
        self._loaded: Loaded | None = None
        self._failure: Exception | None = None
        self._must_load = reason is None
        self._slowest_s: dict[int, float] = {}  # by number of images, of all processes
        self._answered: set[int] = set()  # numbers of images, of this process
        self._images = 0  # of the last batch
        self._health = EngineHealth(reason, last_fault=reason or "")
        self._thread = threading.Thread(target=self._keep, name=f"edge-ad-engine-{engine}", daemon=True)

    @property
    def health(self) -> EngineHealth:
        return self._health

    def load(self) -> Loaded:
        """Wait until the first process has loaded the engine.

        Raises: what the engine raises in there; EngineError when the process ends. Then there is no other attempt.
        """
        try:
            self._thread.start()
            with self._changed:
                self._changed.wait_for(lambda: self._loaded is not None or self._failure is not None)
            if self._failure is not None:
                raise self._failure
        except BaseException:
            self.close()
            raise
        assert self._loaded is not None
        return self._loaded

    def start(self) -> None:
        """Have it loaded, without waiting; again and again until it is."""
        self._thread.start()

    def infer(self, batch_nhwc: BatchArray) -> Outputs:
        """As `Engine.infer_impl`.

        Raises: EngineError also for a batch that was in the hands of a process that failed, and while there is none.
        """
        self._images = len(batch_nhwc)
        for may_try_again in (True, False):
            worker = self._at_work()
            try:
                with self._using:
                    return self._computed(worker, batch_nhwc)
            except DiedError as exc:
                self._failed(worker, f"its process {exc}")
                if not (exc.unseen and may_try_again):
                    raise EngineError(f"engine {self._engine}: its process {exc}; a fresh one takes over") from exc
        raise AssertionError

    def give_up(self) -> None:
        """Make a batch that is waited for fail, and compute nothing from now on."""
        worker = self._close()
        if worker is not None:
            worker.kill(UNWANTED)

    def close(self) -> None:
        """End the process."""
        is_ready, worker = self._ready, self._close()
        if worker is not None and is_ready:
            worker.end()
        elif worker is not None:
            worker.kill(UNWANTED)
        if self._thread.ident is not None:
            self._thread.join(2 * self._limits.end_s)

    def _close(self) -> Worker | None:
        """Start no process any more. Returns: the one that there is."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            return self._worker

    def _at_work(self) -> Worker:
        """The process, for which is waited a while. Raises: EngineError when there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._is_long_pause or self._closing, self._limits.wait_s)
            if self._closing:
                raise EngineError(f"engine {self._engine} is closed")
            if self._ready and self._worker is not None:
                return self._worker
            if self._next_s is None:
                raise EngineError(f"{self._health.fault}; a fresh process is being started")
            wait_s = max(1.0, self._next_s - self._clock_s())
            raise EngineError(f"{self._health.fault}; the next process is started in {wait_s:.0f} s")

    @property
    def _is_long_pause(self) -> bool:
        return self._next_s is not None and self._next_s - self._clock_s() > self._limits.wait_s

    def _computed(self, worker: Worker, batch_nhwc: BatchArray) -> Outputs:
        images, limits = len(batch_nhwc), self._limits
        limit_s = limits.first_answer_s
        if images in self._answered:
            limit_s = max(limits.answer_s, SLOWER * self._slowest_s[images])
        began_s = time.monotonic()
        outputs = worker.infer(batch_nhwc, limit_s=limit_s)
        self._answered.add(images)
        self._slowest_s[images] = max(self._slowest_s.get(images, 0.0), time.monotonic() - began_s)
        return outputs

    def _keep(self) -> None:
        """What the thread does: one process after another."""
        while not self._closing:
            failure: Exception | None = None
            worked_s = 0.0
            try:
                worker = self._begin()
                self._put_to_work(worker)
                ready_s = self._clock_s()
                worker.watch()
                why = f"its process {worker.wait()}"
                worked_s = self._clock_s() - ready_s
            except DiedError as exc:
                why = f"its process {exc} while it loaded the bundle's graph"
                remedy = "try another --engine, or export the bundle again"
                failure = EngineError(f"engine {self._engine}: {why}; {remedy}")
            except Exception as exc:
                why, failure = f"a fresh process cannot load it: {one_line(exc)}", exc
            self._leave(why)
            if failure is not None and self._must_load and self._loaded is None:
                with self._changed:
                    self._failure = failure
                    self._changed.notify_all()
                return
            self._pause(self._pauses.after(worked_s))

    def _begin(self) -> Worker:
        """The next process, or the one that was started already."""
        with self._changed:
            if self._worker is None:
                self._worker = Worker(self._engine, end_s=self._limits.end_s)
            if self._closing:
                raise self._worker.kill(UNWANTED)
            return self._worker

    def _put_to_work(self, worker: Worker) -> None:
        """Raises: what goes wrong with that."""
        loaded = worker.load(self._spec, self._read_model, limit_s=self._limits.load_s)
        self._answered.clear()
        if self._images:  # one took its place: the first batch is to be as fast as the others
            shape = (self._images, *(int(size or 1) for size in self._spec.image.shape[1:]))
            self._computed(worker, np.zeros(shape, np.uint8))
        with self._changed:
            restarts = self._health.restarts + (self._loaded is not None or not self._must_load)
            self._loaded, self._ready = loaded, True
            self._health = replace(self._health, fault=None, restarts=restarts, pid=worker.pid)
            self._changed.notify_all()

    def _failed(self, worker: Worker | None, why: str) -> None:
        """Nothing is computed from now on, for that reason, unless another process is there already."""
        with self._changed:
            if self._worker not in (worker, None):
                return
            self._ready = False
            fault = f"engine {self._engine}: {why}"
            self._health = replace(self._health, fault=fault, last_fault=fault, pid=None)

    def _leave(self, why: str) -> None:
        """Have done with a process."""
        if not self._closing:
            self._failed(self._worker, why)
        with self._changed:
            worker, self._worker, self._ready = self._worker, None, False
        if worker is not None:
            worker.end()
            with self._using:  # whoever waited for it has been told that it is gone
                worker.release()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._next_s = self._clock_s() + seconds if seconds else None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing, seconds)
            self._next_s = None
