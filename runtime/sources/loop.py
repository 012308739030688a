"""Videos and pictures that begin again at their end."""

from __future__ import annotations

from dataclasses import replace

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame, FrameSource


class Looping:
    """A source that is opened again at its end, for ever. Frame numbers go on counting.

    Attributes:
        name: of the source.
        live: False; a live source has no end.
        length: None, for it has no end either.
    """

    live = False
    length: int | None = None

    def __init__(self, source: FrameSource) -> None:
        self.name = source.name
        self._source = source
        self._next_id = 0
        self._round_began_at = 0
        self._open = False

    def __enter__(self) -> Looping:
        self._source.__enter__()
        self._open = True
        self._next_id = self._round_began_at = 0
        return self

    def __exit__(self, *exc_info: object) -> None:
        was_open, self._open = self._open, False
        if was_open:
            self._source.__exit__(*exc_info)

    def read(self) -> Frame | None:
        """Next frame, the first behind the last; None when closed.

        Raises: SourceError when the source does not open again, or a round of it gave no frame.
        """
        if not self._open:
            return None
        frame = self._source.read()
        if frame is None and self._open:  # not closed meanwhile by another thread
            if self._next_id == self._round_began_at:
                raise SourceError(f"{self.name}: gives no frame any more; look whether the file was changed")
            self._round_began_at = self._next_id
            self._open = False
            self._source.__exit__(None, None, None)
            self._source.__enter__()
            self._open = True
            frame = self._source.read()
        if frame is None:
            return None
        number, self._next_id = self._next_id, self._next_id + 1
        return frame if frame.frame_id == number else replace(frame, frame_id=number)
