"""A cache on disk that can be damaged, foreign, read-only or shared, and never does harm."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_ad.disk import blob_cache
from edge_ad.disk.blob_cache import BlobCache, default_cache_dir

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


def _other_fingerprint(cache: BlobCache) -> None:
    """A sidecar that fits the blob but spells out another fingerprint, as after a collision of names."""
    one(cache, "json").write_text(
        json.dumps({"fingerprint": {**KEY, "version": "9"}, "sha256": hashlib.sha256(BLOB).hexdigest()})
    )


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
    "sidecar of another fingerprint": _other_fingerprint,
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
