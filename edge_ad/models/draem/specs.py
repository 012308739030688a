"""What DRAEM's networks are fed with, and what is made of their answers (the authors' code)."""

from __future__ import annotations

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec

SIDE = 256
BOX = 21  # pixels of the mean that the score is the maximum of

INPUT = PreprocessSpec(
    SIDE,
    SIDE,
    resize_mode="stretch",
    filter="opencv_bilinear",
    channel_order="bgr",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
OUTPUT = PostprocessSpec(smoothing="box", size=BOX)
