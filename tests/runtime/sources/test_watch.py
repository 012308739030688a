"""Pictures that arrive in a folder while it is watched: each once, in order, and only when it is complete."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.runtime.sources import open_source, watch
from edge_ad.runtime.sources.outage import Lost, Outage, Returned
from edge_ad.runtime.sources.reconnect import Reconnecting
from edge_ad.runtime.sources.settings import SourceSettings
from edge_ad.runtime.sources.watch import WatchedFolder

PATIENCE_S = 10


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Watch:
    """A watched folder on a clock that is moved by hand: `found` says what is complete after so many seconds."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.source = WatchedFolder(str(folder), now_s=self.clock)
        self.source.__enter__()

    def found(self, seconds: float) -> list[Frame]:
        """Let time pass in steps of a look. Returns: the frames that came."""
        frames = []
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s += watch.POLL_S
            self.source._look()
            while self.source._ready:
                frame = self.source._taken(self.source._ready.popleft())
                frames += [] if frame is None else [frame]
        return frames

    def names(self, seconds: float) -> list[str]:
        return [Path(str(frame.path)).name for frame in self.found(seconds)]


def encoded(level: int, form: str = "PNG") -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(level).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, form)
    return data.getvalue()


def put(path: Path, level: int, at_s: float | None = None) -> None:
    path.write_bytes(encoded(level))
    if at_s is not None:
        os.utime(path, (at_s, at_s))


