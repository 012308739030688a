"""What the two processes say to each other: JSON, each message behind its length. Nothing is ever unpickled."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_ad import errors
from edge_ad.bundle.specs import PostprocessSpec, TensorSpec
from edge_ad.engine import EngineSpec
from edge_ad.errors import ConfigError, EdgeAdError, one_line, os_reason

Message = Mapping[str, Any]

LENGTH_BYTES = 4
MOST_BYTES = 1 << 20  # of a message; a graph goes beside them
MOST_SHOWN = 10_000  # characters of anything that the user is told
PIECE_BYTES = 1 << 16
SLICE_S = 0.5  # a wait counts no more for each of these, so that the time in which both processes were stopped does not


class EngineDefect(Exception):  # noqa: N818 - what is told of it is "internal error", as of any other defect
    """The engine failed in the other process as no engine should."""


class GoneError(Exception):
    """Nobody is at the other end of the wire any more."""


class Wire:
    """One end of the connection. Any thread may send, one at a time receives.

    Args:
        connected: the socket, which belongs to the wire from now on.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._sending = threading.Lock()
        self._received = bytearray()

    def send(self, message: Message, attachment: bytes = b"") -> None:
        """Say something; the other side knows how long the attachment is. Raises: GoneError."""
        text = json.dumps(message).encode("ascii")
        try:
            with self._sending:
                self._socket.settimeout(None)
                self._socket.sendall(len(text).to_bytes(LENGTH_BYTES, "big") + text)
                if attachment:
                    self._socket.sendall(attachment)
        except OSError as exc:
            raise GoneError(os_reason(exc)) from exc

    def receive(self, limit_s: float | None = None, is_there: Callable[[], bool] = lambda: True) -> dict[str, Any]:
        """What the other side says next.

        Args:
            limit_s: how long to wait; None for ever.
            is_there: asked now and then whether the other side has ended; a process that it has started may hold its
                end of the wire.

        Raises: TimeoutError when it says nothing for so long; GoneError; ValueError when it says what is no message.
        """
        patience = _Patience(limit_s, is_there)
        length = int.from_bytes(self._take(LENGTH_BYTES, patience), "big")
        if length > MOST_BYTES:
            raise ValueError(f"a message of {length} bytes")
        message = json.loads(self._take(length, patience))
        if not isinstance(message, dict):
            raise ValueError("no message")
        return message

    def receive_attachment(self, count: int) -> bytes:
        """The bytes that follow a message."""
        return bytes(self._take(count, _Patience(None, lambda: True)))

    def end(self) -> None:
        """Say nothing more, so that the other side gets a GoneError."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def _take(self, count: int, patience: _Patience) -> bytearray:
        while len(self._received) < count:
            began_s = time.monotonic()
            self._socket.settimeout(patience.slice_s)
            try:
                piece = self._socket.recv(max(PIECE_BYTES, count - len(self._received)))
            except TimeoutError:
                patience.waited(time.monotonic() - began_s)
                continue
            except OSError as exc:
                raise GoneError(os_reason(exc)) from exc
            if not piece:
                raise GoneError("it has ended")
            self._received += piece
        taken = self._received[:count]
        del self._received[:count]
        return taken


class _Patience:
    """How much longer may be waited."""

    def __init__(self, limit_s: float | None, is_there: Callable[[], bool]) -> None:
        self._left_s = limit_s
        self._is_there = is_there

    @property
    def slice_s(self) -> float | None:
        return None if self._left_s is None else min(SLICE_S, self._left_s)

    def waited(self, seconds: float) -> None:
        """Raises: TimeoutError when that was all; GoneError when nobody is there."""
        if not self._is_there():
            raise GoneError("it has ended")
        if self._left_s is not None:
            self._left_s -= min(seconds, SLICE_S)
            if self._left_s <= 1e-6:
                raise TimeoutError


def told_error(exc: Exception) -> dict[str, Any]:
    """An exception as part of a message."""
    if isinstance(exc, ConfigError):
        return {"kind": "ConfigError", "where": exc.where, "faults": list(exc.faults)}
    if isinstance(exc, EdgeAdError):
        return {"kind": type(exc).__name__, "text": str(exc)}
    text = one_line(exc)
    return {"kind": "", "text": text if text == type(exc).__name__ else f"{type(exc).__name__}: {text}"}


def error_of(told: Any) -> Exception:
    """The same exception on this side: its kind, its exit code and its words. Raises: ValueError for what is none."""
    match told:
        case {"kind": "ConfigError", "where": str(where), "faults": [*faults]}:
            return ConfigError(printable(where), [printable(str(fault)) for fault in faults])
        case {"kind": str(kind), "text": str(text)}:
            known = vars(errors).get(kind)
            if not (isinstance(known, type) and issubclass(known, EdgeAdError)):
                return EngineDefect(printable(text))
            error: EdgeAdError = known.__new__(known)  # some are made of more than their words
            Exception.__init__(error, printable(text))
            return error
    raise ValueError("no error")


def printable(text: str) -> str:
    """What a terminal may be shown of what the other side says."""
    return "".join(character if character.isprintable() else " " for character in text[:MOST_SHOWN])


def told_spec(spec: EngineSpec) -> dict[str, Any]:
    """What an engine is to compute, as part of a message."""
    cache_dir = None if spec.cache_dir is None else str(spec.cache_dir.absolute())
    return {**asdict(spec), "cache_dir": cache_dir}


def spec_of(told: Mapping[str, Any]) -> EngineSpec:
    """The opposite of `told_spec`."""
    values = dict(told)
    values["image"] = _tensor(told["image"])
    values["outputs"] = tuple(_tensor(one) for one in told["outputs"])
    if told["cache_dir"] is not None:
        values["cache_dir"] = Path(told["cache_dir"])
    if told["postprocess"] is not None:
        values["postprocess"] = PostprocessSpec(**told["postprocess"])
    return EngineSpec(**values)


def _tensor(told: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(told["name"], tuple(told["shape"]), told["dtype"])
