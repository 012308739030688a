"""Signals at a run that has not begun yet."""

from __future__ import annotations

import os
import signal
import time
from importlib import resources
from pathlib import Path

import pytest

from edge_ad.image.frame import Frame
from edge_ad.runtime.station import lanes as lanes_module
from edge_ad.runtime.station.file import run_options
from edge_ad.runtime.station.run import run


class Unreachable:
    """A camera whose opening takes for ever; the system asks the process to end meanwhile."""

    name, live, length = "unreachable", True, None

    def __init__(self, number: int) -> None:
        self.number = number
        self.gave_up = self.closed = False

    def __enter__(self) -> Unreachable:
        os.kill(os.getpid(), self.number)
        time.sleep(60)
        self.gave_up = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closed = True

    def read(self) -> Frame | None:
        return None


@pytest.mark.usefixtures("heard_interrupts")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_ends_at_once_while_a_source_is_being_opened(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = Unreachable(number)
    monkeypatch.setattr(lanes_module, "open_source", lambda *_: source)
    bundle = Path(str(resources.files("edge_ad.demo") / "disc.edgead"))
    values = {"bundle": bundle, "source": "unreachable", "engine": "fake", "output": tmp_path / "out"}
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run(run_options(values, "test"), say=lambda _: None)
    assert not source.gave_up
    assert not (tmp_path / "out").exists()
    assert signal.getsignal(number) is before
