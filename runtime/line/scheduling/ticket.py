"""A captured frame on its way to its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict


@dataclass(eq=False, slots=True)
class Ticket:
    """One captured frame.

    Attributes:
        lane: number of its lane.
        frame: without its picture once it is settled and nobody needs that.
        deadline_ns: by the monotonic clock; None without a budget.
        may_skip: whether it is left out when it cannot be judged in time.
        is_probe: judged although the forecast says that it will be late, to see whether the forecast is right.
        arrived_ns: when the line got it, by the monotonic clock; None for at once.
        settled: verdict and record, once there are any.
    """

    lane: int
    frame: Frame
    deadline_ns: int | None = None
    may_skip: bool = False
    is_probe: bool = False
    arrived_ns: int | None = None
    settled: tuple[Verdict, dict[str, Any]] | None = field(default=None, repr=False)
