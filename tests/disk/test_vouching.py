"""Only what this user has kept is vouched for, and the key stays this user's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from foreign_files import made_foreign
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.disk import vouching
from edge_ad.disk.vouching import (
    CODE,
    KEY_BYTES,
    NoKeyError,
    fault_of_key,
    is_vouched,
    key_path,
    own_key,
    read_key,
    vouched,
    without_code,
)

KEY = bytes(range(32))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
CONTENT = st.dictionaries(st.text(max_size=4).filter(lambda name: name != CODE), JSON, max_size=4)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's state folder, which does not exist yet, like the one for caches."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "state"


@given(content=CONTENT, name=st.text(max_size=8))
def test_what_was_vouched_for_is_believed_also_after_the_way_through_a_file(content: dict[str, Any], name: str) -> None:
    entry = json.loads(json.dumps(vouched(KEY, name, content)))
    assert is_vouched(KEY, name, entry)
    assert without_code(entry) == json.loads(json.dumps(content))


@given(content=CONTENT, other=CONTENT, name=st.text(max_size=4), other_name=st.text(max_size=4), key=st.binary())
def test_nothing_else_is(
    content: dict[str, Any], other: dict[str, Any], name: str, other_name: str, key: bytes
) -> None:
    entry = vouched(KEY, name, content)
    if json.dumps(other, sort_keys=True) != json.dumps(content, sort_keys=True):
        assert not is_vouched(KEY, name, {**other, CODE: entry[CODE]})
    if other_name != name:
        assert not is_vouched(KEY, other_name, entry)
    assert not is_vouched(key, name, entry) and not is_vouched(None, name, entry)


@pytest.mark.parametrize("code", [None, 1, "", "0" * 64, "\ud800", [], {"a": 1}, True])
def test_a_made_up_code_is_not_believed(code: object) -> None:
    assert not is_vouched(KEY, "name", {"a": 1, CODE: code}) and not is_vouched(KEY, "name", {"a": 1})


def test_the_key_is_made_once_and_closed(state: Path) -> None:
    assert read_key() is None and not state.exists()  # looking makes nothing
    mask = os.umask(0)
    try:
        key = own_key()
    finally:
        os.umask(mask)
    assert len(key) == KEY_BYTES and own_key() == read_key() == key
    assert key_path() == state / "edge-ad" / "cache.key"
    assert key_path().stat().st_mode & 0o777 == 0o600
    assert os.listdir(key_path().parent) == ["cache.key"]
    key_path().unlink()
    assert own_key() != key


@pytest.mark.parametrize("links", [True, False])
def test_all_who_make_one_at_once_get_the_same(monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    count = 16 if links else 1  # without links who comes last has made it, and what was kept before is made again
    if not links:
        monkeypatch.delattr(os, "link")
        monkeypatch.setattr(os, "link", _no_links, raising=False)
    together = Barrier(count)

    def make(_: int) -> bytes:
        together.wait(10)
        return own_key()

    with ThreadPoolExecutor(count) as pool:
        keys = set(pool.map(make, range(count)))
    assert keys == {read_key()} and os.listdir(key_path().parent) == ["cache.key"]


def _no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_two_processes_share_it() -> None:
    source = "from edge_ad.disk.vouching import own_key\nprint(own_key().hex())"
    command = [sys.executable, "-c", source]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate(timeout=60)[0] for process in processes}) == 1


@pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_not_used(mode: int) -> None:
    own_key()
    key_path().chmod(mode)
    for read in (read_key, own_key):
        with pytest.raises(NoKeyError, match=r"others can read or change .*cache\.key .*; remove it"):
            read()
    assert "remove it" in str(fault_of_key())


@pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")
def test_a_foreign_key_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    own_key()
    made_foreign(monkeypatch, key_path())
    with pytest.raises(NoKeyError, match="belongs to user"):
        own_key()


@pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")
def test_a_state_folder_that_others_can_write_to_is_not_used(state: Path) -> None:
    own_key()
    key_path().parent.chmod(0o777)
    with pytest.raises(NoKeyError, match=r"cannot be trusted: others can write to"):
        own_key()


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_key_of_another_length_is_not_used(content: bytes) -> None:
    own_key()
    key_path().write_bytes(content)
    with pytest.raises(NoKeyError, match=f"has {len(content)} bytes, wanted 32; remove it"):
        own_key()


def test_a_link_in_place_of_the_key_is_not_followed(tmp_path: Path) -> None:
    own_key()
    key_path().rename(tmp_path / "elsewhere")
    key_path().symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NoKeyError, match="is a link"):
        own_key()


def test_where_the_state_folder_cannot_be_written_it_lies_beside_the_caches(state: Path, tmp_path: Path) -> None:
    state.write_text("a file in the way")
    assert fault_of_key() is None
    key = own_key()
    assert key_path() == tmp_path / "caches" / "edge-ad" / "cache.key"
    state.unlink()
    assert own_key() == key  # and stays there


@pytest.mark.skipif(sys.platform != "linux", reason="folders of Linux")
def test_a_home_without_a_state_folder_does_not_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    own_key()
    assert key_path() == tmp_path / ".cache" / "edge-ad" / "cache.key" and os.listdir(tmp_path) == [".cache"]
    key_path().unlink()
    (tmp_path / ".local" / "state").mkdir(parents=True)
    own_key()
    assert key_path() == tmp_path / ".local" / "state" / "edge-ad" / "cache.key"


def test_where_it_cannot_be_kept_that_is_said(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fault_of_key() is None and not state.exists()
    for path in (state, tmp_path / "caches"):
        path.write_text("a file in the way")
    with pytest.raises(NoKeyError, match=r"no key can be made: .*state is no folder; .*caches is no folder; name a"):
        own_key()
    assert "is no folder" in str(fault_of_key())
    for path in (state, tmp_path / "caches"):
        path.unlink()

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vouching, "_make", full)
    with pytest.raises(NoKeyError, match=r"no key can be made: .* cannot be written to: No space left"):
        own_key()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written to" in str(fault_of_key())
