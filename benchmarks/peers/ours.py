"""Peer: edge-ad's detector, as a user opens it."""

from __future__ import annotations

from typing import Any

from protocol import serve


class Ours:
    def __init__(self, detector: Any) -> None:
        self._detector = detector
        self.computes_in: str = detector.provenance.precision

    def score(self, image_hwc: Any) -> float:
        verdict = self._detector.judge(image_hwc)
        if verdict.score is None or verdict.maps is None:
            raise ValueError(f"the frame is {verdict.status}: {verdict.reason}")
        self.anomaly_map = verdict.maps.anomaly_map
        return float(verdict.score)


def open_ours(given: dict[str, Any]) -> Ours:
    import edge_ad

    detector = edge_ad.open(
        given["bundle"], precision=given["precision"], threshold=0.5, engine_cache=given["engine_cache"]
    )
    return Ours(detector.__enter__())  # the process ends with it


if __name__ == "__main__":
    serve(open_ours)
