"""How the other process is started: what it inherits, what it may import, and what ends it. Loads in a moment.

It inherits the environment, standard error and three descriptors. It imports what this process imports, and nothing
from the working folder. It takes no notice of the signals that end a line, for the line ends it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from edge_ad.errors import EngineError, os_reason

CODE = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry];"
    " from edge_ad.runtime.engines.process.child import main; main()"
)
"""An empty entry is the working folder, which Python puts in front of all others for `-c`, as it does for `-m`."""

MFD_NOEXEC_SEAL = 8  # Linux 6.3, include/uapi/linux/memfd.h; some systems allow no other
LEFT_TO_THE_LINE = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that a terminal or a service manager sends to all processes of a line."""


@dataclass
class Launched:
    """A process that was started. As a context it is ended at the end, unless somebody has taken it over.

    Attributes:
        process: the process.
        connection: to it.
        life: readable when it has ended; it ends when this is closed.
        memory: descriptor of the memory that both see.
    """

    process: subprocess.Popen[bytes]
    connection: socket.socket
    life: socket.socket
    memory: int
    _is_ours: bool = True

    def __enter__(self) -> Launched:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drop()

    def take(self) -> Launched:
        """The process, which whoever asks is to end."""
        self._is_ours = False
        return self

    def drop(self) -> None:
        """End it, unless somebody has taken it over."""
        if self._is_ours:
            self._is_ours = False
            self.process.kill()
            self.process.wait()
            self.close()

    def close(self) -> None:
        """Close what belongs to this side."""
        self.connection.close()
        self.life.close()
        os.close(self.memory)


def launch() -> Launched:
    """Start a process. Raises: EngineError where there are none like this, or no more."""
    if os.name != "posix":
        raise EngineError("an engine in a process of its own needs a POSIX system; use --engine-process off")
    if not sys.executable:
        raise EngineError("cannot start a process for the engine: this Python does not know its own program")
    try:
        return _launch()
    except OSError as exc:
        raise EngineError(f"cannot start a process for the engine: {os_reason(exc)}") from exc


def command(arguments: list[str], *, safe_path: bool = sys.version_info >= (3, 11)) -> list[str]:
    """The command line of the other process.

    Args:
        safe_path: whether Python has the option -P.
    """
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, *(["-P"] if safe_path and "-P" not in flags else []), "-c", CODE, *arguments]


def _launch() -> Launched:
    memory = _above_standard(make_descriptor())
    sockets: list[socket.socket] = []
    try:
        for _ in range(2):
            sockets += (socket.socket(fileno=_above_standard(one.detach())) for one in socket.socketpair())
        ours, theirs, life, their_life = sockets
        passed = [theirs.fileno(), their_life.fileno(), memory]
        # Records go to standard output; whatever a library prints there has to go elsewhere.
        printed = subprocess.DEVNULL if sys.__stderr__ is None else 2
        with _held_back(LEFT_TO_THE_LINE):
            process = subprocess.Popen(
                command([str(descriptor) for descriptor in passed]),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=passed,
            )
    except BaseException:
        os.close(memory)
        for one in sockets:
            one.close()
        raise
    theirs.close()
    their_life.close()
    return Launched(process, ours, life, memory)


def _above_standard(descriptor: int) -> int:
    """The same file under a number that is no standard stream's, which a service may have closed."""
    if descriptor > 2:
        return descriptor
    higher = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return higher


def make_descriptor() -> int:
    """A descriptor of new, empty memory, which the caller closes. Raises: OSError."""
    if hasattr(os, "memfd_create"):
        for flags in (os.MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL, os.MFD_ALLOW_SEALING):
            try:
                descriptor = os.memfd_create("edge-ad", os.MFD_CLOEXEC | flags)
            except OSError:  # an older kernel, or one that is told to allow none
                continue
            # Memory that the other process made shorter would end this one (SIGBUS).
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
            return descriptor
    with tempfile.TemporaryFile(prefix="edge-ad-", buffering=0) as file:
        return os.dup(file.fileno())


@contextmanager
def _held_back(signals: tuple[int, ...]) -> Iterator[None]:
    """Let signals wait, here and in a process that is started meanwhile, until it has said what it does with them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
