"""What DiffusionAD's networks are fed with, and what is made of their answers (the authors' code)."""

from __future__ import annotations

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec

SIDE = 256
TOP_PIXELS = 50  # whose mean is the score; a number of pixels, whatever the size

INPUT = PreprocessSpec(
    SIDE, SIDE, resize_mode="stretch", filter="opencv_bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
OUTPUT = PostprocessSpec(smoothing="none", score="top_mean", top_pixels=TOP_PIXELS)
