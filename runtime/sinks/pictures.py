"""Masks and overlays of judged frames, as files."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import OutputError, one_line, os_reason
from edge_ad.image.frame import Frame, ImageArray
from edge_ad.image.geometry import FrameGeometry
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.host.held import HeldFolder
from edge_ad.runtime.host.messages import Seldom
from edge_ad.runtime.host.opencv import load_cv2
from edge_ad.runtime.host.results import claim, is_drawn
from edge_ad.runtime.sinks import OnePictureError, output_folder, set_aside
from edge_ad.runtime.sinks.ages import Clocks
from edge_ad.runtime.sinks.naming import NAME_BYTES, file_name, fitting_name, longest_name
from edge_ad.runtime.sinks.retention import Limits, Retention
from edge_ad.runtime.sinks.selection import Selection, is_reject

log = logging.getLogger(__name__)

BOX_BGR = (60, 60, 255)
INSPECTED_BGR = (200, 200, 200)
LABEL_BGR = {"anomalous": (60, 60, 255), "normal": (80, 200, 80), None: (220, 220, 220)}
HEAT_OPACITY = 0.45
_OF_ITS_NAME = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})

LARGEST_OVERLAY = 16e6  # pixels; overlays are looked at, and one of a 66 megapixel frame takes 0.4 GB to draw
LONGEST_EDGE = 16_384  # pixels; JPEG ends at 65,535, and viewers before that


class PictureFiles:
    """Writes one picture for each judged frame as `<folder>/<frame_id>_<name of the file>.<suffix>`.

    A name that is too long for the folder or no UTF-8 is changed (`naming.fitting_name`).

    Args:
        folder: made when the run starts; one from an earlier run keeps its pictures under a name with its date.
        suffix: `.png` or `.jpg`.
        draw: makes the picture, BGR or grey, from frame and verdict.
        selection: which frames get one; all by default.
        limits: when pictures are deleted; never by default.
        several: put the source in front of the name, for frames of several sources.
        say: receives what the user should know.
        clocks: by which pictures become old.

    Attributes:
        label: what the kind of picture is called.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        draw: Callable[[Frame, Verdict], NDArray[np.uint8]],
        selection: Selection | None = None,
        limits: Limits | None = None,
        *,
        several: bool = False,
        say: Callable[[str], None] = lambda _: None,
        clocks: Clocks | None = None,
    ) -> None:
        self.folder = folder
        self.label = folder.name
        self._suffix = suffix
        self._draw = draw
        self._selection = selection or Selection()
        self._retention = None if limits is None or limits == Limits() else Retention(folder, limits, say, clocks)
        self._several = several
        self._scratch = folder / f".writing{suffix}"
        self._say = Seldom(say)
        self._above: HeldFolder | None = None
        self._held: HeldFolder | None = None
        self._written = self._gone = 0
        self._name_bytes = NAME_BYTES

    def __enter__(self) -> PictureFiles:
        output_folder(self.folder.parent)
        if self._retention is not None:
            self._retention.__enter__()
        try:
            if self.folder.exists() and any(self.folder.iterdir()) and not is_drawn(self.folder):
                raise OutputError(f"{self.folder} exists and is not edge-ad's; choose another --output")
            moved = set_aside(self.folder)
            if moved is not None:
                claim(moved)
                if self._retention is not None:
                    self._retention.moved(moved.name)
            claim(self.folder)
            self._name_bytes = longest_name(output_folder(self.folder))
            self._above, self._held = HeldFolder(self.folder.parent), HeldFolder(self.folder)
        except OSError as exc:
            self._close()
            raise OutputError(f"{self.folder}: results of an earlier run cannot be moved: {os_reason(exc)}") from exc
        except BaseException:
            self._close()
            raise
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        """Raises: OnePictureError for a picture that cannot be drawn, encoded or named; else OutputError."""
        if verdict.maps is None or not self._selection.takes(entry):
            return
        stem = f"_{Path(frame.path).stem}" if frame.path else ""
        source = f"{file_name(frame.source)}_" if self._several else ""
        stem = f"{source}{frame.frame_id:06d}{stem}"
        path = self.folder / fitting_name(stem, self._suffix, self._name_bytes)
        if self._several and path.exists():  # two sources may go by the same name
            path = self.folder / fitting_name(f"{stem}-{frame.captured_ns}", self._suffix, self._name_bytes)
        data = self._drawn(path, frame, verdict)
        self.look()
        if self._retention is None:
            self._put(path, data)
        else:
            with self._retention.room(path.name, len(data), reject=is_reject(entry)):
                self._put(path, data)
        self._written += 1

    def look(self) -> None:
        """Notice that somebody has taken the folder away, and make it again. Raises: OutputError."""
        assert self._above is not None and self._held is not None
        self._above.restore()
        standing = self._held.restore()
        if standing != "there":
            gone, self._written = self._written if standing == "removed" else 0, 0
            self._gone += gone
            what = "removed it" if standing == "removed" else "moved it"
            self._say(f"warning: {self.folder}: somebody has {what}; it is made again; pictures lost: {gone}")
        if not is_drawn(self.folder):
            try:
                claim(self.folder)
            except OSError as exc:
                raise OutputError(f"{self.folder}: cannot be written: {os_reason(exc)}") from exc
        if self._retention is not None:
            self._retention.restore()

    def written_off(self) -> Mapping[str, int]:
        """Pictures that somebody took away, and that were deleted for quota or age, since this was last asked."""
        expired = 0 if self._retention is None else self._retention.deleted()
        self._written = max(self._written - expired, 0)
        counts, self._gone = {"gone": self._gone, "expired": expired}, 0
        return counts

    def _drawn(self, path: Path, frame: Frame, verdict: Verdict) -> bytes:
        try:
            good, data = load_cv2().imencode(self._suffix, self._draw(frame, verdict))
        except Exception as exc:  # of a shape or size that nobody has thought of
            log.error("picture %s", path.name, exc_info=exc, extra={"camera": frame.source, "frame_id": frame.frame_id})
            raise OnePictureError(f"{path}: cannot be drawn: {one_line(exc)}") from exc
        if not good:
            height, width = verdict.maps.geometry.frame_hw if verdict.maps is not None else (0, 0)
            raise OnePictureError(f"{path}: a picture of {width}x{height} pixels cannot be encoded")
        return bytes(data)

    def _put(self, path: Path, data: bytes) -> None:
        """Half a picture is never seen: a killed run leaves one hidden file at most."""
        try:
            self._scratch.write_bytes(data)
            self._scratch.replace(path)
        except OSError as exc:
            with suppress(OSError):
                self._scratch.unlink(missing_ok=True)
            kind = OnePictureError if exc.errno in _OF_ITS_NAME else OutputError
            raise kind(f"{path}: cannot be written: {os_reason(exc)}") from exc

    def _close(self) -> None:
        if self._retention is not None:
            self._retention.__exit__(None, None, None)
        for held in (self._above, self._held):
            if held is not None:
                held.close()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()


