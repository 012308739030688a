"""What PatchCore is fed with, and what is made of its distances, by where a bank comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, ScoreKind, ScoreRange

INPUT = PreprocessSpec(224, 224, resize=256)
OUTPUT = PostprocessSpec(activation="none", score="patch_max")
"""The authors'."""
ANOMALIB_INPUT = PreprocessSpec(256, 256, resize_mode="stretch")
ANOMALIB_OUTPUT = replace(OUTPUT, resize="nearest", border="reflect101", score="reweighted", score_range=(0.0, None))
"""anomalib's, since 2.1 without a centre crop."""
SCORES: Mapping[ScoreKind, ScoreRange] = {"reweighted": (0.0, None)}
"""Scores that only the graph knows: no distance is below 0, and none is the largest."""
