"""Decoding: file or stream → (H, W, 3) uint8, through the sources that the line uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_ad.image.pictures import read_picture
from edge_ad.runtime.sources.loop import Looping
from edge_ad.runtime.sources.video import VideoSource


@pytest.fixture(scope="module")
def measured(measure: Any, pictures: Path) -> Iterator[Any]:
    with Looping(VideoSource(str(pictures / "frames.avi"))) as video:
        yield measure(
            {
                "jpeg-1080p": lambda: picture(pictures / "frame.jpg"),
                "png-1080p": lambda: picture(pictures / "frame.png"),
                "video-1080p": lambda: frame(video),
            }
        )


def picture(path: Path) -> None:
    read_picture(str(path))


def frame(video: Any) -> None:
    read = video.read()
    assert read is not None and read.image_hwc is not None


@pytest.mark.parametrize("subject", ["jpeg-1080p", "png-1080p", "video-1080p"])
def test_decode(subject: str, measured: Any, stored: Callable[..., None]) -> None:
    stored(measured[subject])
