"""One camera of a line: its source and the rules for its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edge_ad.bundle.specs import Thresholds
from edge_ad.errors import ConfigError
from edge_ad.image.frame import Box, FrameSource
from edge_ad.image.inspected import Inspector
from edge_ad.runtime.line.scheduling.trigger import EVERY_FRAME, Software, Trigger

Buffer = Literal["auto", "every_frame", "freshest"]
BUFFERS: tuple[str, ...] = get_args(Buffer)


@dataclass(frozen=True)
class Lane:
    """One source of a line and how its frames are treated.

    Attributes:
        source: opened by the caller.
        name: what its records call it; no two lanes of a line have the same.
        buffer: `freshest` judges the newest frame and skips those that it replaces, `every_frame` judges all and lets
            the source wait; `auto` is the first for live sources, the second for those that wait.
        budget_ms: time from capture to verdict; None for no deadline.
        thresholds: in place of the detector's.
        vid_stride: every so many-th frame is captured.
        max_fps: frames captured per second at most.
        max_frames: captured frames after which the lane ends.
        silence_s: seconds without a frame after which a live source is reported as silent; None never does.
        roi: the part of the frame that is judged, in frame pixels; None for what is inspected.
        inspector: looks at its frames, in place of the bundle's.
        trigger: what makes a frame be captured.
    """

    source: FrameSource
    name: str
    buffer: Buffer = "auto"
    budget_ms: float | None = None
    thresholds: Thresholds | None = None
    vid_stride: int = 1
    max_fps: float | None = None
    max_frames: int | None = None
    silence_s: float | None = None
    roi: Box | None = None
    inspector: Inspector | None = None
    trigger: Trigger = EVERY_FRAME

    @property
    def live(self) -> bool:
        return self.source.live

    @property
    def freshest(self) -> bool:
        """Whether a newer frame takes the place of one that waits.

        Raises: ConfigError when that is asked of a source of which no frame may be dropped.
        """
        if self.buffer == "freshest" and not self.live:
            raise ConfigError("buffer", [f"{self.name} waits to be read, so none of its frames is dropped; use auto"])
        if self.buffer == "freshest" and isinstance(self.trigger, Software):
            raise ConfigError(
                "buffer", [f"{self.name}: the frame of a trigger is never replaced by that of the next; use auto"]
            )
        return self.live and self.buffer != "every_frame" and not isinstance(self.trigger, Software)

    @property
    def budget_ns(self) -> int | None:
        return None if self.budget_ms is None else round(self.budget_ms * 1e6)
