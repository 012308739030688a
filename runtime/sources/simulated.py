"""A simulated production line with known defects, for demonstrations, tests and load.

`sim:?fps=60&size=1920x1080&defects=0.1&seed=1&frames=200`; every key may be left out.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import unquote

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.text import without_secrets

if TYPE_CHECKING:
    from edge_ad.runtime.sources.sim_scene import Scene

_SIDES = (64, 8192)
_MOST_FPS = 1000.0
_LARGEST_SEED = 2**63 - 1
_NUMBER = re.compile(r"[0-9]{1,19}(\.[0-9]{1,19})?(e-?[0-9]{1,2})?", re.IGNORECASE)


@dataclass(frozen=True)
class LineSpec:
    """What a simulated line is asked for.

    Attributes:
        fps: frames per second by the clock; None for frames as fast as they are read.
        width, height: of a frame, pixels, 64 to 8192 each.
        defects: probability that a part is defective, 0 to 1.
        seed: which line; the same seed gives the same frames.
        frames: how many frames there are; None for no end.
    """

    fps: float | None = None
    width: int = 1280
    height: int = 720
    defects: float = 0.1
    seed: int = 0
    frames: int | None = None


class SimulatedLine:
    """One machined part per frame in the middle of the picture, on a belt.

    The picture of frame k depends on seed, size and k alone. With `fps` the line is live: frame k is due k / fps
    seconds after frame 0 was read, and a reader that is late gets it at once.

    Args:
        spec: what is simulated.
        name: what the user asked for.
        now_ns: monotonic clock, nanoseconds.
    """

    def __init__(self, spec: LineSpec, name: str = "sim:", *, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.name = name
        self.spec = spec
        self.live = spec.fps is not None
        self.length = spec.frames
        self._now_ns = now_ns
        self._closed = threading.Event()
        self._scene: Scene | None = None
        self._next_id = 0
        self._start_ns = 0

    @classmethod
    def from_uri(cls, uri: str) -> SimulatedLine:
        """The line of a `sim:` URI. Raises: SourceError naming all that is wrong with it."""
        return cls(parse_line(uri), uri)

    def __enter__(self) -> SimulatedLine:
        """Paint the scenery, which takes about a second for a large frame."""
        from edge_ad.runtime.sources.sim_scene import Scene

        self._scene = Scene(self.spec.width, self.spec.height, self.spec.seed)
        self._next_id = 0
        self._closed.clear()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close; a `read` that is waiting in another thread returns None."""
        self._closed.set()
        self._scene = None

    def read(self) -> Frame | None:
        """Next frame as (H, W, 3) uint8 BGR with its truth, or None behind the last or when closed.

        A live frame is painted before it is due, so that its deadline does not pay for the painting.
        """
        scene, frame_id = self._scene, self._next_id
        if scene is None or frame_id == self.spec.frames:
            return None
        self._next_id += 1
        began_ns = time.monotonic_ns()
        image, truth = scene.paint(frame_id, self.spec.defects)
        decode_ms = (time.monotonic_ns() - began_ns) / 1e6
        if self.spec.fps is not None and self._is_closed_before(frame_id / self.spec.fps, frame_id):
            return None
        return Frame(
            frame_id=frame_id,
            source=self.name,
            captured_at=datetime.now(timezone.utc),
            captured_ns=self._now_ns(),
            image_hwc=image,
            color_order="bgr",
            decode_ms=decode_ms,
            truth=truth,
        )

    def _is_closed_before(self, due_s: float, frame_id: int) -> bool:
        if frame_id == 0:
            self._start_ns = self._now_ns()
        wait_s = due_s - (self._now_ns() - self._start_ns) / 1e9
        return self._closed.wait(wait_s) if wait_s > 0 else self._closed.is_set()


def parse_line(uri: str) -> LineSpec:
    """What a `sim:` URI asks for.

    Raises:
        SourceError: one line with every unknown key, bad number and value out of range.
    """
    query, shown = uri[len("sim:") :], without_secrets(uri)
    if query not in ("", "?") and not query.startswith("?"):
        raise SourceError(f"{shown!r}: wanted sim:?key=value&key=value; put a '?' behind 'sim:'")
    values: dict[str, object] = {}
    faults: list[str] = []
    for pair in filter(None, query[1:].split("&")):
        key, _, raw = (unquote(part) for part in pair.partition("="))
        if key not in _KEYS:
            faults.append(f"unknown key {key!r} (known: {', '.join(_KEYS)})")
            continue
        wanted, parse = _KEYS[key]
        parsed = parse(raw)
        if parsed is None:
            faults.append(f"{key}: wanted {wanted}, got {raw!r}")
        elif parsed.keys() & values.keys():
            faults.append(f"{key}: given twice")
        else:
            values |= parsed
    if faults:
        raise SourceError(f"{shown!r}: " + "; ".join(faults))
    return LineSpec(**values)  # type: ignore[arg-type]  # each parser yields the type of its field


def _fps(raw: str) -> dict[str, object] | None:
    value = float(raw) if _NUMBER.fullmatch(raw) else 0.0
    return {"fps": value} if 0.001 <= value <= _MOST_FPS else None


def _size(raw: str) -> dict[str, object] | None:
    sides = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", raw)
    if sides is None:
        return None
    width, height = int(sides.group(1)), int(sides.group(2))
    low, high = _SIDES
    return {"width": width, "height": height} if low <= min(width, height) and max(width, height) <= high else None


def _defects(raw: str) -> dict[str, object] | None:
    value = float(raw) if _NUMBER.fullmatch(raw) else -1.0
    return {"defects": value} if 0 <= value <= 1 else None


def _seed(raw: str) -> dict[str, object] | None:
    valid = re.fullmatch(r"[0-9]{1,19}", raw) is not None and int(raw) <= _LARGEST_SEED
    return {"seed": int(raw)} if valid else None


def _frames(raw: str) -> dict[str, object] | None:
    valid = re.fullmatch(r"[0-9]{1,12}", raw) is not None and int(raw) > 0
    return {"frames": int(raw)} if valid else None


_KEYS: dict[str, tuple[str, Callable[[str], dict[str, object] | None]]] = {
    "fps": (f"frames per second of 0.001 to {_MOST_FPS:g}", _fps),
    "size": (f"WIDTHxHEIGHT with sides of {_SIDES[0]} to {_SIDES[1]}", _size),
    "defects": ("a probability of 0 to 1", _defects),
    "seed": (f"an integer of 0 to {_LARGEST_SEED}", _seed),
    "frames": ("an integer of 1 or more", _frames),
}
