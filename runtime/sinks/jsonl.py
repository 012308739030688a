"""Records as lines of JSON, to files or to standard output."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_ad.errors import OutputError, os_reason
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict, record_line
from edge_ad.runtime.host.held import HeldFolder, Standing
from edge_ad.runtime.host.messages import Seldom
from edge_ad.runtime.host.results import LEDGER, RECORDS, claim
from edge_ad.runtime.sinks import output_folder, set_aside
from edge_ad.runtime.sinks.line_file import LineFile
from edge_ad.runtime.sinks.rotation import Rotation
from edge_ad.runtime.sinks.standard_output import StandardOutput
from edge_ad.runtime.sinks.syncing import Flusher, SyncPolicy

ATTEMPTS = 3  # to write a line into a file that somebody removes meanwhile


class JsonLines:
    """One line for each frame, handed to the system as soon as it is judged.

    The file that is written has always the same name. One that is there from an earlier run, or that is full, keeps its
    lines under a name with its date. When somebody removes, renames, replaces or empties it, a new one is begun, and
    the lines that nobody finds any more are `gone`.

    Args:
        folder: `verdicts.jsonl` is written here; None writes to standard output.
        rotation: when a file is full, and how many full ones are kept.
        sync: guard against power cuts.
        say: receives what the user should know, one line each.
    """

    keeps_records = True

    def __init__(
        self,
        folder: Path | None,
        rotation: Rotation | None = None,
        sync: SyncPolicy | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = None if folder is None else folder / RECORDS
        self._rotation = rotation or Rotation()
        self._sync = sync or SyncPolicy()
        self._say = say
        self._say_seldom = Seldom(say)
        self._folder: HeldFolder | None = None
        self._file: LineFile | None = None
        self._full: dict[Path, int] = {}  # lines of this run in full files
        self._gone = 0
        self._stdout = StandardOutput()
        interval_s = None if folder is None else self._sync.interval_s
        self._flusher = Flusher(interval_s, self._flush, self.path, say, "edge-ad-records-sync")

    def __enter__(self) -> JsonLines:
        if self.path is None:
            self._stdout.check()
            return self
        output_folder(self.path.parent)
        with self._named_errors():
            self._folder = HeldFolder(self.path.parent)
            set_aside(self.path, self._note)
            self._file = LineFile(self.path)
            self._clean(self.path)
        self._flusher.__enter__()
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self.event(entry)

    def event(self, entry: Mapping[str, Any]) -> None:
        """Write what happened between frames as a line of its own.

        Raises: OutputError; then no part of it stays in a file; standard output gets the rest with the next attempt.
        """
        data = (record_line(entry) + "\n").encode("ascii")
        with self._named_errors():
            if self.path is None:
                self._stdout.append(data)
                return
            for _ in range(ATTEMPTS):
                self._standing(self.path)  # before, too: who has moved it may be compressing it by now
                file = self._writable(self.path, len(data))
                file.append(data, flush=self._sync.every_record)
                if self._standing(self.path, writing=1) != "removed":
                    return
        raise OutputError(f"{self.path}: is removed again and again")

    def look(self) -> None:
        """Notice what somebody else did to the file, and begin a new one where there is none. Raises: OutputError."""
        if self.path is not None:
            with self._named_errors():
                self._standing(self.path)
                self._restore_folder(self.path)
                if self._file is None:
                    self._begin(self.path)

    def written_off(self) -> Mapping[str, int]:
        """Lines that somebody took away since this was last asked."""
        gone, self._gone = self._gone, 0
        return {"gone": gone}

    def _writable(self, path: Path, more_bytes: int) -> LineFile:
        file = self._file
        if file is not None and self._rotation.is_full(file, more_bytes):
            self._end_file(flush=self._sync.interval_s is not None)
            full = set_aside(path, self._note)
            # Of those that are not there any more, somebody has made use.
            self._full = {one: lines for one, lines in self._full.items() if one.exists()}
            if full is not None:
                self._full[full] = file.lines
        return self._file or self._begin(path)

    def _begin(self, path: Path) -> LineFile:
        """A file of that name for the next lines; one that somebody put there meanwhile is set aside, unless empty."""
        self._restore_folder(path)
        try:
            found = path.lstat()
            is_empty = stat.S_ISREG(found.st_mode) and found.st_size == 0
        except FileNotFoundError:
            is_empty = False
        if not is_empty:
            set_aside(path, self._note)
        self._file = LineFile(path, adopt=is_empty)
        self._clean(path)
        return self._file

    def _restore_folder(self, path: Path) -> None:
        """Raises: OutputError."""
        assert self._folder is not None
        if self._folder.restore() == "removed":
            gone = sum(lines for full, lines in self._full.items() if not full.exists())
            self._full = {}
            self._gone += gone
            more = f"; records lost in full files: {gone}" if gone else ""
            self._say_seldom(f"warning: {path.parent}: somebody has removed it, and it is made again{more}")

    def _standing(self, path: Path, *, writing: int = 0) -> Standing:
        """What somebody else did to the file since the last time; it is left behind unless it is there.

        Args: writing: lines that were just written, and are no loss where they are in a file that was removed.
        """
        file = self._file
        if file is None:
            return "there"
        cut = file.notice_cut()
        if cut is not None:
            self._gone += cut
            what = _lost(cut)
            self._say_seldom(f"{what[0]}{path}: somebody has truncated it: {what[1]}")
        standing = file.standing
        if standing == "there":
            return standing
        if standing == "removed":
            gone = max(0, file.lines - writing - file.lines_copied())
            self._gone += gone
            what = _lost(gone)
            self._say_seldom(f"{what[0]}{path}: somebody has removed or replaced it: {what[1]}; a new one is begun")
        else:
            self._say_seldom(f"{path}: somebody has moved it to {file.now_at or 'another name'}; a new one is begun")
        try:
            self._end_file(flush=self._sync.interval_s is not None and standing == "renamed")
        except OSError as exc:
            self._say_seldom(f"warning: {path}: what was moved away cannot be flushed: {os_reason(exc)}")
        return standing

    def _end_file(self, *, flush: bool) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close(flush=flush)

    def _note(self, full: Path) -> None:
        """Note that a file is older than those that come after it, where files are deleted by age."""
        if self._rotation.deletes or (full.parent / LEDGER).exists():
            claim(full)

    def _clean(self, path: Path) -> None:
        self._rotation.clean(path, self._say)

    def _flush(self) -> None:
        file = self._file  # a full one is closed meanwhile, flushed
        if file is not None:
            file.flush()

    def _named_errors(self) -> _NamedErrors:
        return _NamedErrors(str(self.path or "standard output"))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._flusher.__exit__(None, None, None)
        with self._named_errors():
            self._end_file(flush=self._sync.interval_s is not None)
        if self._folder is not None:
            self._folder.close()


def _lost(count: int) -> tuple[str, str]:
    """How to begin and end a line about records that somebody took away."""
    if count:
        return "warning: ", f"records lost: {count}"
    return "", "its records are in a copy beside it"


class _NamedErrors:
    """Names the file in what the system says about it; a closed pipe goes through as it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(exc, OSError) and not isinstance(exc, BrokenPipeError):
            raise OutputError(f"{self._name}: cannot be written: {os_reason(exc)}") from exc
