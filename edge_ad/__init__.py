"""edge-ad: a trained anomaly detector on the factory floor.

``with edge_ad.open("bottle.edgead") as detector: verdict = detector.judge(image_hwc)``

The names below are loaded on first use; importing the package loads neither torch nor OpenCV nor an engine.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_ad.bundle.bundle import Bundle as Bundle
    from edge_ad.errors import EdgeAdError as EdgeAdError
    from edge_ad.record.verdict import Region as Region
    from edge_ad.record.verdict import Verdict as Verdict
    from edge_ad.runtime.judge.detector import Detector as Detector
    from edge_ad.runtime.judge.loader import open_detector as open

# ONNX Runtime 1.32 writes an identifier below HOME and posts events, unless this stands there when it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_PUBLIC = {
    "Bundle": "edge_ad.bundle.bundle:Bundle",
    "Detector": "edge_ad.runtime.judge.detector:Detector",
    "EdgeAdError": "edge_ad.errors:EdgeAdError",
    "Region": "edge_ad.record.verdict:Region",
    "Verdict": "edge_ad.record.verdict:Verdict",
    "open": "edge_ad.runtime.judge.loader:open_detector",
}

__all__ = ["Bundle", "Detector", "EdgeAdError", "Region", "Verdict", "open"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("edge-ad")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edge_ad' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, "__version__"])
