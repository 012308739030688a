"""A fresh process that goes on computing after the GPU is lost to this one, which cannot get it back.

It is started when it is needed and not before: until then an engine computes in the process of its caller.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from edge_ad.engine import BatchArray, EngineSpec, Outputs
from edge_ad.errors import EdgeAdError, EngineError, one_line

ANSWER_S = 30.0  # for one batch; a process that takes longer hangs
END_S = 5.0  # for a process that was told to end
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # between attempts; each is twice as long as the one before

_Process = subprocess.Popen[bytes]


class Successor:
    """Computes an engine's batches in another process, which is replaced whenever it fails. One caller at a time.

    Args:
        engine: name of the engine.
        spec: what it computes.
        reason: why there has to be one, for the errors.
    """

    def __init__(self, engine: str, spec: EngineSpec, reason: str) -> None:
        self._engine = engine
        self._spec = spec
        self._reason = reason
        self._pause_s = FIRST_PAUSE_S
        self._not_before = 0.0
        self._running: tuple[_Process, Connection] | None = None
        self._ready = False

    def infer(self, batch_nhwc: BatchArray) -> Outputs:
        """As `Engine.infer_impl`. Never waits for a process to start.

        Raises: EngineError while there is none that is ready, or with what it says.
        """
        connection = self._connected()
        try:
            connection.send((batch_nhwc.shape, np.ascontiguousarray(batch_nhwc).tobytes()))
            if not connection.poll(ANSWER_S):
                raise EOFError(f"no answer within {ANSWER_S:g} s")
            answer = connection.recv()
        except (OSError, EOFError) as exc:
            raise self._failed(one_line(exc)) from exc
        if isinstance(answer, str):
            raise self._failed(answer)
        self._pause_s = FIRST_PAUSE_S
        return Outputs(*answer)

    def close(self) -> None:
        """End the process, if need be by force."""
        if self._running is None:
            return
        process, connection = self._running
        self._running, self._ready = None, False
        connection.close()  # which it takes as the word to end
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _connected(self) -> Connection:
        """A connection to a process that is ready. Raises: EngineError when there is none yet; then one is started."""
        if os.name != "posix":
            raise EngineError(f"{self._reason}; restart edge-ad")
        if self._running is None:
            if time.monotonic() < self._not_before:
                raise EngineError(f"{self._reason}; the next attempt to start a new process follows")
            self._running = _started(self._engine, self._spec)
        connection = self._running[1]
        try:
            if not self._ready and not connection.poll():
                raise EngineError(f"{self._reason}; a new process is being started")
            failure = None if self._ready else connection.recv()
        except (OSError, EOFError) as exc:
            raise self._failed("it ended at once") from exc
        if failure is not None:
            raise self._failed(str(failure))
        self._ready = True
        return connection

    def _failed(self, why: str) -> EngineError:
        self._kill()
        self._not_before = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return EngineError(f"{self._reason}; the process that took over failed too: {why}")

    def _kill(self) -> None:
        if self._running is not None:
            self._running[0].kill()
        self.close()


def _started(engine: str, spec: EngineSpec) -> tuple[_Process, Connection]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        # Records go to standard output; whatever a library prints there has to go elsewhere.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=[theirs.fileno()])
    connection = Connection(ours.detach())
    with contextlib.suppress(OSError):  # it ended at once, which the first look at the connection will show
        connection.send((engine, spec))
    return process, connection


def serve(connection: Any) -> None:
    """What the new process does: load the engine, say None or the reason why not, and answer batches until the end."""
    from edge_ad.runtime.engines import make_engine

    name, spec = connection.recv()
    try:
        with make_engine(name, _no_graph, spec) as engine:
            connection.send(None)
            while True:
                shape, pixels = connection.recv()
                outputs = engine.infer(np.frombuffer(pixels, np.uint8).reshape(shape))
                connection.send((outputs.patch_map, outputs.anomaly_map, outputs.pred_score))
    except EOFError:
        pass  # nobody wants more
    except EdgeAdError as exc:
        connection.send(str(exc))


def _no_graph() -> bytes:
    raise EngineError("a new process computes what was compiled before, and has no graph to compile")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the line, and the line this process
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
