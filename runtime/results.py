"""Names in a folder of results, for those who write them and those who must not take them for input."""

from __future__ import annotations

import re
from pathlib import Path

RECORDS = "verdicts.jsonl"
_PICTURES = re.compile(r"(masks|overlays)(-\d{8}T\d{6}Z(-\d+)?)?")  # an earlier run's carry its date


def is_picture_folder(name: str) -> bool:
    """Whether a subfolder of a folder of results holds pictures that edge-ad drew."""
    return _PICTURES.fullmatch(name) is not None


def has_earlier_records(folder: Path) -> bool:
    """Whether a run before the present one has written records here."""
    stem, suffix = RECORDS.split(".")
    return any(folder.glob(f"{stem}-*.{suffix}"))
