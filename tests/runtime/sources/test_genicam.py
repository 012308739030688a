"""GenICam cameras, played by a module with the interface of harvesters; the interface is compared with the real one."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad.errors import MissingExtraError, SourceError
from edge_ad.image.frame import Frame
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.sources.backoff import Backoff
from edge_ad.runtime.sources.settings import SourceSettings

PATIENCE_S = 10
RED_RGB, BLUE_RGB = (255, 0, 0), (0, 0, 255)


class Part:
    def __init__(self, samples: np.ndarray, data_format: str, width: int, height: int) -> None:
        self.data, self.data_format, self.width, self.height = samples, data_format, width, height


class Buffer:
    """One filled buffer; its memory is the camera's again once it was queued."""

    def __init__(self, part: Part | None) -> None:
        self.payload = types.SimpleNamespace(components=[] if part is None else [part])
        self.queued = 0

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.queue()

    def queue(self) -> None:
        self.queued += 1
        for part in self.payload.components:
            part.data[:] = 77


class Bench:
    """The cameras on the network, and what they send: buffers, `None`, `torn`, or an exception."""

    def __init__(self) -> None:
        self.serials = ["0042"]
        self.script: list[Any] = []
        self.sent: list[Buffer] = []
        self.log: list[str] = []
        self.refuse: Exception | None = None

    def module(self) -> types.ModuleType:
        bench = self

        class Callback:
            def emit(self, context: object = None) -> None:
                raise NotImplementedError

        class ImageAcquirer:
            Events = types.SimpleNamespace(INCOMPLETE_BUFFER=4)

            def add_callback(self, event: int, callback: Callback) -> None:
                assert event == 4
                self.callback = callback

            def start(self, *, run_as_thread: bool = False) -> None:
                bench.log.append("start")

            def try_fetch(self, *, timeout: float, is_raw: bool = False) -> Buffer | None:
                step = bench.script.pop(0) if bench.script else None
                if step is None:
                    threading.Event().wait(min(timeout, 0.01))
                    return None
                if step == "torn":
                    self.callback.emit()
                    return None
                if isinstance(step, Exception):
                    raise step
                bench.sent.append(step)
                return step

            def stop(self) -> None:
                bench.log.append("stop")

            def destroy(self) -> None:
                bench.log.append("destroy")

        class Harvester:
            device_info_list: list[Any]

            def __init__(self) -> None:
                self.device_info_list = []

            def add_file(self, file_path: str, check_existence: bool = False, check_validity: bool = False) -> None:
                assert check_existence and check_validity
                if not os.path.exists(file_path):
                    raise FileNotFoundError(file_path)

            def update(self) -> None:
                self.device_info_list = [
                    types.SimpleNamespace(serial_number=serial, model="Eye") for serial in bench.serials
                ]

            def create(self, search_key: int | None = None, *, config: object = None) -> ImageAcquirer:
                if bench.refuse is not None:
                    raise bench.refuse
                bench.log.append(f"create {search_key}")
                return ImageAcquirer()

            def reset(self) -> None:
                bench.log.append("reset")

        module = types.ModuleType("harvesters.core")
        module.Callback, module.Harvester, module.ImageAcquirer = Callback, Harvester, ImageAcquirer  # type: ignore[attr-defined]
        return module


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    bench = Bench()
    monkeypatch.setitem(sys.modules, "harvesters", types.ModuleType("harvesters"))
    monkeypatch.setitem(sys.modules, "harvesters.core", bench.module())
    (tmp_path / "producer.cti").write_bytes(b"")
    monkeypatch.setenv("GENICAM_GENTL64_PATH", f"/no/such/folder{os.pathsep}{tmp_path}")
    return bench


def picture(data_format: str, colour: tuple[int, int, int]) -> Buffer:
    """4 × 6 pixels of one colour, as RGB8 or BayerRG8."""
    image = np.full((4, 6, 3), colour, np.uint8)
    if data_format == "BayerRG8":
        mosaic = image[..., 1].copy()
        mosaic[::2, ::2], mosaic[1::2, 1::2] = colour[0], colour[2]
        return Buffer(Part(mosaic.ravel(), data_format, 6, 4))
    return Buffer(Part(image.ravel().copy(), data_format, 6, 4))


def bgr_of(frame: Frame | None) -> tuple[int, ...]:
    assert frame is not None and frame.image_hwc is not None and frame.color_order == "bgr"
    assert frame.image_hwc.shape == (4, 6, 3)
    return tuple(int(value) for value in frame.image_hwc.reshape(-1, 3).max(axis=0))


@pytest.mark.parametrize("data_format", ["RGB8", "BayerRG8"])
def test_frames_are_copied_out_in_bgr_and_their_buffers_given_back(bench: Bench, data_format: str) -> None:
    bench.script = [None, picture(data_format, RED_RGB), picture(data_format, BLUE_RGB)]
    with open_source("genicam:0042") as source:
        assert source.live and source.name == "genicam:0042"
        frames = [source.read(), source.read()]
    assert [bgr_of(frame) for frame in frames] == [(0, 0, 255), (255, 0, 0)]
    assert [frame.frame_id for frame in frames if frame] == [0, 1]
    assert [buffer.queued for buffer in bench.sent] == [1, 1]
    assert bench.log == ["create 0", "start", "stop", "destroy", "reset"]


