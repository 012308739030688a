"""What CPR is fed with, and what is made of its answers (the authors' code)."""

from __future__ import annotations

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec

SIDE = 320
TOP_PIXELS = 512  # whose mean is the score; the code has their sum, which ranks alike

INPUT = PreprocessSpec(SIDE, SIDE, resize_mode="stretch", filter="opencv_bilinear")
OUTPUT = PostprocessSpec(
    activation="none", border="reflect101", score="top_mean", top_pixels=TOP_PIXELS, frame_map="anomaly_map"
)
