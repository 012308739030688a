"""Peer: anomalib's export, judged by anomalib's own inferencer. Runs in anomalib's environment.

Its inferencer (2.7.0) takes the first of a set of names that an output has. A model that OpenVINO has just compiled
from ONNX has three for score and map, and with the wrong ones first it raises TypeError, which it does with most values
of PYTHONHASHSEED. What it compiled is in its cache by then, and from there, as from an OpenVINO export, outputs have
one name. So the second process works, whatever the seed; the driver starts it and tells of both.
"""

from __future__ import annotations

from typing import Any

from protocol import serve


class Anomalib:
    def __init__(self, graph: str, config: dict[str, str]) -> None:
        from anomalib.deploy import OpenVINOInferencer

        self._inferencer = OpenVINOInferencer(graph, device="CPU", config=config)
        precision = self._inferencer.model.get_property("INFERENCE_PRECISION_HINT")
        self.computes_in = str(precision.to_string() if hasattr(precision, "to_string") else precision)

    def score(self, image_hwc: Any) -> float:
        found = self._inferencer.predict(image_hwc)
        self.anomaly_map = found.anomaly_map.squeeze()
        return float(found.pred_score.item())


def open_anomalib(given: dict[str, Any]) -> Anomalib:
    return Anomalib(given["graph"], given["config"])


if __name__ == "__main__":
    serve(open_anomalib)
