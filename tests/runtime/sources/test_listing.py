"""Which pictures a folder or a pattern means, and in what order."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.runtime.sources import open_source


def read_all(uri: Path | str) -> list[Frame]:
    frames = []
    with open_source(str(uri)) as source:
        while (frame := source.read()) is not None:
            frames.append(frame)
        assert source.read() is None
    assert source.length == len(frames)
    assert not source.live
    return frames


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))


def test_a_folder_is_read_recursively_in_natural_order_without_hidden_files(tmp_path: Path, photo: Image.Image) -> None:
    names = ["shot_10.png", "shot_2.PNG", "b/1.png", "a10/1.jpg", "a9/1.jpg", ".hidden.png", ".cache/x.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [str(Path(frame.path).relative_to(tmp_path)) for frame in read_all(tmp_path) if frame.path]
    assert found == ["a9/1.jpg", "a10/1.jpg", "b/1.png", "shot_2.PNG", "shot_10.png"]


def test_a_pattern_gives_its_pictures_in_natural_order(tmp_path: Path, photo: Image.Image) -> None:
    for name in ["x10.png", "x9.png", "sub/x1.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo.save(tmp_path / name)
    (tmp_path / "x1.txt").write_text("x")
    assert [Path(f.path or "").name for f in read_all(f"{tmp_path}/x*")] == ["x9.png", "x10.png"]
    assert [Path(f.path or "").name for f in read_all(f"{tmp_path}/**/*.png")] == ["x1.png", "x9.png", "x10.png"]


def test_a_pattern_that_matches_folders_takes_what_lies_below_them(tmp_path: Path, photo: Image.Image) -> None:
    """The layout of MVTec: one folder of pictures for each kind of defect."""
    names = ["test/good/10.png", "test/good/9.png", "test/bad/deep/1.png", "test/top.png", "test/good/.hidden.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        photo.save(tmp_path / name)
    (tmp_path / "test" / "link").symlink_to(tmp_path / "test" / "good")
    (tmp_path / "test" / "notes.txt").write_text("x")
    want = ["test/bad/deep/1.png", "test/good/9.png", "test/good/10.png", "test/top.png"]

    def found(pattern: str) -> list[str]:
        return [str(Path(frame.path or "").relative_to(tmp_path)) for frame in read_all(f"{tmp_path}/{pattern}")]

    assert found("test/*") == found("te*") == want
    assert found("test/*/") == want[:3]
    assert found("test/*.png") == want[3:]
    (tmp_path / "test" / "link").unlink()
    assert found("**") == found("test/**") == want


def test_a_path_that_exists_is_not_a_pattern(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "a[1].png")
    photo.save(tmp_path / "a1.png")
    (frame,) = read_all(tmp_path / "a[1].png")
    assert frame.path == str(tmp_path / "a[1].png")


def test_nothing_to_read_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"holds no picture: looked for \.apng.*\.png"):
        open_source(str(tmp_path))
    with pytest.raises(SourceError, match="matches no file"):
        open_source(f"{tmp_path}/*.png")
    with pytest.raises(SourceError, match=r"1 file\(s\) but no picture"):
        open_source(f"{tmp_path}/*.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"1 file\(s\) and 1 folder\(s\) but no picture"):
        open_source(f"{tmp_path}/*")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not UTF-8")
@pytest.mark.parametrize("form", ["{}/a\udcfe.png", "{}", "{}/*.png", "{}/*"])
def test_names_that_are_not_utf_8_are_read(tmp_path: Path, photo: Image.Image, form: str) -> None:
    folder = f"{tmp_path}/d\udcff"
    os.mkdir(folder)
    photo.save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", f"{folder}/a\udcfe.png")
    (frame,) = read_all(form.format(folder))
    assert frame.error is None and frame.path == f"{folder}/a\udcfe.png"
    np.testing.assert_array_equal(frame.image_hwc, np.asarray(photo))
