"""What SimpleNet is fed with, and what is made of its answers (the authors' code)."""

from __future__ import annotations

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec

INPUT = PreprocessSpec(288, 288, resize=329)
OUTPUT = PostprocessSpec(activation="none", score="patch_max")
