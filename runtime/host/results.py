"""A folder of results: owned by one run at a time, and told apart from folders of the user."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from edge_ad.errors import OutputError, OutputUnavailableError, may_pass, os_reason
from edge_ad.runtime.host.held import HeldFolder, HeldName
from edge_ad.runtime.host.messages import Seldom

RECORDS = "verdicts.jsonl"
LEDGER = ".edge-ad"
"""File in a folder of results: locked by the run that writes there, and naming the folders of pictures that runs drew.

Those are no input of a later run, and may be set aside; any other folder is the user's. It also names full files of
records, in the order in which they came.
"""
LOOK_S = 0.5  # how often a run looks whether its folder is still there


def claim(path: Path) -> None:
    """Note that a folder of pictures, or a full file of records, is edge-ad's. Raises: OSError."""
    with (path.parent / LEDGER).open("a", encoding="utf-8") as file:
        file.write(path.name + "\n")


def claims(folder: Path) -> dict[str, int]:
    """Names that were claimed in a folder, with numbers that grow with every claim."""
    try:
        names = (folder / LEDGER).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: number for number, name in enumerate(names)}


def is_drawn(folder: Path) -> bool:
    """Whether edge-ad drew the pictures in a folder."""
    return folder.name in claims(folder.parent)


class ResultFolder:
    """Makes the folder and keeps other runs out of it while this one lasts, also when somebody takes it away meanwhile.

    Args:
        path: the folder.
        say: receives what the user should know.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.path = path
        self._say = Seldom(say)
        self._ledger: IO[bytes] | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edge-ad-folder", daemon=True)

    def __enter__(self) -> ResultFolder:
        """Raises: OutputError when the folder cannot be made; OutputUnavailableError when that may pass, or another
        run writes to it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._ledger = _locked(self.path / LEDGER)
            self._folder = HeldFolder(self.path)
        except BlockingIOError as exc:
            raise OutputUnavailableError(f"{self.path}: another run is writing here; choose another --output") from exc
        except OSError as exc:
            kind = OutputUnavailableError if may_pass(exc) else OutputError
            raise kind(f"output folder {self.path}: cannot be written: {os_reason(exc)}") from exc
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Lock the folder anew, and name there what was named before, if somebody has taken folder or file away."""
        ledger = self._ledger
        if ledger is None or HeldName(self.path / LEDGER, ledger.fileno()).standing == "there":
            return
        try:
            self._folder.restore()
            fresh = _locked(self.path / LEDGER)
        except BlockingIOError:
            self._say(f"warning: {self.path}: another run writes here, since somebody has taken this one's folder away")
            return
        except (OutputError, OSError):
            return  # the sinks say why, and what becomes of their records
        with suppress(OSError):
            ledger.seek(0)
            fresh.seek(0)
            fresh.write(ledger.read() + fresh.read())
            fresh.flush()
        ledger.close()
        self._ledger = fresh

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        # The file stays: a lock on a name that comes and goes can be held by two.
        if self._ledger is not None:
            self._ledger.close()
        self._folder.close()


def _locked(path: Path) -> IO[bytes]:
    """Raises: BlockingIOError when another process holds it; OSError."""
    file = path.open("a+b")
    try:
        _lock(file)
    except BaseException:
        file.close()
        raise
    return file


def _lock(file: IO[bytes]) -> None:
    """Lock a file where the system and its file system can. Raises: BlockingIOError when another process holds it."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if isinstance(exc, BlockingIOError):
            raise
