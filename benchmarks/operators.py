"""Resize-and-smooth against OpenCV in time and against torch + SciPy in value; preprocessing of a 1080p frame.

python benchmarks/operators.py
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from interleaved import medians_ms, print_table
from PIL import Image
from scipy.ndimage import gaussian_filter

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.preprocess import Preprocessor

SIDE, PATCHES, SIGMA = 288, 36, 4.0
ROUNDS = 200


def smooth() -> None:
    """The operator, the usual OpenCV pair, and the reference."""
    patch_map = np.random.default_rng(0).random((PATCHES, PATCHES), np.float32)
    operator = ResizeSmooth((PATCHES, PATCHES), (SIDE, SIDE))

    def opencv() -> np.ndarray:
        return cv2.GaussianBlur(cv2.resize(patch_map, (SIDE, SIDE)), (33, 33), SIGMA)

    def reference() -> np.ndarray:
        resized = torch.nn.functional.interpolate(
            torch.from_numpy(patch_map)[None, None], (SIDE, SIDE), mode="bilinear"
        )
        return gaussian_filter(resized[0, 0].numpy(), SIGMA)

    # The reference has a run of its own: torch's threads spin on after a call, and would slow the other two down.
    medians = medians_ms({"torch + SciPy": reference}, rounds=ROUNDS)
    medians |= medians_ms(
        {"cv2.resize + cv2.GaussianBlur": opencv, "operator": lambda: operator(patch_map)}, rounds=ROUNDS
    )
    print(f"resize and smooth, {PATCHES} -> {SIDE}")
    print_table(medians, "cv2.resize + cv2.GaussianBlur")
    truth = reference()
    print(f"largest difference from torch + SciPy: operator {np.abs(operator(patch_map) - truth).max():.1e},", end=" ")
    print(f"OpenCV {np.abs(opencv() - truth).max():.1e}\n")


def preprocess() -> None:
    """A decoded 1080p BGR frame to 288x288 RGB, and the training transform on the same frame."""
    noise = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    frame = cv2.GaussianBlur(noise, (0, 0), 1.5)
    preprocessor = Preprocessor(PreprocessSpec(SIDE, SIDE, resize=SIDE))

    def training_transform() -> np.ndarray:
        picture = Image.fromarray(frame[:, :, ::-1]).resize((512, SIDE), Image.Resampling.BILINEAR)
        return np.asarray(picture.crop((112, 0, 400, SIDE)))

    medians = medians_ms(
        {
            "Pillow, whole frame then crop": training_transform,
            "cv2.INTER_AREA (another filter)": lambda: cv2.resize(
                frame[:, 420:1500], (SIDE, SIDE), interpolation=cv2.INTER_AREA
            ),
            "edge-ad": lambda: preprocessor(frame, "bgr"),
        },
        rounds=ROUNDS // 4,
    )
    print(f"preprocess a 1920x1080 frame to {SIDE}x{SIDE}")
    print_table(medians, "Pillow, whole frame then crop")
    difference = np.abs(preprocessor(frame, "bgr").image_hwc.astype(int) - training_transform())
    print(f"largest difference from the training transform: {difference.max()} grey levels")


if __name__ == "__main__":
    smooth()
    preprocess()
