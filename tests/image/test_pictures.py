"""Which files are pictures, in what order, and whether one can be opened; pixels are tested with the sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_ad.errors import ImageError
from edge_ad.image.pictures import is_picture, natural_key, picture_fault, pictures_below, read_nonzero, read_picture


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=20), st.sampled_from(["shot_{}.png", "{}", "d/x{}/y.png"]))
def test_numbers_in_names_sort_by_value(numbers: list[int], form: str) -> None:
    names = [form.format(number) for number in numbers]
    assert sorted(names, key=natural_key) == [form.format(number) for number in sorted(numbers)]


@given(st.lists(st.text("ab01/.²٣ ", max_size=8), max_size=12))
def test_any_names_have_one_order(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)


@pytest.mark.parametrize(("name", "yes"), [("a.png", True), ("A.JPG", True), ("a.png.txt", False), ("png", False)])
def test_pictures_are_told_by_their_suffix(name: str, yes: bool) -> None:
    assert is_picture(name) == yes


def test_folders_are_walked_once_each_and_without_those_left_out(tmp_path: Path) -> None:
    for name in ["10.png", "9.PNG", "b/1.jpg", "b/drawn/2.jpg", ".hidden/3.png", ".4.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b/loop").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "absent.png")

    def found(**options: object) -> list[str]:
        paths = pictures_below(str(tmp_path), **options)  # type: ignore[arg-type]
        return [str(Path(path).relative_to(tmp_path)) for path in paths]

    assert found() == ["9.PNG", "10.png", "b/1.jpg", "b/drawn/2.jpg"]
    assert found(left_out=lambda path: path.endswith("drawn")) == ["9.PNG", "10.png", "b/1.jpg"]
    visited = {str((tmp_path / "b").resolve())}
    assert found(visited=visited) == ["9.PNG", "10.png"]
    assert str(tmp_path.resolve()) in visited and found(visited=visited) == []


def test_a_fault_is_seen_in_the_head_and_damage_below_it_is_not(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("x")
    assert picture_fault(str(tmp_path / "good.png")) is None
    assert picture_fault(str(tmp_path / "cut.png")) is None
    Image.open(tmp_path / "good.png").save(tmp_path / "good.jpg")
    jpeg = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[:-50])
    (tmp_path / "head.jpg").write_bytes(jpeg[:50])
    assert picture_fault(str(tmp_path / "good.jpg")) is picture_fault(str(tmp_path / "cut.jpg")) is None
    assert "head.jpg: a JPEG without a picture" in str(picture_fault(str(tmp_path / "head.jpg")))
    fault = picture_fault(str(tmp_path / "text.png"))
    assert fault is not None and "text.png: not a picture" in fault
    for read in (read_picture, read_nonzero):
        with pytest.raises(ImageError, match=r"cut\.png: cannot be decoded"):
            read(str(tmp_path / "cut.png"))
