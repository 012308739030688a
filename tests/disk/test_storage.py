"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_ad.disk.storage import publish_directory, write_atomically, write_durably


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    write_durably(tmp_path / "other", b"three")
    assert (tmp_path / "other").read_bytes() == b"three"
    assert sorted(os.listdir(tmp_path)) == ["blob", "other"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"old")

    def full_disk(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["blob"]


def _folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_a_folder_is_published_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    publish_directory(_folder(tmp_path / "a", "one"), path, replace=True)
    publish_directory(_folder(tmp_path / "b", "two"), path, replace=True)
    assert (path / "file").read_text() == "two"
    assert os.listdir(tmp_path) == ["folder"]


def test_a_folder_in_use_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = _folder(tmp_path / "folder", "old")
    scratch = _folder(tmp_path / "scratch", "new")
    with pytest.raises(OSError, match="folder"):
        publish_directory(scratch, path, replace=False)
    assert (path / "file").read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_replacing_a_link_leaves_what_it_points_at(tmp_path: Path) -> None:
    real = _folder(tmp_path / "real", "old")
    link = tmp_path / "link"
    link.symlink_to("real", target_is_directory=True)
    publish_directory(_folder(tmp_path / "scratch", "new"), link, replace=True)
    assert (real / "file").read_text() == "old"
    assert (link / "file").read_text() == "new"
    assert not link.is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_is_put_back_when_replacing_fails(tmp_path: Path) -> None:
    _folder(tmp_path / "real", "old")
    link = tmp_path / "link"
    link.symlink_to("real", target_is_directory=True)
    with pytest.raises(FileNotFoundError):
        publish_directory(tmp_path / "never made", link, replace=True)
    assert link.is_symlink()
    assert (link / "file").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]