def test_a_frame_with_lost_packets_or_without_an_image_is_an_error_frame(bench: Bench) -> None:
    odd = picture("RGB8", RED_RGB)
    odd.payload.components[0].data_format = "Confidence8"
    bench.script = ["torn", Buffer(None), odd, picture("RGB8", RED_RGB)]
    with open_source("genicam:") as source:
        frames = [source.read() for _ in range(4)]
    errors = [frame.error if frame else "" for frame in frames]
    for error, words in zip(errors[:3], ("did not arrive whole", "holds no image", "Confidence8"), strict=True):
        assert error is not None and words in error
    assert errors[3] is None
    assert [frame.frame_id for frame in frames if frame] == [0, 1, 2, 3]


def test_a_camera_that_is_unplugged_comes_back_in_its_colours(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self: 0.001)
    bench.script = [picture("RGB8", RED_RGB), RuntimeError("GC_ERR_IO\nlink down"), picture("BayerRG8", RED_RGB)]
    with open_source("genicam:0042", SourceSettings()) as source:
        frames = [source.read(), source.read()]
    assert [bgr_of(frame) for frame in frames] == [(0, 0, 255)] * 2
    assert [frame.frame_id for frame in frames if frame] == [0, 1]
    assert bench.log.count("reset") == 2  # the first opening was cleaned up


def test_a_lost_camera_is_one_line(bench: Bench) -> None:
    bench.script = [RuntimeError("GC_ERR_IO\nlink down")]
    with (
        open_source("genicam:") as source,
        pytest.raises(SourceError, match=r"lost after 0 frame.*GC_ERR_IO") as caught,
    ):
        source.read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("serials", "uri", "words"),
    [
        ([], "genicam:", "wanted one camera, found: none"),
        (["1", "2"], "genicam:", "found: Eye 1, Eye 2; name one"),
        (["1", "2"], "genicam:3", "no camera of that serial number; found: Eye 1, Eye 2"),
        (["1"], "genicam:?cti=/no/such.cti", "does not start"),
    ],
)
def test_what_does_not_start_says_why_and_is_cleaned_up(bench: Bench, serials: list[str], uri: str, words: str) -> None:
    bench.serials = serials
    with pytest.raises(SourceError, match=words), open_source(uri):
        pass
    assert bench.log == ["reset"]


def test_a_camera_in_use_elsewhere_is_one_line(bench: Bench) -> None:
    bench.refuse = RuntimeError("GC_ERR_ACCESS_DENIED")
    with pytest.raises(SourceError, match=r"GC_ERR_ACCESS_DENIED; is it in use elsewhere"), open_source("genicam:0042"):
        pass


def test_a_camera_that_waits_for_its_trigger_can_be_closed(bench: Bench) -> None:
    answers: list[Frame | None] = []
    with open_source("genicam:") as source:
        reader = threading.Thread(target=lambda: answers.append(source.read()))
        reader.start()
    reader.join(PATIENCE_S)
    assert not reader.is_alive() and answers == [None]


def test_without_harvesters_or_producer_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    with pytest.raises(SourceError, match=r"no GenTL producer.*GENICAM_GENTL64_PATH"):
        open_source("genicam:")
    with pytest.raises(SourceError, match="unknown key 'exposure'"):
        open_source("genicam:1?exposure=3")
    monkeypatch.setitem(sys.modules, "harvesters", None)
    monkeypatch.setitem(sys.modules, "harvesters.core", None)
    with pytest.raises(MissingExtraError, match=r"edge-ad\[genicam\]"), open_source("genicam:?cti=a.cti"):
        pass


def test_harvesters_has_the_interface_that_is_played_here(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    played = sys.modules["harvesters.core"]
    monkeypatch.undo()
    real = pytest.importorskip("harvesters.core", reason="harvesters is not installed")
    for owner, method in (
        ("Harvester", "add_file"),
        ("Harvester", "update"),
        ("Harvester", "create"),
        ("Harvester", "reset"),
        ("ImageAcquirer", "add_callback"),
        ("ImageAcquirer", "start"),
        ("ImageAcquirer", "try_fetch"),
        ("ImageAcquirer", "stop"),
        ("ImageAcquirer", "destroy"),
    ):
        ours = inspect.signature(getattr(getattr(played, owner), method)).parameters
        theirs = inspect.signature(getattr(getattr(real, owner), method)).parameters
        assert {name: p.kind for name, p in ours.items()}.items() <= {
            name: p.kind for name, p in theirs.items()
        }.items()
    assert real.ImageAcquirer.Events.INCOMPLETE_BUFFER == played.ImageAcquirer.Events.INCOMPLETE_BUFFER
    assert callable(real.Callback.emit) and isinstance(real.Harvester.device_info_list, property)
    for attribute in ("data", "data_format", "width", "height"):
        assert hasattr(real.Component2DImage, attribute)
    assert {"serial_number", "model"} <= set(real.DeviceInfo.search_keys)
