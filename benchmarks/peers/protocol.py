"""How the driver talks to a peer: one JSON object a line, a request on standard input, its answer on standard output.

    {"do": "open", "with": {…}}           → {"computes_in": …}
    {"do": "frame", "path": "frame.npy"}   → {}                           (H, W, 3) uint8 RGB, kept for judging
    {"do": "judge", "frames": 5}           → {"took_s": […], "score": …}  the frame so often, each timed
    {"do": "score", "pictures": [path, …], "maps": "maps.npy"} → {"scores": […]}  and their anomaly maps, in that file
    {"do": "memory"}                       → {"peak_rss_mib": …}
    {"do": "close"}                        → {}                           and the process ends

What cannot be done is answered by {"fault": "one line"}; the peer goes on. This file needs Python and NumPy alone, for
it runs in the environment of every peer. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

# Before a peer loads its engine: neither OpenVINO nor ONNX Runtime tells anybody that it was used.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # cannot be imported then
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class Judge(Protocol):
    """A detector that is ready.

    Attributes:
        computes_in: arithmetic, in the words of its engine.
        anomaly_map: (h, w) of the frame that was scored last.
    """

    computes_in: str
    anomaly_map: Any

    def score(self, image_hwc: Any) -> float:
        """Everything from a decoded frame ((H, W, 3) uint8 RGB) to its score and map."""
        ...


class Peer:
    """Answers requests with a judge that it opens."""

    def __init__(self, open_judge: Callable[[dict[str, Any]], Judge]) -> None:
        self._open = open_judge
        self._judge: Judge | None = None
        self._frame: Any = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request's answer. Raises: whatever goes wrong."""
        match request:
            case {"do": "open", "with": dict(given)}:
                self._judge = self._open(given)
                return {"computes_in": self._judge.computes_in}
            case {"do": "frame", "path": str(path)}:
                self._frame = np.load(path, allow_pickle=False)
                return {}
            case {"do": "judge", "frames": int(count)} if count > 0:
                return self._timed(count)
            case {"do": "score", "pictures": list(paths), "maps": str(maps)}:
                return {"scores": self._scored(paths, maps)}
            case {"do": "memory"}:
                return {"peak_rss_mib": peak_rss_mib()}
            case {"do": "close"}:
                return {}
        raise ValueError(f"unknown request {request}")

    def _timed(self, count: int) -> dict[str, Any]:
        judge, took_s, score = self._ready(), [], float("nan")
        if self._frame is None:
            raise ValueError("no frame was given")
        for _ in range(count):
            began = time.perf_counter()
            score = judge.score(self._frame)
            took_s.append(time.perf_counter() - began)
        return {"took_s": took_s, "score": float(score)}

    def _scored(self, paths: list[str], maps: str) -> list[float]:
        judge, scores, found = self._ready(), [], []
        for path in paths:
            scores.append(float(judge.score(picture(path))))
            found.append(np.array(judge.anomaly_map, np.float32))
        np.save(maps, np.stack(found))
        return scores

    def _ready(self) -> Judge:
        if self._judge is None:
            raise ValueError("nothing is open")
        return self._judge


def picture(path: str) -> Any:
    """(H, W, 3) uint8 RGB."""
    from PIL import Image

    with Image.open(path) as opened:
        return np.array(opened.convert("RGB"))


def peak_rss_mib() -> float:
    """Most resident memory of this process so far, in MiB; on Linux without what its parent had before the start."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def serve(open_judge: Callable[[dict[str, Any]], Judge]) -> None:
    """Answer requests until one says `close`, or there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print where they like
    peer = Peer(open_judge)
    with answers:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = peer.answer(request)
            except Exception as exc:
                answer = {"fault": f"{type(exc).__name__}: {' '.join(str(exc).split())}"[:500]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
            if request.get("do") == "close":
                return
