"""What tests of whole lines share: a bundle and detectors of the fake engine, a broker, a webhook, and the GPU."""

from __future__ import annotations

import importlib.util
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mqtt_broker import Broker, Subscriber
from patience import PATIENCE_S, wait_until
from scripted_line import Clock, Engine
from webhook_service import Service

from edge_ad.bundle.bundle import Bundle, write_bundle
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, TensorSpec, Thresholds
from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.gpu import Gpu, find_gpu
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line import line as line_module
from edge_ad.runtime.line.scheduling import output


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until


@pytest.fixture(scope="session")
def fake_bundle() -> Callable[..., Bundle]:
    """Write a bundle for the fake engine, which has patches of 4×4 pixels and a threshold of 0.6.

    Arguments: path; `side` of the model input in pixels; `batch` that the graph is fixed to, None for any; `graph`,
    which nobody reads; `replace` what is there; and further fields of the manifest in place of these.
    """

    def write(
        path: Path,
        *,
        side: int = 32,
        batch: int | None = None,
        graph: bytes = b"x",
        replace: bool = False,
        **fields: Any,
    ) -> Bundle:
        manifest = {
            "model": {"family": "none", "config": {}},
            "preprocess": PreprocessSpec(side, side, resize_mode="stretch"),
            "postprocess": PostprocessSpec(),
            "input": TensorSpec("image", (batch, side, side, 3), "uint8"),
            "outputs": (
                TensorSpec("patch_map", (batch, side // 4, side // 4), "float32"),
                TensorSpec("anomaly_map", (batch, side, side), "float32"),
                TensorSpec("pred_score", (batch,), "float32"),
            ),
            "opset": 17,
            "models": {"fp32": "model.onnx"},
            "thresholds": Thresholds(0.6),
        }
        return write_bundle(path, manifest | fields, {"model.onnx": graph}, replace=replace)

    return write


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, fake_bundle: Callable[..., Bundle]) -> Bundle:
    return fake_bundle(tmp_path_factory.mktemp("line") / "fake.edgead")


@pytest.fixture(scope="module")
def detector(bundle: Bundle) -> Iterator[Detector]:
    with open_detector(bundle, engine="fake") as detector:
        yield detector


@pytest.fixture(scope="module")
def batching(bundle: Bundle) -> Iterator[Detector]:
    with open_detector(bundle, engine="fake", batch=4) as detector:
        yield detector


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(detector: Detector, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(detector, clock, monkeypatch)


@pytest.fixture
def quick_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "STOP_S", 0.2)
    monkeypatch.setattr(output, "FLUSH_S", 0.2)


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    yield
    until_s = time.monotonic() + PATIENCE_S
    while [t for t in threading.enumerate() if t.name.startswith("edge-ad-")] and time.monotonic() < until_s:
        time.sleep(0.01)
    assert [t.name for t in threading.enumerate() if t.name.startswith("edge-ad-")] == []


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        reason = "no mosquitto: install Debian's package of that name"
        if os.environ.get("EDGE_AD_REQUIRE_LADDER"):
            pytest.fail(reason)
        pytest.skip(reason)
    brokers: list[Broker] = []

    def make(lines: str = "allow_anonymous true") -> Broker:
        folder = tmp_path / f"broker{len(brokers)}"
        folder.mkdir(mode=0o777)
        brokers.append(Broker(folder, program, lines))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.stop()


@pytest.fixture
def broker(make_broker: Any) -> Any:
    """A broker that runs, and keeps as many messages as come."""
    broker = make_broker("allow_anonymous true\nmax_queued_messages 0")
    broker.start()
    return broker


@pytest.fixture
def subscriber(broker: Any) -> Iterator[Subscriber]:
    subscriber = Subscriber(broker.port)
    yield subscriber
    subscriber.close()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


@pytest.fixture(scope="session")
def no_gpu() -> Callable[[str], None]:
    """Skips for want of a GPU or of what drives it, and says which; EDGE_AD_REQUIRE_GPU=1 makes that a failure."""
    return _no_gpu


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    """The GPU of this machine; without one, or without pycuda, the test is skipped or, if so wanted, fails."""
    try:
        if importlib.util.find_spec("pycuda") is None:
            raise EngineError("pycuda is not installed")
        return find_gpu(0)
    except EngineError as exc:
        _no_gpu(str(exc))
    raise AssertionError


def _no_gpu(reason: str) -> None:
    if os.environ.get("EDGE_AD_REQUIRE_GPU") == "1":
        pytest.fail(f"EDGE_AD_REQUIRE_GPU is set: {reason}")
    pytest.skip(f"needs a GPU: {reason}")
