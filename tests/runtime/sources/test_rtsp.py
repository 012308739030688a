"""RTSP from a real server on loopback: colours, losses, ages and credentials."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.sources.outage import Lost, Outage, Returned
from edge_ad.runtime.sources.reconnect import Reconnecting
from edge_ad.runtime.sources.settings import SourceSettings

RED_BGR, BLUE_BGR = (0, 0, 255), (255, 0, 0)
TOLERANCE = 24  # grey levels; the codecs halve the resolution of colour and the range of levels

MOST_FRAMES = 500


def check_colours(frame: Frame | None) -> None:
    """The last bars of the test card are red and blue, in the order that the frame says."""
    assert frame is not None and frame.image_hwc is not None and frame.error is None
    assert frame.image_hwc.shape == (96, 168, 3) and frame.color_order == "bgr"
    for columns, wanted in ((slice(124, 140), RED_BGR), (slice(148, 164), BLUE_BGR)):
        np.testing.assert_allclose(frame.image_hwc[8:56, columns].mean((0, 1)), wanted, atol=TOLERANCE)


@pytest.mark.parametrize("rtsp_server", [("jpeg",), ("h264",)], indirect=True, ids=["jpeg", "h264"])
def test_a_camera_that_is_switched_off_and_on_goes_on_in_the_same_colours(rtsp_server: Any) -> None:
    outages: list[Outage] = []
    source = open_source(f"rtsp://{rtsp_server.address}?token=hidden", SourceSettings())
    assert isinstance(source, Reconnecting)

    def switch_on_again(outage: Outage) -> None:
        outages.append(outage)
        if isinstance(outage, Lost):
            rtsp_server.start()

    source.report_to(switch_on_again)
    with source:
        frames = [source.read() for _ in range(3)]
        rtsp_server.kill()
        while len(outages) < 2 and len(frames) < MOST_FRAMES:
            frames.append(source.read())
        frames += [source.read() for _ in range(3)]
    for frame in frames:  # the first behind the loss is among them
        check_colours(frame)
    assert [frame.frame_id for frame in frames if frame] == list(range(len(frames)))
    lost, back = outages
    assert isinstance(lost, Lost) and lost.cause == "lost"
    assert isinstance(back, Returned) and back.attempts >= 1
    assert "hidden" not in repr(outages) and "hidden" not in repr(frames[0] and frames[0].source)


@pytest.mark.parametrize("rtsp_server", [("vp8",)], indirect=True, ids=["vp8"])
def test_frames_that_waited_in_the_connection_are_as_old_as_they_are(rtsp_server: Any) -> None:
    """TCP keeps what is not read; without an age, a backlog would pass for the present."""
    rest_s = 1.0
    ages_s = []
    with open_source(f"rtsp://{rtsp_server.address}") as source:
        for number in range(60):
            if number == 20:
                time.sleep(rest_s)
            frame = source.read()
            assert frame is not None
            age_s = (time.monotonic_ns() - frame.captured_ns) / 1e9
            assert (time.time() - frame.captured_at.timestamp()) == pytest.approx(age_s, abs=0.05)
            ages_s.append(age_s)
    assert min(ages_s[20:23]) > 0.6 * rest_s
    assert np.median(ages_s[:20]) < 0.2 * rest_s
    assert ages_s[-1] < 0.5 * ages_s[20]  # it caught up


@pytest.mark.parametrize("rtsp_server", [("jpeg", "locked")], indirect=True, ids=["locked"])
def test_a_password_opens_the_stream_and_is_shown_nowhere(rtsp_server: Any) -> None:
    with open_source(f"rtsp://operator:hunter2@{rtsp_server.address}", SourceSettings()) as source:
        frame = source.read()
    check_colours(frame)
    assert frame is not None and frame.source == source.name == f"rtsp://{rtsp_server.address}"
    source = open_source(f"rtsp://operator:hunter3@{rtsp_server.address}", SourceSettings())
    with pytest.raises(SourceError, match="user name and password") as caught, source:
        pass
    assert "hunter" not in str(caught.value) and "operator" not in str(caught.value)


@pytest.mark.parametrize("rtsp_server", [("vp8",)], indirect=True, ids=["vp8"])
@pytest.mark.usefixtures("gst")
def test_the_same_camera_through_a_pipeline(rtsp_server: Any) -> None:
    pipeline = f"rtspsrc location=rtsp://u:hunter2@{rtsp_server.address} protocols=tcp latency=0 ! decodebin"
    outages: list[Outage] = []
    source = open_source(f"gst:{pipeline}", SourceSettings())
    assert isinstance(source, Reconnecting)

    def switch_on_again(outage: Outage) -> None:
        outages.append(outage)
        if isinstance(outage, Lost):
            rtsp_server.start()

    source.report_to(switch_on_again)
    with source:
        assert source.live
        frames = [source.read() for _ in range(3)]
        rtsp_server.kill()
        while len(outages) < 2 and len(frames) < MOST_FRAMES:
            frames.append(source.read())
        frames.append(source.read())
    for frame in frames:
        check_colours(frame)
    assert [type(outage) for outage in outages] == [Lost, Returned]
    assert "hunter2" not in repr(outages) + source.name
