"""Names of picture files: whatever the file was called, its picture has a name that a folder takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.runtime.sinks.naming import NAME_BYTES, fitting_name, longest_name

STEMS = st.binary(min_size=1, max_size=260).map(os.fsdecode) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=260
)


@given(STEMS, st.sampled_from([".png", ".jpg"]), st.integers(40, NAME_BYTES))
def test_a_name_fits_and_is_text(stem: str, suffix: str, most: int) -> None:
    name = fitting_name(stem, suffix, most)
    assert len(name.encode("utf-8")) <= most  # and no byte of it is half a character
    assert name.endswith(suffix)
    assert fitting_name(stem, suffix, most) == name
    data = os.fsencode(stem)
    if len(data) + len(suffix) <= most and data.decode("utf-8", "replace").encode() == data:
        assert name == stem + suffix


@given(STEMS, STEMS, st.integers(40, NAME_BYTES))
def test_two_names_stay_two(one: str, other: str, most: int) -> None:
    assert (fitting_name(one, ".png", most) == fitting_name(other, ".png", most)) == (one == other)


def test_a_name_is_cut_between_two_characters() -> None:
    name = fitting_name("検" * 100, ".png")
    head, _, end = name.partition("-")
    assert set(head) == {"検"} and len(end) == len("12345678.png")
    assert NAME_BYTES - 3 < len(name.encode()) <= NAME_BYTES


def test_a_folder_says_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 40 <= longest_name(tmp_path) <= NAME_BYTES
    monkeypatch.setattr(os, "pathconf", lambda folder, name: 143, raising=False)  # encrypted names
    assert longest_name(tmp_path) == 143
    assert longest_name(tmp_path / "absent") == 143
    monkeypatch.delattr(os, "pathconf")
    assert longest_name(tmp_path) == NAME_BYTES
