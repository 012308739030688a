"""A cache on disk that can be damaged, foreign, read-only or shared, and never does harm."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import other_user
import pytest
from foreign_files import made_foreign

from edge_ad.disk import blob_cache
from edge_ad.disk.blob_cache import BlobCache, default_cache_dir
from edge_ad.disk.vouching import own_key, vouched

KEY = {"model": "ab" * 32, "version": "1.2"}
BLOB = bytes(range(256)) * 4


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "made when needed", "compiled engine")


def one(cache: BlobCache, suffix: str) -> Path:
    (path,) = cache.folder.glob(f"*.{suffix}")
    return path


def test_a_blob_comes_back_for_its_own_fingerprint_only(cache: BlobCache, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, BLOB)
    assert cache.get(dict(reversed(KEY.items()))) == BLOB
    for other in ({**KEY, "version": "1.3"}, {**KEY, "more": ""}, {"model": KEY["model"]}, {}):
        assert cache.get(other) is None
    cache.put(KEY, b"new")
    assert cache.get(KEY) == b"new"
    cache.forget(KEY)
    assert cache.get(KEY) is None
    assert list(cache.folder.iterdir()) == []
    cache.forget(KEY)
    assert caplog.records == []


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _sidecar(cache: BlobCache, fingerprint: dict[str, str], blob: bytes = BLOB, **how: Any) -> None:
    """A sidecar whose hash fits; of this user, unless another key is given."""
    content = {"fingerprint": fingerprint, "sha256": hashlib.sha256(blob).hexdigest()}
    name = how.get("name", one(cache, "blob").name)
    one(cache, "json").write_text(json.dumps(vouched(how.get("key", own_key()), name, content)))


def _plant(cache: BlobCache, key: bytes) -> None:
    """Another blob, with a sidecar that fits but for the key."""
    one(cache, "blob").write_bytes(b"planted")
    _sidecar(cache, KEY, b"planted", key=key)


def _swap(cache: BlobCache) -> None:
    """A blob that this user has kept, under the name of another one."""
    other = BlobCache(cache.folder.with_name("other"), "compiled engine")
    other.put({**KEY, "version": "9"}, b"of another version")
    for suffix in ("blob", "json"):
        one(other, suffix).replace(one(cache, suffix))


def _unsigned(cache: BlobCache) -> None:
    """As an older edge-ad kept it."""
    content = {"fingerprint": KEY, "sha256": hashlib.sha256(BLOB).hexdigest()}
    one(cache, "json").write_text(json.dumps(content))


DAMAGE: dict[str, Callable[[BlobCache], object]] = {
    "flipped bit": lambda cache: _flip(one(cache, "blob")),
    "truncated": lambda cache: one(cache, "blob").write_bytes(BLOB[:-1]),
    "empty": lambda cache: one(cache, "blob").write_bytes(b""),
    "blob gone": lambda cache: one(cache, "blob").unlink(),
    "flipped bit in the sidecar": lambda cache: _flip(one(cache, "json")),
    "sidecar empty": lambda cache: one(cache, "json").write_bytes(b""),
    "sidecar not text": lambda cache: one(cache, "json").write_bytes(b"\xff\xfe\xff"),
    "sidecar of another form": lambda cache: one(cache, "json").write_text("[1]"),
    "sidecar nested without end": lambda cache: one(cache, "json").write_text("[" * 200_000),
    "sidecar of another fingerprint": lambda cache: _sidecar(cache, {**KEY, "version": "9"}),
    "sidecar of another name": lambda cache: _sidecar(cache, KEY, name="other.blob"),
    "planted with another key": lambda cache: _plant(cache, b"x" * 32),
    "swapped": _swap,
    "not vouched for": _unsigned,
    "more in the sidecar": lambda cache: one(cache, "json").write_text(
        one(cache, "json").read_text().replace("{", '{"more": 1, ', 1)
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_blob_is_logged_and_never_handed_out(
    cache: BlobCache, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    cache.put(KEY, BLOB)
    DAMAGE[name](cache)
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "compiled engine" in record.getMessage() and "damaged" in record.getMessage()
    cache.put(KEY, BLOB)
    assert cache.get(KEY) == BLOB


def test_the_planted_blob_fits_but_for_its_key(cache: BlobCache) -> None:
    """The control: with this user's key it would be taken."""
    cache.put(KEY, BLOB)
    _plant(cache, own_key())
    assert cache.get(KEY) == b"planted"


@pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")
@pytest.mark.parametrize("suffix", ["blob", "json"])
@pytest.mark.parametrize("harm", ["world", "foreign", "link"])
def test_a_file_that_others_could_have_written_is_not_used(
    cache: BlobCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, suffix: str, harm: str
) -> None:
    cache.put(KEY, BLOB)
    path = one(cache, suffix)
    if harm == "world":
        path.chmod(0o666)
    elif harm == "link":
        path.rename(cache.folder / "moved")
        path.symlink_to("moved")
    elif os.geteuid() == 0:
        made_foreign(monkeypatch, path)
    else:
        pytest.skip("needs root's right to give a file away")
    assert cache.get(KEY) is None
    (record,) = caplog.records
    assert "compiled engine is not used: " in record.getMessage() and "making it again" in record.getMessage()
    path.unlink()
    cache.put(KEY, BLOB)
    assert cache.get(KEY) == BLOB


@pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")
@pytest.mark.parametrize("harm", ["group", "world", "above", "foreign"])
def test_a_folder_that_others_could_write_to_is_not_used_and_one_line_says_so(
    cache: BlobCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    cache.put(KEY, BLOB)
    before = sorted(path.name for path in cache.folder.iterdir())
    if harm == "foreign":
        made_foreign(monkeypatch, cache.folder)
    else:
        (cache.folder.parent if harm == "above" else cache.folder).chmod(0o770 if harm == "group" else 0o777)
    for other in (cache, BlobCache(cache.folder, "compiled kernel")):
        assert other.get(KEY) is None
        other.put({**KEY, "version": "9"}, BLOB)
    assert sorted(path.name for path in cache.folder.iterdir()) == before
    (record,) = caplog.records
    assert f"cache {cache.folder} is not used: " in record.getMessage()
    assert record.getMessage().endswith("; choose a folder that only this user can write to")
    cache.folder.parent.chmod(0o700)


def test_a_folder_below_one_that_others_could_write_to_is_not_even_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    cache = BlobCache(tmp_path / "shared" / "engines", "compiled engine")
    cache.put(KEY, BLOB)
    assert cache.get(KEY) is None
    assert os.listdir(tmp_path / "shared") == [] and len(caplog.records) == 1


def test_without_a_key_nothing_is_used_or_kept(
    cache: BlobCache, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, BLOB)
    (tmp_path / "a file").touch()
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "a file"))
    assert cache.get(KEY) is None
    cache.put({**KEY, "version": "9"}, BLOB)
    (record,) = caplog.records
    assert "is not used: no key can be made" in record.getMessage() and "XDG_STATE_HOME" in record.getMessage()
    assert len(list(cache.folder.iterdir())) == 2


def test_a_cache_that_was_copied_from_another_user_is_made_again(
    cache: BlobCache, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, BLOB)
    other_user.become(monkeypatch, tmp_path / "another user")
    assert cache.get(KEY) is None and "damaged or not this user's" in caplog.text
    cache.put(KEY, BLOB)
    assert cache.get(KEY) == BLOB


def test_a_missing_sidecar_is_no_blob(cache: BlobCache) -> None:
    cache.put(KEY, BLOB)
    one(cache, "json").unlink()
    assert cache.get(KEY) is None


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_is_logged(
    cache: BlobCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(reason, "the disk says no")

    monkeypatch.setattr(blob_cache, "write_atomically", refuse)
    with caplog.at_level(logging.WARNING):
        cache.put(KEY, BLOB)
    assert [record.getMessage() for record in caplog.records] == [
        f"compiled engine cannot be kept in {cache.folder}: the disk says no"
    ]
    assert cache.get(KEY) is None


def test_a_file_in_place_of_the_folder_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = BlobCache(tmp_path / "file" / "below", "compiled engine")
    with caplog.at_level(logging.WARNING):
        cache.put(KEY, BLOB)
        assert cache.get(KEY) is None
    assert len(caplog.records) == 1


def test_a_writer_in_between_leaves_a_miss_and_no_mixture(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process stores its own blob between the two files of this one: blob of the one, sidecar of the other."""
    write = blob_cache.write_atomically
    sidecars: list[bytes] = []

    def interleaved(path: Path, data: bytes) -> None:
        if path.suffix == ".json":
            sidecars.append(data)
            if len(sidecars) == 1:
                cache.put(KEY, b"of the other process")
        write(path, data)

    monkeypatch.setattr(blob_cache, "write_atomically", interleaved)
    cache.put(KEY, BLOB)
    assert len(sidecars) == 2
    assert one(cache, "blob").read_bytes() == b"of the other process"
    assert one(cache, "json").read_bytes() == sidecars[0]
    assert cache.get(KEY) is None
    cache.put(KEY, BLOB)
    assert cache.get(KEY) == BLOB


def test_each_purpose_has_a_folder_of_its_own() -> None:
    engines, calibration = default_cache_dir("engines"), default_cache_dir("calibration")
    assert engines.parent == calibration.parent
    assert (engines.name, calibration.name, engines.parent.name) == ("engines", "calibration", "edge-ad")
