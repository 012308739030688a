"""Files that list sources."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import SourceError
from edge_ad.runtime.sources.stream_list import listed_sources
from edge_ad.runtime.station.settings import CameraSettings, LineSettings, contradictions


def test_a_list_among_other_sources(tmp_path: Path) -> None:
    path = tmp_path / "line3.STREAMS"
    path.write_text("# hall 3\n\nrtsp://cam/1#main\n   camera:0\r\nb\u00e4nder/*.png \n#camera:1\n", "utf-8")
    wanted = ("sim:", "rtsp://cam/1#main", "camera:0", "b\u00e4nder/*.png", "folder")
    assert listed_sources(["sim:", str(path), "folder"]) == wanted


def test_an_address_is_no_list() -> None:
    for source in ("http://cam/all.streams", "gst:rtspsrc location=rtsp://cam/all.streams"):
        assert listed_sources([source]) == (source,)
        assert not list(contradictions(LineSettings(bundle=Path("b"), cameras=(CameraSettings(source=source),))))


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), (b"# nothing\n\n", "lists none"), (b"\xff\xfe", "no UTF-8")]
)
def test_a_list_that_is_none(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "line.streams"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=words):
        listed_sources([str(path)])


@settings(max_examples=60, derandomize=True, deadline=None)
@given(content=st.binary(max_size=80))
def test_any_content_is_a_list_or_a_clean_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.streams"
    path.write_bytes(content)
    try:
        sources = listed_sources([str(path)])
    except SourceError:
        return
    assert sources
    assert all(source and source == source.strip() and not source.startswith("#") for source in sources)
