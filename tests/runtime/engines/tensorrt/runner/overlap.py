"""Scenarios that look at what else goes on while the graph computes a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from station import Emulator, Station

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.engines.tensorrt.runner.device import open_device
from edge_ad.runtime.engines.tensorrt.runner.preprocess import CudaPreprocessor

ENDS_S = 20.0  # for what does not have to wait
WAITS_S = 0.5  # for what does, and would wait for as long as it is let
SM = 86


def copies_beside_computing(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Two pieces: while the first is computed, how many copies are queued, and whether the second one's upload ends."""
    found: dict[str, Any] = {}
    station.put((1, 1, 1))
    device = open_device(0)

    with station.engine() as engine:
        pipeline: Any = engine
        pipeline = pipeline._pipeline

        def wait_for(name: str) -> None:
            with device.use("wait"):
                getattr(pipeline._streams, name).synchronize()

        def look() -> None:
            found["copies"] = emulator.report()["copies"] - before
            found["upload ends"] = _ends(lambda: wait_for("up"), ENDS_S)
            found["computing ends"] = _ends(lambda: wait_for("compute"), WAITS_S)

        before = emulator.report()["copies"]
        _during_the_first_run(engine, look)
        engine.infer(station.images(2))
        _join()
    return {**found, "held": emulator.held(), "faults": emulator.report()["faults"]}


def resizing_beside_computing(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Single frames: whether the next one becomes a model input while this one is computed. Control: on one stream."""
    found: dict[str, Any] = {}
    station.put((1, 1, 1))
    spec = PreprocessSpec(station.height, station.width, resize_mode="stretch")
    device = open_device(0)
    frame = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    made: list[Any] = []
    for name in ("streams of their own", "one stream"):
        preprocessor = CudaPreprocessor(device, spec, SM, station.cache)
        preprocessor(frame)
        with station.engine(batch=1) as engine:
            streams: Any = preprocessor._on_device
            streams = vars(streams._streams)
            own = dict(streams)
            if name == "one stream":
                pipeline: Any = engine
                streams.update(dict.fromkeys(own, pipeline._pipeline._streams.compute))

            def look(name: str = name, use: Callable[..., Any] = preprocessor) -> None:
                wait_s = ENDS_S if name == "streams of their own" else WAITS_S
                found[name] = _ends(lambda: made.append(use(frame).image_hwc), wait_s)

            _during_the_first_run(engine, look)
            engine.infer(station.images(1))
            _join()
            streams.update(own)  # the engine's are let go while it is open
            own.clear()
        preprocessor.close()
    wanted = Preprocessor(spec)(frame).image_hwc.astype(int)
    apart = int(np.abs(made[0] - wanted).max())
    return {"ends": found, "apart": apart, "held": emulator.held(), "faults": emulator.report()["faults"]}


_started: list[threading.Thread] = []


def _join() -> None:
    while _started:
        _started.pop().join(ENDS_S)


def _ends(work: Callable[[], Any], wait_s: float) -> bool:
    """Whether work in another thread ends within that time."""
    thread = threading.Thread(target=work)
    _started.append(thread)
    thread.start()
    thread.join(wait_s)
    return not thread.is_alive()


def _during_the_first_run(engine: Any, look: Callable[[], None]) -> None:
    """Call `look` while the stand-in for TensorRT computes the next batch, and not for later ones."""
    stand_in = engine._graph._engine
    session, looks = stand_in.session, [look]

    class Session:
        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        def run(self, *arguments: Any) -> Any:
            if looks:
                looks.pop()()
            return session.run(*arguments)

    stand_in.session = Session()
