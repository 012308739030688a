"""Protobuf's wire format, read within bounds and without copying what is large.

Stricter than protobuf: a field that may stand once stands once, a number has one spelling, and a field that is not
expected is refused. What this reader takes, every parser of an engine reads in the same way.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from edge_ad.errors import BundleError

MOST_FIELDS = 500_000  # of a graph; real ones have some ten thousand, and reading this many takes a second
MOST_BYTES = (1 << 31) - 1  # protobuf's own limit
LONGEST_TEXT = 4096  # bytes of a name
WINDOW = 1 << 14  # bytes that are looked at together
HEADER = 20  # a key and a length, or a key and a number, take no more
LONGEST_VARINT = 10

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

Span = tuple[int, int]
"""Where the content of a field begins and ends in its source."""


class WireError(BundleError):
    """The bytes are no protobuf, or not what was expected of them."""


class Source(Protocol):
    """Bytes that lie somewhere. Attributes: size: how many."""

    @property
    def size(self) -> int: ...

    def load(self, start: int, stop: int) -> bytes:
        """A part, which lies inside."""
        ...


class InMemory:
    """Bytes as a source."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def load(self, start: int, stop: int) -> bytes:
        return self._data[start:stop]


class InFile:
    """An open file as a source; of what is large, only the beginning is read."""

    AHEAD = 1 << 16

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._held, self._base = b"", 0

    def load(self, start: int, stop: int) -> bytes:
        """Raises: OSError; WireError when the file has become shorter."""
        if not self._base <= start <= stop <= self._base + len(self._held):
            self._held = self._read(start, max(stop, min(start + self.AHEAD, self.size)))
            self._base = start
        return self._held[start - self._base : stop - self._base]

    def _read(self, start: int, stop: int) -> bytes:
        parts, at = [], start
        while at < stop:
            part = os.pread(self._descriptor, stop - at, at)
            if not part:
                raise WireError("it became shorter while it was read")
            parts.append(part)
            at += len(part)
        return b"".join(parts)


class Kind(Enum):
    """What a field holds."""

    NUMBER = "a whole number"  # signed, 64 bits
    FLOAT = "a number"  # 32 bits
    TEXT = "text"
    MESSAGE = "a message"
    BYTES = "bytes"


@dataclass(frozen=True)
class Field:
    """A field that may stand in a message.

    Attributes:
        name: in the schema of ONNX.
        kind: what it holds. Of a message and of bytes, the span is given; of texts, the text.
        most: how often it may stand; 1 for one that is no list.
        refused: why it may not stand there at all; None where it may.
    """

    name: str
    kind: Kind
    most: int = 1
    refused: str | None = None


Schema = Mapping[int, Field]
"""Fields of a message by their numbers."""


