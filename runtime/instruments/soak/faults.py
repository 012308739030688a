"""Kinds of faults. A new one is a function of its seam and one line of `FAULTS`."""

from __future__ import annotations

import errno
import random
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_ad.engine import BatchArray, Outputs
from edge_ad.errors import EngineError, ImageError, OutputError
from edge_ad.image.frame import Frame
from edge_ad.image.jpeg_marks import END, read_head
from edge_ad.runtime.host.opencv import load_cv2
from edge_ad.runtime.instruments.soak.dice import Fault
from edge_ad.runtime.instruments.soak.taken import taken_away
from edge_ad.runtime.sources.packets import bgr_of_packet

if TYPE_CHECKING:
    from edge_ad.runtime.instruments.soak.engine import WatchedEngine
    from edge_ad.runtime.instruments.soak.sinks import FaultySink
    from edge_ad.runtime.instruments.soak.sources import FaultySource
    from edge_ad.runtime.instruments.soak.storms import Storms

UNTIL_CLOSED_S = 3600.0


def drop(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The camera is unplugged, and plugged in again after some attempts to open it."""
    camera.pull_out(dice.randrange(3))
    return None


def freeze(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The read takes long."""
    camera.closed.wait(0.02 * 50 ** dice.random())
    return camera.next()


def hang(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The read does not come back, as long as the line runs."""
    camera.closed.wait(UNTIL_CLOSED_S)
    return camera.next()


def repeat(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The driver delivers its last buffer again."""
    camera.then(*[camera.again] * dice.randrange(5))
    return camera.again()


def corrupt(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The frame is torn, or no picture at all."""
    frame = camera.next()
    if frame is None:
        return None
    garbage: list[dict[str, Any]] = [
        {"image_hwc": None, "error": "simulated: torn"},
        {"image_hwc": None},
        {"image_hwc": np.zeros(dice.randrange(1, 99), np.uint8)},
        {"image_hwc": np.zeros((0, 0, 3), np.uint8)},
        {"image_hwc": np.zeros((8, 8, dice.choice([1, 4])), np.uint8)},
        {"image_hwc": np.full((8, 8, 3), np.nan, np.float32)},
        {"image_hwc": b"no array"},
    ]
    return camera.spoiled("corrupt", replace(frame, **dice.choice(garbage)))


def torn_mjpeg(camera: FaultySource, dice: random.Random) -> Frame | None:
    """A JPEG of the stream is cut off, or has a hole; the reader of streams decodes what is left of it."""
    frame = camera.next()
    if frame is None or frame.image_hwc is None:
        return frame
    _, encoded = load_cv2().imencode(".jpg", frame.image_hwc)
    whole = encoded.tobytes()
    coded = read_head(whole).first_scan
    at = dice.randrange(coded + (len(whole) - coded) // 5, len(whole) - (len(whole) - coded) // 5)
    hole = bytes(min(512, (len(whole) - at) // 2))
    torn = dice.choice([whole[:at], whole[:at] + END, whole[:at] + hole + whole[at + len(hole) :]])
    try:
        decoded: dict[str, Any] = {"image_hwc": bgr_of_packet(np.frombuffer(torn, np.uint8)), "color_order": "bgr"}
    except ImageError as exc:
        decoded = {"image_hwc": None, "error": str(exc)}
    return camera.spoiled("corrupt", replace(frame, **decoded))


def black(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The lights are out for some frames."""

    def dark() -> Frame | None:
        frame = camera.next()
        if frame is None or frame.image_hwc is None:
            return frame
        image = np.zeros_like(frame.image_hwc)
        image[0, 0] = 1 + camera.number_of(frame) % 7  # noise: no two pictures are the same
        return camera.spoiled("black", replace(frame, image_hwc=image))

    camera.then(*[dark] * dice.randrange(8))
    return dark()


def burst(camera: FaultySource, dice: random.Random) -> Frame | None:
    """Many frames at once, as after a stall of the network."""
    camera.then(*[camera.at_once] * dice.randrange(5, 30))
    return camera.at_once()


def engine_error(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine refuses a batch."""
    raise EngineError("simulated: device lost")


def engine_defect(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine fails as no engine should."""
    raise dice.choice([RuntimeError("simulated defect"), SystemError("simulated"), MemoryError()])


def engine_slow(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine takes long: a hot processor, a greedy neighbour."""
    engine.closed.wait(0.01 * 40 ** dice.random())
    return engine.compute(batch_nhwc)


def engine_nan(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine computes no number."""
    outputs = engine.compute(batch_nhwc)
    return replace(outputs, pred_score=np.full_like(outputs.pred_score, np.nan))


def engine_crash(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine's process is ended in the middle of a batch, as by a fault of its library or for want of memory."""
    engine.strike(signal.SIGKILL)
    return engine.compute(batch_nhwc)


def engine_hang(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine's process stands still."""
    engine.strike(signal.SIGSTOP)
    return engine.compute(batch_nhwc)


def sink_down(sink: FaultySink, dice: random.Random) -> None:
    """The broker is away for some writes."""

    def refuse() -> None:
        raise OutputError("simulated: no connection")

    sink.then(*[refuse] * dice.randrange(3))
    refuse()


def disk_full(sink: FaultySink, dice: random.Random) -> None:
    """The disk takes nothing."""
    raise OSError(errno.ENOSPC, "simulated: no space left on device")


def sink_slow(sink: FaultySink, dice: random.Random) -> None:
    """Every write takes its time for a while."""

    def dawdle() -> None:
        sink.closed.wait(0.02)

    sink.then(*[dawdle] * dice.randrange(1, 20))
    dawdle()


def sink_hung(sink: FaultySink, dice: random.Random) -> None:
    """One write hangs."""
    sink.closed.wait(0.1 * 15 ** dice.random())


def sink_defect(sink: FaultySink, dice: random.Random) -> None:
    """The sink fails as no sink should."""
    raise dice.choice([TypeError("simulated defect"), MemoryError()])


def records_removed(sink: FaultySink, dice: random.Random) -> None:
    """Somebody deletes the file of the sink, moves it away, or empties it as logrotate does."""
    if sink.path is not None and not sink.stays.is_set():
        taken_away(sink.path, dice.choice(["delete", "move", "empty"]))


def folder_removed(sink: FaultySink, dice: random.Random) -> None:
    """Somebody deletes the folder of the sink with all that is in it, or moves it away."""
    if sink.path is not None and not sink.stays.is_set():
        taken_away(sink.path.parent, dice.choice(["delete", "move"]))


def clock_jump(sink: FaultySink, dice: random.Random) -> None:
    """The clock of the machine is wrong, by an hour or by years, and set right some writes later."""
    sink.clock.jump(dice)
    sink.then(*[lambda: None] * dice.randrange(30), sink.clock.set_right)


def signal_storm(storms: Storms, dice: random.Random) -> None:
    """Somebody presses reload, and a script does so hundreds of times."""
    storms.strike(dice.randint(1, 400))


FAULTS: dict[str, Fault] = {
    "drop": Fault("source", drop, weight=0.2),
    "freeze": Fault("source", freeze),
    "hang": Fault("source", hang, weight=0.1),
    "repeat": Fault("source", repeat),
    "corrupt": Fault("source", corrupt),
    "torn-mjpeg": Fault("source", torn_mjpeg),
    "black": Fault("source", black),
    "burst": Fault("source", burst),
    "engine-error": Fault("engine", engine_error),
    "engine-defect": Fault("engine", engine_defect),
    "engine-slow": Fault("engine", engine_slow),
    "engine-nan": Fault("engine", engine_nan),
    "engine-crash": Fault("engine", engine_crash, weight=0.3, of_process=True),
    "engine-hang": Fault("engine", engine_hang, weight=0.1, of_process=True),
    "sink-down": Fault("sink", sink_down),
    "disk-full": Fault("sink", disk_full),
    "sink-slow": Fault("sink", sink_slow),
    "sink-hung": Fault("sink", sink_hung, weight=0.3),
    "sink-defect": Fault("sink", sink_defect),
    "records-removed": Fault("sink", records_removed, weight=0.5),
    "folder-removed": Fault("sink", folder_removed, weight=0.2),
    "clock-jump": Fault("sink", clock_jump, weight=0.3),
    "signal-storm": Fault("process", signal_storm),
}
"""Every kind by the name that the user gives it."""
