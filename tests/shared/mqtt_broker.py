"""A real broker on loopback, and who listens to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from patience import PATIENCE_S, wait_until

from edge_ad.runtime.sinks.settings import MqttSettings


def mqtt_settings(port: int, **more: Any) -> MqttSettings:
    return MqttSettings("127.0.0.1", port, **{"prefix": "line", "reconnect_s": (1, 1), **more})


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