class Reader:
    """Reads messages of one source, with a limit on the number of fields of all of them together."""

    def __init__(self, source: Source) -> None:
        if source.size > MOST_BYTES:
            raise WireError(f"it has {source.size} bytes, a graph has {MOST_BYTES} at most")
        self._source = source
        self._left = MOST_FIELDS

    @property
    def whole(self) -> Span:
        return 0, self._source.size

    def bytes_of(self, span: Span) -> bytes:
        return self._source.load(*span)

    def message(self, span: Span, schema: Schema, what: str) -> dict[str, Any]:
        """Values of a message by name; those of lists as lists, and nothing for those that are not there.

        Args:
            what: names the message in errors.

        Raises: WireError.
        """
        values: dict[str, Any] = {}
        for number, wire, value in self._fields(span, what):
            field = schema.get(number)
            if field is None:
                raise WireError(f"{what}: field {number} is unknown")
            if field.refused is not None:
                raise WireError(f"{what}: {field.name}: {field.refused}")
            if field.most == 1:
                if field.name in values:
                    raise WireError(f"{what}: {field.name} is given twice")
                values[field.name] = self._value(field, wire, value, what)
                continue
            held = values.setdefault(field.name, [])
            if wire == LENGTH and field.kind in (Kind.NUMBER, Kind.FLOAT):
                held += self._packed(field, value, what)
            else:
                held.append(self._value(field, wire, value, what))
            if len(held) > field.most:
                raise WireError(f"{what}: {field.name} has more than {field.most} entries")
        return values

    def numbers(self, span: Span, most: int, what: str) -> list[int]:
        """Whole numbers that are packed. Raises: WireError for more than `most`."""
        start, stop = span
        if stop - start > most * LONGEST_VARINT:
            raise WireError(f"{what}: more than {most} numbers")
        data, at, found = self._source.load(start, stop), 0, []
        while at < len(data):
            number, at = _varint(data, at, what)
            found.append(_signed(number))
        if len(found) > most:
            raise WireError(f"{what}: more than {most} numbers")
        return found

    def _packed(self, field: Field, span: Span, what: str) -> list[Any]:
        where = f"{what}: {field.name}"
        if field.kind is Kind.NUMBER:
            found: list[Any] = self.numbers(span, field.most, where)
        else:
            start, stop = span
            if (stop - start) % 4 or stop - start > 4 * field.most:
                raise WireError(f"{where} is no list of at most {field.most} numbers")
            found = list(struct.unpack(f"<{(stop - start) // 4}f", self._source.load(start, stop)))
        self._spend(len(found), what)
        return found

    def _value(self, field: Field, wire: int, value: Any, what: str) -> Any:
        where = f"{what}: {field.name}"
        match field.kind, wire:
            case Kind.NUMBER, 0:
                return _signed(value)
            case Kind.FLOAT, 5:
                return struct.unpack("<f", value)[0]
            case ((Kind.MESSAGE | Kind.BYTES), 2):
                return value
            case Kind.TEXT, 2:
                return self._text(value, where)
        raise WireError(f"{where}: wanted {field.kind.value}, got wire type {wire}")

    def _text(self, span: Span, where: str) -> str:
        start, stop = span
        if stop - start > LONGEST_TEXT:
            raise WireError(f"{where}: {stop - start} bytes long, {LONGEST_TEXT} are the most")
        try:
            text = self._source.load(start, stop).decode("utf-8")
        except UnicodeDecodeError as exc:
            raise WireError(f"{where}: is no UTF-8") from exc
        if not text.isprintable():
            raise WireError(f"{where}: {ascii(text)[:80]} holds characters that cannot be printed")
        return text

    def _fields(self, span: Span, what: str) -> Iterator[tuple[int, int, Any]]:
        """Number, wire type and content of each field: an unsigned number, 4 or 8 bytes, or a span."""
        position, stop = span
        base, chunk = position, b""
        while position < stop:
            if position + HEADER > base + len(chunk) and base + len(chunk) < stop:
                base, chunk = position, self._source.load(position, min(stop, position + WINDOW))
            self._spend(1, what)
            key, at = _varint(chunk, position - base, what)
            number, wire = key >> 3, key & 7
            value: Any
            if wire == VARINT:
                value, at = _varint(chunk, at, what)
                position = base + at
            elif wire == LENGTH:
                length, at = _varint(chunk, at, what)
                position = base + at + length
                value = (base + at, position)
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
                value, position = chunk[at : at + size], base + at + size
            else:
                raise WireError(f"{what}: field {number} has wire type {wire}")
            if position > stop:
                raise WireError(f"{what}: field {number} is cut off")
            yield number, wire, value

    def _spend(self, fields: int, what: str) -> None:
        self._left -= fields
        if self._left < 0:
            raise WireError(f"{what}: the graph has more than {MOST_FIELDS} fields")


def _varint(data: bytes, at: int, what: str) -> tuple[int, int]:
    """An unsigned number and where the next thing begins."""
    try:
        byte = data[at]
        if byte < 0x80:
            return byte, at + 1
        number, shift = byte & 0x7F, 7
        while True:
            at += 1
            byte = data[at]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 7 * (LONGEST_VARINT - 1):
                raise WireError(f"{what}: a number is too long")
    except IndexError as exc:
        raise WireError(f"{what}: cut off in the middle of a number") from exc
    if byte == 0 or number >> 64:
        raise WireError(f"{what}: a number is spelled in another way than the shortest, or is too large")
    return number, at + 1


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
