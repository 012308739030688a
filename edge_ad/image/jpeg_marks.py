"""The markers of a JPEG: what it says of itself, and whether its coded data can be what an encoder wrote.

A decoder fills up what is missing. What it counts as damage is asked of it in `edge_ad.image.jpeg`; here is what no
decoder tells: zeros that no encoder writes, passes that are missing altogether, a second picture behind the first.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_ad.errors import ImageError
from edge_ad.image.orientation import UPRIGHT, exif_orientation

START, END = b"\xff\xd8", b"\xff\xd9"
ZEROS = bytes(16)
MOST_SCANS = 200  # encoders write a dozen; thousands of them would keep a decoder busy for hours

_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_DHT, _SOI, _EOI, _SOS, _APP1, _APP2 = 0xC4, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2
_BEHIND_CODED = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # a marker that ends coded data

# What zero bits stand for in the tables that a file without any means (ITU T.81, K.3), for luminance and chrominance.
_STANDARD_ZEROS = {(0, 0): 0, (0, 1): 0, (1, 0): 0x01, (1, 1): 0x00}


@dataclass
class JpegHead:
    """What stands in front of the coded data.

    Attributes:
        process: number of the frame marker: 0xC0 baseline, 0xC2 progressive, ...
        bits: of a sample.
        width, height: in pixels, as stored.
        components: their identifiers, in order.
        orientation: 1 to 8.
        profile: colour profile, or its first piece; empty for none.
        further: whether the file says that other pictures follow (MPO).
        zeros: what a run of zero bits stands for, by class (0 DC, 1 AC) and number of the table.
        first_scan: where the marker of the first scan stands.
    """

    process: int = 0
    bits: int = 0
    width: int = 0
    height: int = 0
    components: tuple[int, ...] = ()
    orientation: int = UPRIGHT
    profile: bytes = b""
    further: bool = False
    zeros: dict[tuple[int, int], int] = field(default_factory=lambda: dict(_STANDARD_ZEROS))
    first_scan: int = 0

    @property
    def is_progressive(self) -> bool:
        return self.process in _PROGRESSIVE


@dataclass(frozen=True)
class _Scan:
    """One pass: its components with their tables, the coefficients it codes, and where its coded data lies."""

    components: tuple[tuple[int, int, int], ...]  # identifier, DC table, AC table
    first: int
    last: int
    high: int
    low: int
    start: int
    end: int

    def may_hold_zeros(self, head: JpegHead) -> bool:
        """Whether an encoder writes long runs of zero bytes here: a flat picture in the shortest of codes."""
        if head.process not in _HUFFMAN or self.high > 0:
            return True  # arithmetic coding, or single bits that make the coefficients more exact
        for _, dc, ac in self.components:
            if self.first == 0 and head.zeros.get((0, dc), 0) != 0:
                return False
            symbol = head.zeros.get((1, ac), 0)
            ends_block = symbol & 0x0F == 0 and symbol != 0xF0
            if self.last > 0 and not ends_block:
                return False
        return True


def read_head(data: bytes) -> JpegHead:
    """What a JPEG says of itself. Raises: ImageError when it has no frame or no coded data."""
    if not data.startswith(START):
        raise ImageError("not a picture in JPEG format, or damaged at its start")
    head = JpegHead()
    for marker, place, _, segment in _segments(data, len(START)):
        _note(head, marker, segment)
        if marker == _SOS:
            head.first_scan = place
            if not head.process:
                break
            return head
        if marker == _EOI:
            break
    raise ImageError(
        "a JPEG without a picture: cut off, or damaged in its head; check the camera, the network, or what wrote it"
    )


def check_coded(data: bytes, head: JpegHead) -> None:
    """Look at the coded data without decoding it.

    Raises: ImageError for zeros that no encoder writes, for a missing end, and for missing passes.
    """
    missing = {component: dict.fromkeys(range(64), 1) for component in head.components}
    scans = 0
    place = head.first_scan
    while True:
        marker, scan, place = _next_scan(data, place, head)
        if scan is None:
            break
        scans += 1
        if scans > MOST_SCANS:
            raise ImageError(f"a JPEG of more than {MOST_SCANS} passes, which no camera writes; convert it")
        zeros = data.find(ZEROS, scan.start, scan.end)
        if zeros >= 0 and not scan.may_hold_zeros(head):
            raise ImageError(
                f"damaged JPEG: zeros in place of coded data at byte {zeros};"
                " check the camera, the network, or what wrote it"
            )
        for component, _, _ in scan.components:
            left = missing.get(component, {})
            for coefficient in range(scan.first, min(scan.last, 63) + 1) if head.is_progressive else range(64):
                left[coefficient] = scan.low if head.is_progressive else 0
    if marker != _EOI:
        raise ImageError("cut off: the JPEG has no end; check the camera, the network, or what wrote it")
    if any(low for left in missing.values() for low in left.values()):
        raise ImageError("cut off: passes of the JPEG are missing; check the camera, the network, or what wrote it")


def picture_end(data: bytes, head: JpegHead) -> int:
    """Where the picture ends, behind its end marker; the end of the data where there is none."""
    place = head.first_scan
    while True:
        marker, scan, place = _next_scan(data, place, head)
        if scan is None:
            return place if marker == _EOI else len(data)


def is_suspicious(data: bytes, head: JpegHead) -> bool:
    """Whether `check_coded` has something to look at; for most pictures a quick look says that it has not."""
    several = head.is_progressive or data[head.first_scan + 4 : head.first_scan + 5] != bytes([len(head.components)])
    return several or data.find(ZEROS, head.first_scan) >= 0


def _segments(data: bytes, place: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Marker, where it begins, where what belongs to it ends, and its content; ends where there is no marker."""
    while True:
        begin = place
        while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] == b"\xff":
            place += 1
        if data[place : place + 1] != b"\xff" or place + 1 >= len(data):
            return
        marker = data[place + 1]
        if marker in _BARE or marker in (_SOI, _EOI):
            place += 2
            yield marker, begin, place, b""
            continue
        if place + 4 > len(data):
            return
        (length,) = struct.unpack_from(">H", data, place + 2)
        if length < 2 or place + 2 + length > len(data):
            return
        end = place + 2 + length
        yield marker, begin, end, data[place + 4 : end]
        place = end


