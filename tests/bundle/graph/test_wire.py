"""The reader of protobuf: what it takes it reads as protobuf does, and anything else is a BundleError, soon."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.graph import wire
from edge_ad.bundle.graph.wire import Field, InFile, InMemory, Kind, Reader, WireError

SCHEMA = {
    1: Field("number", Kind.NUMBER),
    2: Field("text", Kind.TEXT),
    3: Field("numbers", Kind.NUMBER, 50),
    4: Field("floats", Kind.FLOAT, 50),
    5: Field("part", Kind.MESSAGE),
    6: Field("data", Kind.BYTES),
    7: Field("banned", Kind.BYTES, refused="for a test"),
    8: Field("float", Kind.FLOAT),
    1000: Field("far", Kind.NUMBER),
}
INT64 = st.integers(-(2**63), 2**63 - 1)


def varint(number: int) -> bytes:
    number %= 1 << 64
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, wire_type: int, content: bytes) -> bytes:
    length = varint(len(content)) if wire_type == 2 else b""
    return varint(number << 3 | wire_type) + length + content


def read(data: bytes) -> dict[str, Any]:
    reader = Reader(InMemory(data))
    return reader.message(reader.whole, SCHEMA, "test")


@given(INT64)
def test_every_whole_number_is_read_as_written(number: int) -> None:
    assert read(field(1, 0, varint(number)))["number"] == number
    assert read(field(1000, 0, varint(number)))["far"] == number


@given(st.lists(INT64, max_size=30), st.lists(INT64, max_size=20))
def test_lists_are_read_packed_and_one_by_one(packed: list[int], single: list[int]) -> None:
    data = field(3, 2, b"".join(map(varint, packed))) + b"".join(field(3, 0, varint(number)) for number in single)
    assert read(data)["numbers"] == [*packed, *single]


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=25))
def test_floats_are_read_packed_and_one_by_one(values: list[float]) -> None:
    one_by_one = b"".join(field(4, 5, struct.pack("<f", value)) for value in values)
    assert read(field(4, 2, struct.pack(f"<{len(values)}f", *values)) + one_by_one)["floats"] == values * 2


@given(st.text(st.characters(categories=("L", "N", "P")), max_size=100))
def test_texts_are_read_as_written(text: str) -> None:
    assert read(field(2, 2, text.encode()))["text"] == text


REFUSED = {
    "a field that is not known": (field(9, 0, b"\1"), "field 9 is unknown"),
    "a field that is banned": (field(7, 2, b""), "banned: for a test"),
    "a number twice": (field(1, 0, b"\1") * 2, "number is given twice"),
    "a message twice": (field(5, 2, b"") * 2, "part is given twice"),
    "another type": (field(1, 2, b"\1"), "wanted a whole number, got wire type 2"),
    "text as a number": (field(2, 0, b"\1"), "wanted text, got wire type 0"),
    "a group": (varint(5 << 3 | 3), "wire type 3"),
    "field 0": (field(0, 0, b"\1"), "field 0 is unknown"),
    "too long a number": (varint(1 << 3) + b"\xff" * 10 + b"\1", "a number is too long"),
    "more than 64 bits": (varint(1 << 3) + b"\xff" * 9 + b"\2", "too large"),
    "another spelling": (varint(1 << 3) + b"\x81\x00", "another way than the shortest"),
    "another spelling of a key": (b"\x88\x00\x01", "another way than the shortest"),
    "a number that is cut off": (varint(1 << 3) + b"\x80", "cut off"),
    "a key alone": (varint(1 << 3), "cut off"),
    "bytes that are cut off": (varint(6 << 3 | 2) + varint(100) + b"x", "field 6 is cut off"),
    "a float that is cut off": (varint(8 << 3 | 5) + b"xyz", "field 8 is cut off"),
    "a length of 2^63": (varint(6 << 3 | 2) + varint(2**63), "field 6 is cut off"),
    "no UTF-8": (field(2, 2, b"\xff"), "is no UTF-8"),
    "an escape sequence": (field(2, 2, b"\x1b[2J"), "cannot be printed"),
    "too long a text": (field(2, 2, b"x" * 5000), "5000 bytes long"),
    "too long a list": (field(3, 0, b"\1") * 51, "numbers has more than 50 entries"),
    "too long a packed list": (field(3, 2, b"\1" * 51), "more than 50 numbers"),
    "packed floats of 5 bytes": (field(4, 2, b"12345"), "no list of at most 50 numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_ambiguous_or_broken_is_refused(name: str) -> None:
    data, words = REFUSED[name]
    with pytest.raises(WireError) as caught:
        read(data)
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_the_number_of_fields_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_FIELDS", 100)
    many = {1: Field("numbers", Kind.NUMBER, 1000)}
    for data in (field(1, 0, b"\1") * 101, field(1, 2, b"\1" * 101)):
        reader = Reader(InMemory(data))
        with pytest.raises(WireError, match="more than 100 fields"):
            reader.message(reader.whole, many, "test")
    reader = Reader(InMemory(field(1, 0, b"\1") * 99))
    assert len(reader.message(reader.whole, many, "test")["numbers"]) == 99


class Counted(InMemory):
    """Counts what is loaded."""

    loaded = 0

    def load(self, start: int, stop: int) -> bytes:
        self.loaded += stop - start
        return super().load(start, stop)


def test_what_is_large_is_not_copied() -> None:
    source = Counted(field(6, 2, bytes(50 << 20)) + field(1, 0, b"\5"))
    reader = Reader(source)
    values = reader.message(reader.whole, SCHEMA, "test")
    assert values["number"] == 5 and values["data"] == (5, 5 + (50 << 20))
    assert source.loaded < 1 << 17


def values_or_error(data: bytes) -> dict[str, Any] | str:
    try:
        return read(data)
    except WireError as exc:
        return str(exc)


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_give_values_or_an_error(data: bytes) -> None:
    found = values_or_error(data)
    assert found.isprintable() if isinstance(found, str) else found.keys() <= {e.name for e in SCHEMA.values()}


@given(st.integers(0, 60_000), st.lists(st.integers(0, 40_000), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_a_file_is_read_as_memory_is(tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: list[int]) -> None:
    data = b"".join(field(3, 0, varint(size + seed)) + field(6, 2, bytes(size)) for size in sizes)
    many = SCHEMA | {6: Field("data", Kind.BYTES, 10)}
    path = tmp_path_factory.mktemp("file") / "data"
    path.write_bytes(data)
    with path.open("rb") as file:
        found = [
            Reader(source).message((0, len(data)), many, "test") for source in (InMemory(data), InFile(file.fileno()))
        ]
    assert found[0] == found[1] and len(found[0]["data"]) == len(sizes)


def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(field(6, 2, bytes(1 << 20)) + field(1, 0, b"\1"))
    with path.open("rb") as file:
        reader = Reader(InFile(file.fileno()))
        os.truncate(path, 100)
        with pytest.raises(WireError, match="became shorter"):
            reader.message(reader.whole, SCHEMA, "test")
