"""The wall clock of a soak, which faults set wrong; cameras date their frames by it, and sinks tell ages by it."""

from __future__ import annotations

import random
import time
from datetime import datetime, timezone

DAY_S = 86400.0
JUMPS_S = (3650 * DAY_S, 200 * DAY_S, 2 * DAY_S, 3600.0, -3600.0, -2 * DAY_S, -400 * DAY_S, -19000 * DAY_S)


class WrongClock:
    """The clock of the machine, and what is wrong with it. Attributes: wrong_s: seconds that are added to it."""

    def __init__(self) -> None:
        self.wrong_s = 0.0

    def now_s(self) -> float:
        """Seconds since 1970."""
        return time.time() + self.wrong_s

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s(), timezone.utc)

    def jump(self, dice: random.Random) -> None:
        self.wrong_s = dice.choice(JUMPS_S)

    def set_right(self) -> None:
        self.wrong_s = 0.0
