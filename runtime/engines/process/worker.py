"""One process that computes an engine's batches, seen from the one that it computes for."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import edge_ad
from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.engine import BatchArray, EngineSpec, Outputs
from edge_ad.runtime.engines.process.launch import Launched, launch
from edge_ad.runtime.engines.process.memory import Exchange
from edge_ad.runtime.engines.process.wire import GoneError, Wire, error_of, printable, told_spec

log = logging.getLogger(__name__)

CRASHES = {
    "SIGSEGV": "crashed (SIGSEGV: it touched memory that is not its own)",
    "SIGBUS": "crashed (SIGBUS: it touched memory that is not there)",
    "SIGABRT": "crashed (SIGABRT: its library gave up)",
    "SIGFPE": "crashed (SIGFPE: it divided by zero)",
    "SIGILL": "crashed (SIGILL: it used an instruction that this processor lacks)",
    "SIGKILL": "was killed (SIGKILL: memory ran out, or somebody did it)",
}
"""What the signal that ended a process means."""

NONSENSE = "said what it should not"
LOGGERS = ("edge_ad", "py.warnings")
MOST_LOGGED = 1000  # messages before an answer


class DiedError(Exception):
    """The process has ended or was ended; the words say why.

    Attributes:
        unseen: whether it ended before it was given the batch.
    """

    def __init__(self, why: str, *, unseen: bool = False) -> None:
        super().__init__(why)
        self.unseen = unseen


@dataclass(frozen=True)
class Loaded:
    """What is known of an engine once it is loaded; see the attributes of `Engine`."""

    effective_precision: str
    from_cache: bool
    resizes_on_device: bool


class Worker:
    """A process, started at once. One thread at a time may let it load or compute; any may end it, or wait for its end.

    Args:
        engine: name of the engine, whose libraries it loads before it is told what to compute.
        end_s: how long it may take to end when it is told to.
        launched: a process that was started already.

    Raises: EngineError when it cannot be started.
    """

    def __init__(self, engine: str, *, end_s: float, launched: Launched | None = None) -> None:
        self._engine = engine
        self._end_s = end_s
        self._launched = (launched or launch()).take()
        self._wire = Wire(self._launched.connection)
        self._why: str | None = None
        self._lock = threading.Lock()
        self._released = False
        self._exchange: Exchange | None = None
        level = logging.getLogger("edge_ad").getEffectiveLevel()
        package = os.path.dirname(edge_ad.__file__)
        self._send({"engine": engine, "level": level, "package": package})

    @property
    def pid(self) -> int:
        return self._launched.process.pid

    def load(self, spec: EngineSpec, read_model: Callable[[], CheckedGraph], *, limit_s: float) -> Loaded:
        """Let it load the engine.

        Raises: what the engine raises in there, or `read_model` here; DiedError.
        """
        self._exchange = Exchange(spec, self._launched.memory)
        self._send({"spec": told_spec(spec)})
        while True:
            match self._answer(limit_s):
                case {"ready": {"precision": str(precision), "from_cache": bool(cached), "resizes": bool(resizes)}}:
                    return Loaded(printable(precision), cached, resizes)
                case {"graph": None}:
                    graph = read_model()
                    self._send({"bytes": len(graph)}, graph)
                case {"failed": told}:
                    raise self._error(told)
                case _:
                    raise self.kill(NONSENSE)

    def infer(self, batch_nhwc: BatchArray, *, limit_s: float) -> Outputs:
        """Let it compute a batch. Raises: what the engine raises in there; DiedError."""
        if self._released:
            raise DiedError(self.wait(), unseen=True)
        exchange, images = self._exchange, len(batch_nhwc)
        assert exchange is not None  # since it was loaded
        exchange.make_room(images)
        exchange.put_inputs(batch_nhwc)
        try:
            self._wire.send({"images": images, "room": exchange.images})
        except GoneError:
            raise DiedError(self.wait(), unseen=True) from None
        match self._answer(limit_s):
            case {"done": done} if done == images:
                return exchange.outputs(images)
            case {"error": told, "lost": lost}:
                if isinstance(lost, str):
                    self._why = self._why or f"stopped: {lost}"
                raise self._error(told)
            case _:
                raise self.kill(NONSENSE)

    def watch(self) -> None:
        """Wait until it ends, or is to."""
        poll = select.poll()
        poll.register(self._launched.life, select.POLLIN)
        with ExitStack() as stack:
            with suppress(AttributeError, OSError):  # processes that it has started may hold its other descriptors
                poll.register(stack.enter_context(open_pidfd(self.pid)), select.POLLIN)
            poll.poll()

    def wait(self) -> str:
        """Wait for its end, which has begun. Returns: why, in words for the user."""
        process = self._launched.process
        try:
            code = process.wait(self._end_s)
        except subprocess.TimeoutExpired:
            return str(self.kill("did not end"))
        with self._lock:
            self._why = self._why or _why(code)
            return self._why

    def kill(self, why: str) -> DiedError:
        """End it by force. Returns: an exception that says why."""
        with self._lock:
            self._why = self._why or why
        process = self._launched.process
        process.kill()
        try:
            process.wait(self._end_s)
        except subprocess.TimeoutExpired:  # it hangs in the system
            log.warning("engine %s: its process %d cannot be ended", self._engine, process.pid)
            with suppress(OSError):
                self._launched.life.shutdown(socket.SHUT_RDWR)  # so that nobody waits for it
        return DiedError(self._why)

    def end(self) -> None:
        """Have it close the engine and end, if need be by force. Nobody may use it meanwhile or afterwards."""
        with self._lock:
            was_well, self._why = self._why is None, self._why or "was told to end"
        self._wire.end()
        try:
            code = self._launched.process.wait(self._end_s)
        except subprocess.TimeoutExpired:
            self.kill("did not end")
            return
        if code < 0 and was_well:
            log.warning("engine %s: its process %s while it closed", self._engine, _why(code))

    def release(self) -> None:
        """Close what belongs to it on this side, once it has ended; not while it is used."""
        self._released = True
        if self._exchange is not None:
            self._exchange.close()
        self._launched.close()

    def _send(self, message: dict[str, Any], attachment: bytes = b"") -> None:
        """Say something; if nobody listens any more, its last words are still there to be read."""
        with suppress(GoneError):
            self._wire.send(message, attachment)

    def _is_there(self) -> bool:
        return self._launched.process.poll() is None

    def _answer(self, limit_s: float) -> dict[str, Any]:
        for _ in range(MOST_LOGGED):
            try:
                answer = self._wire.receive(limit_s, self._is_there)
            except TimeoutError:
                raise self.kill(f"gave no answer within {limit_s:.1f} s") from None
            except GoneError:
                raise DiedError(self.wait()) from None
            except ValueError:
                raise self.kill(NONSENSE) from None
            match answer:
                case {"log": [int(level), str(name), str(text)]} if name.startswith(LOGGERS):
                    logging.getLogger(name).log(level, printable(text))
                case _:
                    return answer
        raise self.kill(NONSENSE)

    def _error(self, told: Any) -> Exception:
        try:
            return error_of(told)
        except ValueError:
            return self.kill(NONSENSE)


@contextmanager
def open_pidfd(pid: int) -> Iterator[int]:
    """A descriptor that can be read when a process has ended. Raises: AttributeError, OSError where there are none."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _why(code: int) -> str:
    if code >= 0:
        return f"ended by itself (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return CRASHES.get(name, f"was ended ({name})")
