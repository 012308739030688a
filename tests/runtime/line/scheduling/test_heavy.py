"""Large pictures of folders are read one after another, and small ones ahead as ever."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edge_ad.runtime.line.scheduling import heavy
from edge_ad.runtime.line.scheduling.heavy import LARGE, MOST, HeavyPictures


def picture(count: int) -> np.ndarray:
    return np.empty((count // 3, 1, 3), np.uint8)


def test_the_next_large_picture_waits_until_those_before_it_are_gone() -> None:
    pictures = HeavyPictures()
    held = [picture(LARGE + 3) for _ in range(MOST // LARGE + 1)]
    for one in held:
        pictures.note(one)
    done = threading.Event()
    waiter = threading.Thread(target=lambda: pictures.wait(threading.Event()) and done.set())
    waiter.start()
    assert not done.wait(0.1)
    view = held.pop()[:5]  # whoever holds a part holds the whole
    del one
    assert not done.wait(0.1)
    del view
    assert done.wait(5)
    waiter.join()


def test_small_pictures_and_frames_without_one_do_not_count() -> None:
    pictures = HeavyPictures()
    held = [picture(LARGE // 2) for _ in range(8)]
    for one in [*held, None, b"no array"]:
        pictures.note(one)
    assert pictures.wait(threading.Event())


def test_a_picture_that_somebody_keeps_does_not_stop_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heavy, "LONGEST_S", 0.1)
    pictures = HeavyPictures()
    kept = picture(MOST + 30)
    pictures.note(kept)
    began = time.monotonic()
    assert pictures.wait(threading.Event())
    assert time.monotonic() - began >= 0.1
    stop = threading.Event()
    stop.set()
    assert not pictures.wait(stop)
    assert kept.size