def test_what_is_there_comes_first_then_what_arrives_each_once(tmp_path: Path) -> None:
    for name, at_s in (("b.png", 1000), ("a10.png", 2000), ("a9.png", 2000)):
        put(tmp_path / name, 1, at_s)
    folder = Watch(tmp_path)
    assert folder.names(1) == ["b.png", "a9.png", "a10.png"]  # by time of change, then by name
    assert folder.names(1) == []
    (tmp_path / "sub").mkdir()
    put(tmp_path / "sub" / "z.png", 2)
    put(tmp_path / ".hidden.png", 2)
    (tmp_path / "notes.txt").write_text("no picture")
    frames = folder.found(1)
    assert [frame.path for frame in frames] == [str(tmp_path / "sub" / "z.png")]
    assert frames[0].frame_id == 3 and frames[0].color_order == "rgb" and frames[0].error is None
    assert folder.names(30) == []


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF"])
def test_a_picture_in_writing_is_no_error_however_often_the_writer_rests(tmp_path: Path, form: str) -> None:
    data = encoded(3, form)
    path = tmp_path / f"slow.{form.lower()}"
    folder = Watch(tmp_path)
    for end in (0, 1, 30, len(data) // 2, 9 * len(data) // 10):
        path.write_bytes(data[:end])
        assert folder.found(5) == []  # shorter than what counts as damage, longer than what counts as settled
    path.write_bytes(data)
    (frame,) = folder.found(5)
    assert frame.error is None and frame.image_hwc is not None
    with Image.open(io.BytesIO(data)) as picture:
        np.testing.assert_array_equal(frame.image_hwc, np.asarray(picture.convert("RGB")))


def test_a_complete_picture_that_still_changes_is_not_read(tmp_path: Path) -> None:
    """A copy that reserves its space first is a valid picture of the wrong content until its last byte."""
    whole = encoded(4, "BMP")
    path = tmp_path / "copied.bmp"
    folder = Watch(tmp_path)
    for done in range(60, len(whole), len(whole) // 12):
        path.write_bytes(whole[:done] + bytes(len(whole) - done))
        assert folder.found(watch.SETTLE_S - watch.POLL_S) == []
    path.write_bytes(whole)
    (frame,) = folder.found(2)
    with Image.open(io.BytesIO(whole)) as picture:
        np.testing.assert_array_equal(frame.image_hwc, np.asarray(picture))


def test_a_picture_that_stays_damaged_is_an_error_once(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(encoded(5)[:200])
    folder = Watch(tmp_path)
    assert folder.found(watch.DAMAGED_S - 1) == []
    (frame,) = folder.found(2)
    assert frame.image_hwc is None and frame.error is not None and "torn.png" in frame.error
    assert folder.found(30) == []
    put(tmp_path / "torn.png", 5)  # it is sent again
    assert folder.names(2) == ["torn.png"]


def test_a_renamed_picture_and_one_written_anew_are_new(tmp_path: Path) -> None:
    folder = Watch(tmp_path)
    put(tmp_path / "part.tmp", 1)
    assert folder.found(2) == []
    (tmp_path / "part.tmp").rename(tmp_path / "latest.png")
    assert folder.names(2) == ["latest.png"]
    put(tmp_path / "latest.png", 2, 5000)
    assert folder.names(2) == ["latest.png"]
    (tmp_path / "latest.png").unlink()
    assert folder.names(2) == []
    assert folder.source._judged == {}  # what is gone takes no memory


def test_a_picture_taken_away_before_it_was_read_is_no_error(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 1)
    folder = Watch(tmp_path)
    folder.clock.now_s += 1
    folder.source._look()
    (tmp_path / "a.png").unlink()
    assert list(folder.source._ready) != [] and folder.found(1) == []


def test_looking_at_a_large_folder_takes_a_tenth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Watch(tmp_path)

    def slow(*_: object, **__: object) -> list[str]:
        folder.clock.now_s += 2
        return []

    monkeypatch.setattr(watch, "pictures_below", slow)
    folder.source._look()
    assert folder.source._look_again_s - folder.clock.now_s == pytest.approx(18)


def test_arrivals_in_real_time_and_the_end_of_the_watch(tmp_path: Path) -> None:
    source = open_source(str(tmp_path), SourceSettings(watch=True))
    assert isinstance(source, Reconnecting) and not source.live and source.length is None
    frames: list[Frame | None] = []

    def read() -> None:
        while not frames or frames[-1] is not None:
            frames.append(source.read())

    with source:
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(3):
            put(tmp_path / f"{number}.png", number)
            until_s = time.monotonic() + PATIENCE_S
            while len(frames) <= number and time.monotonic() < until_s:
                time.sleep(0.01)
        source.interrupt()
        reader.join(PATIENCE_S)
    assert not reader.is_alive()
    assert [frame and Path(str(frame.path)).name for frame in frames] == ["0.png", "1.png", "2.png", None]


def test_a_share_that_goes_away_and_comes_back_is_an_outage_and_nothing_is_judged_twice(tmp_path: Path) -> None:
    share, elsewhere = tmp_path / "share", tmp_path / "elsewhere"
    share.mkdir()
    put(share / "1.png", 1)
    outages: list[Outage] = []

    def mount_again(outage: Outage) -> None:
        outages.append(outage)
        if isinstance(outage, Lost):
            put(elsewhere / "2.png", 2)
            elsewhere.rename(share)

    with open_source(str(share), SourceSettings(watch=True)) as source:
        assert isinstance(source, Reconnecting)
        source.report_to(mount_again)
        frames = [source.read()]
        share.rename(elsewhere)
        frames.append(source.read())
    assert [frame and (frame.frame_id, Path(str(frame.path)).name) for frame in frames] == [(0, "1.png"), (1, "2.png")]
    assert [type(outage) for outage in outages] == [Lost, Returned]


def test_a_folder_that_does_not_exist_is_an_error_or_waited_for(tmp_path: Path) -> None:
    missing = tmp_path / "not_yet"
    with (
        pytest.raises(SourceError, match="not_yet does not exist; create it"),
        open_source(str(missing), SourceSettings(watch=True)),
    ):
        pass
    with open_source(str(missing), SourceSettings(watch=True, wait_for_source=True)) as source:
        assert not source.live
        missing.mkdir()
        put(missing / "first.png", 1)
        frame = source.read()
    assert frame is not None and frame.frame_id == 0


def test_a_folder_below_that_is_taken_away_during_a_look_is_no_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    put(tmp_path / "sub" / "a.png", 1)
    put(tmp_path / "b.png", 2)
    folder = Watch(tmp_path)
    scan = os.scandir

    def taken_away(path: str) -> object:
        if str(path).endswith("sub"):
            shutil.rmtree(path, ignore_errors=True)
        return scan(path)

    monkeypatch.setattr(os, "scandir", taken_away)
    assert folder.names(2) == ["b.png"]
