"""What calibration measured comes back exactly, for the same inputs only, and a damaged file never."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.calibration.quantize.cache import CalibrationCache, cache_key
from edge_ad.disk import blob_cache
from edge_ad.disk.vouching import own_key, vouched, without_code

SPEC = PreprocessSpec(64, 64, resize=72)
INPUTS: dict[str, Any] = {
    "graph": b"an ONNX model",
    "images_sha256": "12" * 32,
    "preprocess": SPEC,
    "options": {"method": "entropy", "bins": 2048, "percentile": None},
}
KEY = cache_key(**INPUTS)
ARRAYS: dict[str, NDArray[Any]] = {
    "/backbone/layer1/conv1/Conv_output_0": np.array([[-1.5, 2.5], [np.inf, np.nan]], np.float32),
    "histogram": np.arange(24, dtype=np.int64).reshape(2, 3, 4),
    "a scalar": np.array(0.1, np.float64),
    "nothing": np.zeros((0, 3), np.int8),
    "columns first": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    "strided": np.arange(10, dtype=np.float64)[::3],
}


@pytest.fixture
def cache(tmp_path: Path) -> CalibrationCache:
    return CalibrationCache(tmp_path / "calibration")


def assert_same(found: dict[str, NDArray[Any]] | None, wanted: dict[str, NDArray[Any]]) -> None:
    assert found is not None
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_arrays_come_back_bit_for_bit(cache: CalibrationCache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, ARRAYS)
    found = cache.get(KEY)
    assert_same(found, ARRAYS)
    assert found is not None and all(array.flags.writeable for array in found.values())
    cache.put(KEY, {})
    assert_same(cache.get(KEY), {})


# Names that a file in an archive cannot have, or that NumPy's own functions take for something else.
ODD = ["", "file", "args", "arr_0", "x", "x.npy", "../x", "/x", "a\\b", "a\0b", "ä::ö", "\ud800", "names"]


def test_a_name_may_be_anything(cache: CalibrationCache) -> None:
    arrays: dict[str, NDArray[Any]] = {name: np.full(2, position, np.int64) for position, name in enumerate(ODD)}
    cache.put(KEY, arrays)
    assert_same(cache.get(KEY), arrays)


@settings(max_examples=30, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text(max_size=8),
        st.sampled_from(["float32", "float64", "int8", "int64", "uint8"]).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        max_size=4,
    )
)
def test_any_arrays_come_back(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, NDArray[Any]]) -> None:
    cache = CalibrationCache(tmp_path_factory.mktemp("cache"))
    cache.put(KEY, arrays)
    assert_same(cache.get(KEY), arrays)


@pytest.mark.parametrize(
    "change",
    [
        {"graph": b"another ONNX model"},
        {"images_sha256": "13" * 32},
        {"preprocess": replace(SPEC, resize=73)},
        {"preprocess": replace(SPEC, pad_rgb=(0, 0, 1))},
        {"options": {**INPUTS["options"], "bins": 2049}},
        {"options": {**INPUTS["options"], "percentile": 99.99}},
        {"options": {"method": "entropy"}},
        {"packages": ("numpy",)},
    ],
)
def test_any_difference_is_a_miss(cache: CalibrationCache, change: dict[str, Any]) -> None:
    cache.put(KEY, ARRAYS)
    other = cache_key(**{**INPUTS, **change})
    assert other != KEY
    assert cache.get(other) is None
    assert cache.get(cache_key(**INPUTS)) is not None  # control


def test_another_version_of_a_package_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99" if name == "onnxruntime" else version(name))
    other = cache_key(**INPUTS)
    assert {name for name in KEY if KEY[name] != other[name]} == {"versions"}
    assert "no-such-package=none" in cache_key(**INPUTS, packages=("no-such-package",))["versions"]


def test_the_order_of_options_does_not_matter() -> None:
    options = dict(reversed(INPUTS["options"].items()))
    assert cache_key(**{**INPUTS, "options": options}) == KEY


def test_the_sidecar_spells_the_key_out(cache: CalibrationCache, tmp_path: Path) -> None:
    cache.put(KEY, ARRAYS)
    (sidecar,), (blob,) = tmp_path.rglob("*.json"), tmp_path.rglob("*.blob")
    content = json.loads(sidecar.read_text())
    assert without_code(content) == {"fingerprint": KEY, "sha256": hashlib.sha256(blob.read_bytes()).hexdigest()}
    assert json.loads(content["fingerprint"]["options"])["method"] == "entropy"
    assert json.loads(content["fingerprint"]["preprocess"])["resize"] == 72


@pytest.mark.parametrize(
    "array", [np.array([{"a": 1}]), np.array(["text"]), np.zeros(2, np.float16), np.zeros(2, ">f4"), np.zeros(2, bool)]
)
def test_other_types_are_refused_before_anything_is_written(
    cache: CalibrationCache, tmp_path: Path, array: NDArray[Any]
) -> None:
    with pytest.raises(TypeError, match=r"array 'odd': wanted float32, float64, int64, int8, uint8, got"):
        cache.put(KEY, {"fine": np.zeros(1), "odd": array})
    assert list(tmp_path.rglob("*.blob")) == []


class Armed:
    """Unpickling this is seen."""

    fired = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return fire, ()


def fire() -> None:
    Armed.fired = True


def _npz(*arrays: Any, **more: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, *arrays, **more)
    return stream.getvalue()


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _names(*names: str) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(names).encode(), np.uint8)


def _zip(member: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("arr_0.npy", member)
    return stream.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a pickle": lambda: pickle.dumps(Armed()),
    "an array of objects": lambda: _npz(_names("a"), np.array([Armed()], object)),
    "a single array": lambda: _npy(np.zeros(3)),
    "no archive": lambda: b"text",
    "half an archive": lambda: _npz(_names("a"), np.zeros(9))[:-30],
    "an empty file": lambda: b"",
    "an empty archive": lambda: _npz(),
    "an archive of something else": lambda: _zip(b"text"),
    "an array larger than memory": lambda: _zip(
        _npy(np.zeros(1)).replace(b"'shape': (1,), }           ", b"'shape': (1" + b"0" * 12 + b",), }")
    ),
    "fewer arrays than names": lambda: _npz(_names("a", "b"), np.zeros(1)),
    "more arrays than names": lambda: _npz(_names("a"), np.zeros(1), np.zeros(1)),
    "arrays under names of their own": lambda: _npz(a=np.zeros(1)),
    "names that are none": lambda: _npz(np.zeros(3, np.uint8), np.zeros(1)),
    "another type": lambda: _npz(_names("a"), np.zeros(1, np.complex128)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_of_another_form_with_a_fitting_sidecar_is_a_miss(
    cache: CalibrationCache, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Even if this user's own key vouches for it."""
    cache.put(KEY, ARRAYS)
    (sidecar,), (blob,) = tmp_path.rglob("*.json"), tmp_path.rglob("*.blob")
    content = HOSTILE[name]()
    blob.write_bytes(content)
    claimed = {"fingerprint": KEY, "sha256": hashlib.sha256(content).hexdigest()}
    sidecar.write_text(json.dumps(vouched(own_key(), blob.name, claimed)))
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY) is None
    assert not Armed.fired
    assert len(caplog.records) == 1 and "no table of arrays" in caplog.text
    assert not blob.exists()
    cache.put(KEY, ARRAYS)
    assert_same(cache.get(KEY), ARRAYS)


