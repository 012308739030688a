"""The account of a sink."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SinkCounts:
    """Records of one sink.

    Attributes:
        name: its label, or else its class.
        taken: records that it was to write.
        delivered: records that it wrote.
        lost: records that it should have kept and could not, and those that are gone.
        dropped: pictures that it was spared, or failed on.
        waiting: records in its queue.
        failures: writes that failed.
        gone: records that were delivered until somebody else took their file away; those of them that had to be kept
            are among the lost ones, pictures among the dropped ones.
        expired: records and pictures of any run that were deleted as the settings say; they stay delivered.
    """

    name: str
    taken: int = 0
    delivered: int = 0
    lost: int = 0
    dropped: int = 0
    waiting: int = 0
    failures: int = 0
    gone: int = 0
    expired: int = 0

    @property
    def adds_up(self) -> bool:
        return self.taken == self.delivered + self.lost + self.dropped + self.waiting
