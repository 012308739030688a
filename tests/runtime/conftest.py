"""What tests of whole lines share: patience, a bundle for the fake engine, a real broker, a webhook, and the GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_ad.bundle import Bundle, write_bundle
from edge_ad.errors import EngineError
from edge_ad.runtime.tensorrt.gpu import Gpu, find_gpu
from edge_ad.specs import PostprocessSpec, PreprocessSpec, TensorSpec, Thresholds

PATIENCE_S = 20


def wait_until(holds: Callable[[], Any], what: str = "") -> None:
    """Wait for something that another thread or process does."""
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s, what or "it did not happen"
        time.sleep(0.01)


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


class Broker:
    """Mosquitto on a loopback port, which can be killed and started again. Args: lines: of its configuration."""

    def __init__(self, folder: Path, program: str, lines: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._command = [program, "-c", str(folder / "mosquitto.conf")]
        # Retained messages and sessions survive a restart, as on a broker of a factory.
        text = f"listener {self.port} 127.0.0.1\npersistence true\npersistence_location {folder}/\n{lines}\n"
        text += f"autosave_interval 1\nautosave_on_changes true\nuser {os.environ.get('USER', 'root')}\n"
        (folder / "mosquitto.conf").write_text(text)
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, "the broker does not start")

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_S)
            self._process = None


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


class Subscriber:
    """Keeps what comes by its key, in a session that the broker keeps as well."""

    def __init__(self, port: int) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "subscriber", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe([("line/+/verdict", 1), ("line/+/event", 1)])
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda _, __, message: self._keep(json.loads(message.payload))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(PATIENCE_S)

    def _keep(self, body: dict[str, Any]) -> None:
        assert self.bodies.setdefault(body["key"], body) == body

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


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


Answer = int | str | tuple[int, dict[str, str]]


class Service:
    """A webhook on a loopback port; `answer(body)` says what a record gets: a status, one with headers, or `drop`."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Answer] = lambda body: 204
        self.tried: list[int | None] = []  # frames; None for events
        self.taken: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # an answer in one packet

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.tried.append(body.get("frame_id"))
                outer.headers.append(dict(self.headers))
                outer.paths.append(self.path)
                answer = outer.answer(body)
                if answer == "drop":
                    self.close_connection = True
                    return
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                if status == 204:
                    outer.taken.append(body)
                self.send_response(int(status))
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", "5")
                self.end_headers()
                if status != 204:
                    self.wfile.write(b"sorry")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/verdicts"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def speak_tls(self, context: ssl.SSLContext) -> None:
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]

    def numbers(self) -> list[int]:
        return [body["frame_id"] for body in self.taken]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


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