def test_a_file_that_somebody_else_wrote_is_not_even_opened(
    cache: CalibrationCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can write the file can write its hash as well, but has not this user's key."""
    cache.put(KEY, ARRAYS)
    (sidecar,), (blob,) = tmp_path.rglob("*.json"), tmp_path.rglob("*.blob")
    content = HOSTILE["another type"]()
    blob.write_bytes(content)
    claimed = {"fingerprint": KEY, "sha256": hashlib.sha256(content).hexdigest()}
    sidecar.write_text(json.dumps(vouched(b"another key", blob.name, claimed)))
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY) is None
    assert "damaged or not this user's; making it again" in caplog.text and "table" not in caplog.text


def test_the_armed_pickle_would_fire() -> None:
    try:
        pickle.loads(HOSTILE["a pickle"]())
        assert Armed.fired
    finally:
        Armed.fired = False


def test_every_flipped_bit_is_a_miss(cache: CalibrationCache, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.put(KEY, {"a": np.arange(4, dtype=np.float32)})
    (blob,) = tmp_path.rglob("*.blob")
    sound = blob.read_bytes()
    with caplog.at_level(logging.WARNING):
        for position in range(0, len(sound), 7):
            damaged = bytearray(sound)
            damaged[position] ^= 1 << position % 8
            blob.write_bytes(bytes(damaged))
            assert cache.get(KEY) is None
    assert len(caplog.records) == len(range(0, len(sound), 7))
    blob.write_bytes(sound)
    assert cache.get(KEY) is not None


def test_a_full_disk_only_costs_time(
    cache: CalibrationCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blob_cache, "write_atomically", full)
    with caplog.at_level(logging.WARNING):
        cache.put(KEY, ARRAYS)
    assert "calibration cannot be kept" in caplog.text and "No space left" in caplog.text
    assert cache.get(KEY) is None


def test_many_at_once_read_whole_results_or_none(cache: CalibrationCache) -> None:
    """Each writer stores one number many times over: a mixture of two writers would hold two."""

    def work(number: int) -> list[set[float]]:
        seen = []
        for _ in range(5):
            cache.put(KEY, {"a": np.full(2000, number, np.float64), "b": np.full(3, number, np.float32)})
            found = cache.get(KEY)
            if found is not None:
                seen.append({float(value) for array in found.values() for value in array})
        return seen

    with ThreadPoolExecutor(4) as pool:
        results = [values for found in pool.map(work, range(4)) for values in found]
    assert all(len(values) == 1 for values in results)
    cache.put(KEY, ARRAYS)
    assert_same(cache.get(KEY), ARRAYS)