def _next_scan(data: bytes, place: int, head: JpegHead) -> tuple[int, _Scan | None, int]:
    """The next marker that is a scan or the end; 0 for none. Behind a scan `place` is at the marker after it."""
    for marker, at, start, segment in _segments(data, place):
        if marker == _EOI:
            return marker, None, start
        if marker == _SOS:
            count = segment[0] if segment else 0
            if len(segment) < 1 + 2 * count + 3:
                return 0, None, at
            behind = _BEHIND_CODED.search(data, start)
            end = len(data) if behind is None else behind.start()
            pairs = [(segment[1 + 2 * n], segment[2 + 2 * n]) for n in range(count)]
            first, last, steps = segment[1 + 2 * count : 4 + 2 * count]
            components = tuple((component, tables >> 4, tables & 15) for component, tables in pairs)
            return marker, _Scan(components, first, last, steps >> 4, steps & 15, start, end), end
        _note(head, marker, segment)
    return 0, None, place


def _note(head: JpegHead, marker: int, segment: bytes) -> None:
    """Take from a segment what is of use."""
    if marker in _SOF and len(segment) >= 6 and not head.process:
        head.process = marker
        head.bits, head.height, head.width, count = struct.unpack_from(">BHHB", segment)
        head.components = tuple(segment[6 : 6 + 3 * count : 3])
    elif marker == _DHT:
        head.zeros.update(_tables(segment))
    elif marker == _APP1 and segment.startswith(b"Exif\0\0"):
        head.orientation = exif_orientation(segment[6:])
    elif marker == _APP2 and segment.startswith(b"ICC_PROFILE\0"):
        head.profile = head.profile or segment[14:]
    elif marker == _APP2 and segment.startswith(b"MPF\0"):
        head.further = True


def _tables(segment: bytes) -> Iterator[tuple[tuple[int, int], int]]:
    """Class and number of each Huffman table in a segment, with the symbol whose code is all zeros: its first."""
    place = 0
    while place + 17 < len(segment):
        kind = segment[place]
        yield (kind >> 4, kind & 15), segment[place + 17]
        place += 17 + sum(segment[place + 1 : place + 17])
