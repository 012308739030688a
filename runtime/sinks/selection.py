"""Which frames get a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Which = Literal["all", "rejects", "sample"]


@dataclass(frozen=True)
class Selection:
    """`all` frames; `rejects`, the anomalous ones; or `sample`, the rejects and a share of the others.

    Attributes:
        rate: that share, 0 to 1.
        seed: another one draws other frames; the same draws the same, whenever and wherever it is asked.
    """

    which: Which = "all"
    rate: float = 0.0
    seed: int = 0

    def takes(self, entry: Mapping[str, Any]) -> bool:
        """Whether the frame of a record gets a picture."""
        if self.which == "all" or is_reject(entry):
            return True
        if self.which == "rejects":
            return False
        drawn = hashlib.blake2b(f"{self.seed}:{entry['frame_id']}:{entry['source']}".encode("utf-8", "replace"))
        return int.from_bytes(drawn.digest()[:7], "big") < self.rate * (1 << 56)


def is_reject(entry: Mapping[str, Any]) -> bool:
    """Whether a record says that its frame is anomalous."""
    return entry.get("verdict") == "anomalous"
