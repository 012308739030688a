"""What others could change, or could have made, is told from what is this user's alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from foreign_files import made_foreign

from edge_ad.disk import private
from edge_ad.disk.private import NotPrivateError, fault_of_folder, make_private_folder, read_private

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")
Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Below a folder of its own, which is closed to others."""
    make_private_folder(tmp_path / "above" / "cache")
    return tmp_path / "above" / "cache"


def test_what_is_made_here_is_private_whatever_the_mask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        make_private_folder(tmp_path / "a" / "b" / "c")
        make_private_folder(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(mask)
    for path in ("a", "a/b", "a/b/c"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o700
    assert fault_of_folder(tmp_path / "a" / "b" / "c") is None
    assert fault_of_folder(tmp_path / "a" / "not there" / "yet") is None


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777, 0o2775])
def test_a_folder_that_others_can_write_to(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    assert fault_of_folder(folder) == f"others can write to {folder} (mode {mode:04o})"
    folder.chmod(0o755)
    assert fault_of_folder(folder) is None


@pytest.mark.parametrize(("mode", "is_fine"), [(0o702, False), (0o777, False), (0o1777, True), (0o755, True)])
def test_a_folder_above_from_which_others_could_replace_it(folder: Path, mode: int, is_fine: bool) -> None:
    folder.parent.chmod(mode)
    assert (fault_of_folder(folder) is None) == is_fine
    assert (fault_of_folder(folder / "not" / "there" / "yet") is None) == is_fine
    folder.parent.chmod(0o755)


@pytest.mark.parametrize("alone", [True, False])
def test_a_group_above_that_nobody_else_is_in(folder: Path, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    """As with the mask 002 of distributions that give every user a group."""
    monkeypatch.setattr(private, "_is_alone_in", lambda group: alone)
    folder.parent.chmod(0o775)
    assert (fault_of_folder(folder) is None) == alone
    folder.chmod(0o775)  # the folder itself is closed in any case
    assert fault_of_folder(folder) is not None


def test_a_group_of_others_is_not_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not private._is_alone_in(os.geteuid() + 1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not private._is_alone_in(0)  # administrators
    monkeypatch.setattr(os, "geteuid", lambda: 2_000_000_000)
    assert not private._is_alone_in(2_000_000_000)  # nobody by that number


def test_a_foreign_folder_and_one_below_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = made_foreign(monkeypatch, folder.parent)
    assert str(fault_of_folder(folder)).endswith(f" belongs to user {owner}")


def test_a_link_is_followed_and_its_owner_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert fault_of_folder(link) is None and fault_of_folder(link / "below") is None
    folder.chmod(0o777)
    assert fault_of_folder(link) == f"others can write to {folder} (mode 0777)"
    folder.chmod(0o700)
    made_foreign(monkeypatch, link)
    assert "belongs to user" in str(fault_of_folder(link))


def test_a_file_in_the_way(folder: Path) -> None:
    (folder / "file").touch()
    assert fault_of_folder(folder / "file" / "below") == f"{folder / 'file'} is no folder"
    with pytest.raises(OSError, match="file"):
        make_private_folder(folder / "file" / "below")


def test_a_private_file_is_read(folder: Path) -> None:
    for content in (b"", b"x", bytes(range(256)) * 5000):
        (folder / "file").write_bytes(content)
        assert read_private(folder / "file") == content
    with pytest.raises(FileNotFoundError):
        read_private(folder / "none")


def _link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.chmod(0o620), "others can write to"),
        (lambda path: path.chmod(0o602), "others can write to"),
        (_link, "is a link"),
        (_pipe, "is no file"),  # and nobody waits for somebody to write into it
        (_folder, "is no file|directory"),
    ],
    ids=["group", "world", "link", "pipe", "folder"],
)
def test_a_file_that_is_not_private_is_not_read(folder: Path, change: Change, reason: str) -> None:
    path = folder / "file"
    path.write_bytes(b"content")
    path.chmod(0o644)
    assert read_private(path) == b"content"  # control
    change(path)
    with pytest.raises(OSError, match=reason):
        read_private(path)


def test_a_foreign_file_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "file"
    path.write_bytes(b"content")
    owner = made_foreign(monkeypatch, path)
    with pytest.raises(NotPrivateError, match=f"belongs to user {owner}"):
        read_private(path)


def test_a_link_that_appears_after_the_look_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "file"
    path.write_bytes(b"content")
    _link(path)
    monkeypatch.setattr(Path, "is_symlink", lambda self: False)
    with pytest.raises(OSError, match="link"):
        read_private(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606])
def test_a_closed_file_may_not_be_read_by_others(folder: Path, mode: int) -> None:
    path = folder / "file"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    assert read_private(path, closed=True) == b"secret"
    path.chmod(mode)
    with pytest.raises(NotPrivateError, match="others can read or change"):
        read_private(path, closed=True)
