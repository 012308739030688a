"""Peer: the published graph on ONNX Runtime, with the steps around it that the authors' code takes, without PyTorch.

Before: Pillow's resize of the whole picture, centre crop, scaling. Behind: bilinear resize of the patch probabilities
to the size of the model, and SciPy's Gaussian with a sigma of 4, for the map; the score is the largest probability.
"""

from __future__ import annotations

from typing import Any

from protocol import serve

SIGMA = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Authors:
    computes_in = "fp32"

    def __init__(self, graph: str, side: int) -> None:
        import cv2
        import numpy as np
        import onnxruntime
        from PIL import Image
        from scipy.ndimage import gaussian_filter

        self._np, self._cv2, self._image, self._gaussian = np, cv2, Image, gaussian_filter
        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self._side = side
        self._mean, self._std = (np.array(value, np.float32) for value in (MEAN, STD))

    def score(self, image_hwc: Any) -> float:
        np, side = self._np, self._side
        (patch_map,) = self._session.run(None, {"image": self._prepared(image_hwc)})
        resized = self._cv2.resize(patch_map[0], (side, side), interpolation=self._cv2.INTER_LINEAR)
        self.anomaly_map = self._gaussian(resized, sigma=SIGMA)
        return float(np.max(patch_map))

    def _prepared(self, image_hwc: Any) -> Any:
        np, side = self._np, self._side
        height, width = image_hwc.shape[:2]
        # torchvision's Resize: the shorter side becomes `side`, the longer one is rounded down
        size = (side * width // height, side) if width >= height else (side, side * height // width)
        picture = self._image.fromarray(image_hwc).resize(size, self._image.Resampling.BILINEAR)
        left, top = (round((length - side) / 2) for length in size)
        cropped = np.asarray(picture.crop((left, top, left + side, top + side)), np.float32) / 255
        return np.ascontiguousarray(((cropped - self._mean) / self._std).transpose(2, 0, 1)[None])


def open_authors(given: dict[str, Any]) -> Authors:
    return Authors(given["graph"], given["side"])


if __name__ == "__main__":
    serve(open_authors)
