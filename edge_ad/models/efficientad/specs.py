"""What EfficientAD's networks are fed with, and what is made of their answers.

One normalisation serves all three networks. anomalib's do it each by itself, and take pictures as they are.
"""

from __future__ import annotations

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec

SIDE = 256

INPUT = PreprocessSpec(SIDE, SIDE, resize_mode="stretch")
OUTPUT = PostprocessSpec(sigma=0.0, activation="none", smoothing="none", frame_map="anomaly_map")
