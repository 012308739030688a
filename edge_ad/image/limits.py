"""How large a picture may be. Its head says so before anything is decoded, and a small file can unpack to gigabytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from edge_ad.errors import ConfigError, ImageError

DEFAULT_MEGAPIXELS = 66.0
"""Above the largest area sensors in common use (65 megapixels), and such that a run stays below 1 GiB of memory."""

VARIABLE = "EDGE_AD_MAX_MEGAPIXELS"
MOST_MEGAPIXELS = 4000.0  # 12 GB for one frame
LONGEST_EDGE = 100_000  # pixels
LARGEST_FILE = 256 << 20  # bytes of a compressed picture that is decoded from memory

_chosen: list[float] = []


def max_megapixels() -> float:
    """What holds now: the innermost `limited_to`, else the environment variable, else the default.

    Raises: ConfigError when the variable holds no number of megapixels.
    """
    if _chosen:
        return _chosen[-1]
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT_MEGAPIXELS
    try:
        megapixels = float(text)
    except ValueError:
        megapixels = 0.0
    if not 0 < megapixels <= MOST_MEGAPIXELS:
        raise ConfigError(VARIABLE, [f"wanted a number of megapixels up to {MOST_MEGAPIXELS:.0f}, got {text!r:.40}"])
    return megapixels


@contextmanager
def limited_to(megapixels: float | None) -> Iterator[None]:
    """Let another limit hold for this process meanwhile; None changes nothing."""
    if megapixels is None:
        yield
        return
    _chosen.append(megapixels)
    try:
        yield
    finally:
        _chosen.remove(megapixels)


def check_size(width: int, height: int, *, bytes_per_pixel: float = 10.0) -> None:
    """Refuse a picture that is empty or too large to be decoded.

    Args:
        bytes_per_pixel: what decoding takes at its peak. The limit is meant for 10; what takes more has to be smaller.

    Raises: ImageError, which names the setting.
    """
    if width < 1 or height < 1:
        raise ImageError(f"no pixel in {width}x{height}; write it anew")
    limit = max_megapixels() * min(1.0, 10.0 / bytes_per_pixel)
    if max(width, height) > LONGEST_EDGE:
        raise ImageError(f"too large: {width}x{height}, wanted edges of {LONGEST_EDGE} pixels at most; scale it down")
    if width * height > limit * 1e6:
        raise ImageError(
            f"too large: {width}x{height} are {width * height / 1e6:.0f} megapixels, wanted {limit:g} at most; scale it"
            f" down, or raise the limit with --max-megapixels of 'edge-ad run' or {VARIABLE}"
        )
