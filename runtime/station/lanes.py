"""Sources and lanes of a line from its settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edge_ad.bundle.bundle import Bundle
from edge_ad.image.frame import FrameSource
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.thresholds import InUse
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.station.inspecting import inspector_for
from edge_ad.runtime.station.settings import LineSettings


def open_sources(settings: LineSettings) -> list[FrameSource]:
    """The sources of all cameras, not entered yet. Raises: SourceError."""
    return [open_source(camera.source, camera) for camera in settings.cameras]


def make_lanes(
    settings: LineSettings, sources: Sequence[FrameSource], in_use: Sequence[InUse], bundle: Bundle
) -> list[Lane]:
    """The lanes of all cameras. Raises: ImageError, ConfigError for what one of them is to inspect.

    Cameras without a name of their own get that of their source; what tells two of those apart may be a secret, which
    names leave out, so they are numbered.
    """
    lanes: list[Lane] = []
    seen = Counter(camera.name for camera in settings.cameras if camera.name is not None)
    for camera, source, use in zip(settings.cameras, sources, in_use, strict=True):
        name = camera.name
        while name is None:
            seen[source.name] += 1
            numbered = source.name if seen[source.name] == 1 else f"{source.name} ({seen[source.name]})"
            name = numbered if numbered == source.name or not seen[numbered] else None
        lane = Lane(
            source,
            name,
            buffer=camera.buffer,
            budget_ms=camera.budget_ms,
            thresholds=use.thresholds if use.origin == "camera" else None,
            vid_stride=camera.vid_stride,
            max_fps=camera.max_fps,
            max_frames=camera.max_frames,
            silence_s=camera.silence_s,
            roi=camera.roi,
            inspector=inspector_for(camera, bundle),
            trigger=camera.rule,
        )
        lanes.append(lane)
    return lanes
