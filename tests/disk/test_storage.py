"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from edge_ad.disk import storage
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
@pytest.mark.parametrize("ways", ["exchanged", "moved aside"])
def test_replacing_a_link_replaces_what_it_points_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ways: str
) -> None:
    if ways == "moved aside":
        monkeypatch.setattr(storage, "_exchange", lambda one, other: False)
    real = _folder(tmp_path / "real", "old")
    link = tmp_path / "link"
    link.symlink_to("real", target_is_directory=True)
    publish_directory(_folder(tmp_path / "scratch", "new"), link, replace=True)
    assert (real / "file").read_text() == (link / "file").read_text() == "new"
    assert os.readlink(link) == "real"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_this_system_exchanges_directories(tmp_path: Path) -> None:
    """Or whatever is said of one step is not tested here."""
    one, other = _folder(tmp_path / "one", "1"), _folder(tmp_path / "other", "2")
    if not storage._exchange(one, other):
        pytest.skip("this kernel or file system does not exchange directories")
    assert ((one / "file").read_text(), (other / "file").read_text()) == ("2", "1")


@pytest.mark.parametrize("code", sorted(storage.CANNOT))
def test_where_directories_cannot_be_exchanged_they_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(storage, "_renameat2", lambda: lambda *_: code)
    path = _folder(tmp_path / "folder", "old")
    publish_directory(_folder(tmp_path / "scratch", "new"), path, replace=True)
    assert (path / "file").read_text() == "new" and os.listdir(tmp_path) == ["folder"]


def test_an_exchange_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_renameat2", lambda: lambda *_: errno.EACCES)
    path = _folder(tmp_path / "folder", "old")
    with pytest.raises(PermissionError):
        publish_directory(_folder(tmp_path / "scratch", "new"), path, replace=True)
    assert (path / "file").read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_what_a_link_points_to_is_put_back_when_replacing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_exchange", lambda one, other: False)
    _folder(tmp_path / "real", "old")
    link = tmp_path / "link"
    link.symlink_to("real", target_is_directory=True)
    with pytest.raises(FileNotFoundError):
        publish_directory(tmp_path / "never made", link, replace=True)
    assert link.is_symlink()
    assert (link / "file").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]