def draw_mask(frame: Frame, verdict: Verdict) -> NDArray[np.uint8]:
    """(H, W) uint8 of the frame's size: 255 where it is anomalous."""
    return verdict.mask_frame


def draw_overlay(frame: Frame, verdict: Verdict) -> ImageArray:
    """The frame with its anomaly map, regions, inspected box and score: (H, W, 3) uint8 BGR.

    A frame of more than `LARGEST_OVERLAY` pixels, or an edge longer than `LONGEST_EDGE`, is drawn smaller.
    """
    cv2 = load_cv2()
    assert frame.image_hwc is not None and verdict.maps is not None
    height, width = frame.image_hwc.shape[:2]
    factor = max(1.0, (height * width / LARGEST_OVERLAY) ** 0.5, max(height, width) / LONGEST_EDGE)
    geometry = verdict.maps.geometry
    if factor > 1:
        geometry = geometry.reduced(factor)
        picture: ImageArray = cv2.resize(frame.image_hwc, geometry.frame_hw[::-1], interpolation=cv2.INTER_AREA)
    else:
        picture = frame.image_hwc.copy()
    if frame.color_order == "rgb":
        cv2.cvtColor(picture, cv2.COLOR_RGB2BGR, dst=picture)
    x_min, y_min, x_max, y_max = geometry.inspected_box
    _colour(picture[:, x_min:x_max], verdict, geometry)
    stroke = max(1, round(min(picture.shape[:2]) / 300))
    cv2.rectangle(picture, (x_min, y_min), (x_max - 1, y_max - 1), INSPECTED_BGR, stroke)
    for region in verdict.regions:
        left, top, right, bottom = (round(edge / factor) for edge in region.box_xyxy)
        cv2.rectangle(picture, (left, top), (max(left, right - 1), max(top, bottom - 1)), BOX_BGR, 2 * stroke)
    _write_label(picture, verdict, stroke)
    return picture


def _colour(picture: ImageArray, verdict: Verdict, geometry: FrameGeometry) -> None:
    """Lay the anomaly map over the inspected columns of a picture, strip by strip: whole copies of floats are large."""
    cv2, maps = load_cv2(), verdict.maps
    assert maps is not None
    frame_map = maps.in_frame(geometry)
    counted = geometry.counted_pixels()
    if counted is not None:
        counted = counted[:, geometry.inspected_box[0] : geometry.inspected_box[2]]
    low, high = _heat_range((values for _, values in frame_map.strips(maps.carried)), verdict.threshold)
    for top, values in frame_map.strips(maps.carried):
        heat = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
        colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
        if counted is not None:
            heat *= counted[top : top + len(values)]
        opacity = (HEAT_OPACITY * heat)[..., None]
        part = picture[top : top + len(values)]
        part[:] = (part * (1 - opacity) + colours * opacity).astype(np.uint8)


def _heat_range(strips: Iterable[NDArray[np.float32]], threshold: float | None) -> tuple[float, float]:
    """Anomaly values that are drawn as no heat and as full heat: half the threshold below and above it.

    Without a threshold, or with one of 0, the range of the map itself is used.
    """
    if threshold:
        return threshold - abs(threshold) / 2, threshold + abs(threshold) / 2
    ranges = [(float(values.min()), float(values.max())) for values in strips]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _write_label(picture: ImageArray, verdict: Verdict, width: int) -> None:
    cv2 = load_cv2()
    text = f"{verdict.verdict or verdict.status}  {verdict.score:.3f}"
    if verdict.threshold is not None:
        text += f"  (threshold {verdict.threshold:.3f})"
    scale = min(picture.shape[:2]) / 700
    origin = (round(14 * scale), round(30 * scale))
    for colour, stroke in (((0, 0, 0), 4 * width), (LABEL_BGR[verdict.verdict], width + 1)):
        cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, stroke, cv2.LINE_AA)


PICTURES: dict[str, tuple[str, Callable[[Frame, Verdict], NDArray[np.uint8]]]] = {
    "masks": (".png", draw_mask),
    "overlays": (".jpg", draw_overlay),
}
"""Suffix and drawing of each kind of picture by the name that the user gives it; also the name of its folder."""
