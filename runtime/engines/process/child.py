"""What the other process does: load an engine, and compute batches until nobody wants more."""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import edge_ad
from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.engine import Engine, output_fault
from edge_ad.errors import EngineError, one_line
from edge_ad.runtime.engines import engine_class, make_engine
from edge_ad.runtime.engines.process.launch import LEFT_TO_THE_LINE
from edge_ad.runtime.engines.process.memory import Exchange
from edge_ad.runtime.engines.process.wire import GoneError, Wire, error_of, spec_of, told_error
from edge_ad.runtime.host.process_memory import few_arenas

MORE_LIKELY_KILLED = 300  # of 1000: where memory runs out, the system is to end this process before the line
OOM_SCORE = Path("/proc/self/oom_score_adj")


def main() -> None:
    """Args: on the command line the descriptors of wire, life and memory."""
    wire, life, memory = (int(argument) for argument in sys.argv[1:4])
    for number in LEFT_TO_THE_LINE:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_THE_LINE)
    end_with(life)
    with suppress(OSError, ValueError):
        OOM_SCORE.write_text(str(min(1000, int(OOM_SCORE.read_text()) + MORE_LIKELY_KILLED)))
    few_arenas()
    with suppress(GoneError):
        serve(Wire(socket.socket(fileno=wire)), memory)


def end_with(life: int) -> None:
    """Have the system end this process when the other end of a socket is closed, whatever this one hangs in."""
    if hasattr(os, "O_ASYNC"):
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGIO,))
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(life, 0)  # hanging up is told always
    if poll.poll(0):  # it was before the signal was asked for
        os._exit(0)


def serve(wire: Wire, memory: int) -> None:
    """Answer until the other side ends. Raises: GoneError then."""
    hello = wire.receive()
    name = hello["engine"]
    _forward_logs(wire, hello["level"])
    try:
        _check_package(hello["package"])
        engine_class(name).import_libraries()
        spec = spec_of(wire.receive()["spec"])
        exchange = Exchange(spec, memory)
        with make_engine(name, lambda: _graph(wire), spec) as engine:
            wire.send({"ready": _properties(engine)})
            while engine.lost is None:
                request = wire.receive()
                wire.send(_computed(engine, exchange, request["images"], request["room"]))
    except GoneError:
        raise
    except Exception as exc:
        wire.send({"failed": told_error(exc)})


def _check_package(wanted: str) -> None:
    """Two processes of two versions would misunderstand each other."""
    found = os.path.dirname(edge_ad.__file__)
    if found != wanted:
        raise EngineError(f"the engine's process finds edge_ad in {found}, the line in {wanted}; install one of them")


def _properties(engine: Engine) -> dict[str, Any]:
    return {
        "precision": engine.effective_precision,
        "from_cache": engine.from_cache,
        "resizes": engine.resizes_on_device,
    }


def _graph(wire: Wire) -> CheckedGraph:
    """The graph, which the other side has checked: nobody else writes into this wire."""
    wire.send({"graph": None})
    answer = wire.receive()
    if "bytes" not in answer:
        raise error_of(answer["error"])
    return CheckedGraph(wire.receive_attachment(answer["bytes"]))


def _computed(engine: Engine, exchange: Exchange, images: int, room: int) -> dict[str, Any]:
    try:
        exchange.use(room)
        outputs = engine.infer_impl(exchange.inputs(images))
        if not exchange.put_outputs(outputs, images):  # the values are looked at by the other side
            fault = output_fault(outputs, images, engine.spec, engine.effective_precision)
            raise EngineError(f"engine {engine.name!r} returned {fault}")
    except Exception as exc:
        return {"error": told_error(exc), "lost": engine.lost}
    return {"done": images}


def _forward_logs(wire: Wire, level: int) -> None:
    handler = _Forward(wire)
    logging.captureWarnings(True)
    for name in ("edge_ad", "py.warnings"):
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("edge_ad").setLevel(level)


class _Forward(logging.Handler):
    """Hands what is logged to the other side, which knows how the user wants it said."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text} ({type(record.exc_info[1]).__name__}: {one_line(record.exc_info[1])})"
        with suppress(GoneError):
            self._wire.send({"log": [record.levelno, record.name, text[:10_000]]})
