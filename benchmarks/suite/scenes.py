"""Made-up frames, always the same: smooth light as on a part on a belt, some texture, one bright defect."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge_ad.image.frame import ImageArray

SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "4k": (2160, 3840)}
"""Rows and columns by name."""


def scene(size: str) -> ImageArray:
    """(H, W, 3) uint8, as a camera gives it. Args: size: a key of `SIZES`."""
    height, width = SIZES[size]
    rng = np.random.default_rng(0)
    light = cv2.resize(rng.uniform(60, 180, (9, 16, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    grain = cv2.GaussianBlur(rng.normal(0, 25, (height, width, 1)), (0, 0), 1.2)[..., None]
    picture = np.clip(light + grain, 0, 255).astype(np.uint8)
    cv2.circle(picture, (width // 2, height // 3), height // 20, (250, 250, 250), -1)
    return picture


def write_picture(path: Path, image_hwc: ImageArray) -> Path:
    """Store a picture in the format that the name ends with."""
    if not cv2.imwrite(str(path), image_hwc):
        raise OSError(f"{path}: OpenCV cannot write it")
    return path


def write_video(path: Path, image_hwc: ImageArray, frames: int) -> Path:
    """A video in which the picture moves a little; Motion JPEG, which every OpenCV writes."""
    height, width = image_hwc.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (width, height))
    if not writer.isOpened():
        raise OSError(f"{path}: this OpenCV writes no Motion JPEG")
    for number in range(frames):
        writer.write(np.roll(image_hwc, 4 * number, axis=1))
    writer.release()
    return path
