"""What is done to pictures unasked is said once, and counted."""

from __future__ import annotations

import os
from pathlib import Path

from edge_ad.image.notices import CMYK, MOST_LINES, notice, noticing, pass_over
from edge_ad.image.pictures import pictures_below


def test_the_first_is_said_at_once_and_the_number_at_the_end() -> None:
    said: list[str] = []
    with noticing(said.append):
        notice(CMYK, "a.jpg")
        assert said == [f"note: a.jpg: {CMYK}"]
        for name in ("a.jpg", "b.jpg", "c.jpg", "b.jpg"):
            notice(CMYK, name)
        assert len(said) == 1
    assert said[1:] == [f"note: {CMYK}: 3 pictures"]
    notice(CMYK, "d.jpg")
    assert len(said) == 2


def test_the_innermost_listens() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with noticing(outer.append), noticing(inner.append):
        notice(CMYK, "a.jpg")
    assert outer == [] and len(inner) == 1


def test_a_listener_that_fails_costs_nothing() -> None:
    def full(line: str) -> None:
        raise OSError(28, "No space left on device")

    with noticing(full):
        notice(CMYK, "a.jpg")
        pass_over(["a.heic"])


def test_files_that_are_no_pictures_are_counted_by_their_endings(tmp_path: Path) -> None:
    for name in ("1.png", "2.jfif", "3.HEIC", "4.heic", "5.txt", ".hidden.heic", "sub/6.heic", "sub/noending"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    said: list[str] = []
    with noticing(said.append):
        assert [os.path.basename(path) for path in pictures_below(str(tmp_path))] == ["1.png", "2.jfif"]
        first = list(said)
        pictures_below(str(tmp_path))  # a watched folder is listed ten times a second
        assert said == first
    assert "warning: not taken for pictures, by their endings: .heic (2), .txt (1)" in said[0]
    assert said[-1] == "warning: not taken for pictures, in all: .heic (3), .txt (1), none (1)" or len(said) == 2


def test_ever_new_endings_do_not_fill_the_log() -> None:
    said: list[str] = []
    with noticing(said.append):
        for number in range(100):
            pass_over([f"a.t{number}"])
        assert len(said) == MOST_LINES
        pass_over([f"a.{'x' * 50}", "b.\x1b[2J"])
    assert len(said) == MOST_LINES + 1 and "\x1b" not in said[-1]
