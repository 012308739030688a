"""Values of the specs that belong together, and what is said where they do not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.errors import ConfigError
from edge_ad.validation import build


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sigma": -1.0}, "sigma and truncate"),
        ({"truncate": -0.1}, "sigma and truncate"),
        ({"smoothing": "box"}, "size: belongs to the smoothing box"),
        ({"size": 21}, "size: belongs to the smoothing box"),
        ({"smoothing": "none", "size": 3}, "size: belongs to the smoothing box"),
        ({"smoothing": "box", "size": 20}, "odd number"),
        ({"smoothing": "box", "size": -1}, "odd number"),
        ({"score": "top_mean"}, "top_pixels: belongs to the score top_mean"),
        ({"top_pixels": 3}, "top_pixels: belongs to the score top_mean"),
        ({"score": "top_mean", "top_pixels": 0}, "top_pixels: wanted at least 1"),
        ({"score": "family"}, "score_range: belongs to scores"),
        ({"score": "reweighted"}, "score_range: belongs to scores"),
        ({"score": "map_max", "score_range": (0.0, 1.0)}, "score_range: belongs to scores"),
        ({"score": "family", "score_range": (1.0, 1.0)}, "lower bound first"),
        ({"score": "family", "score_range": (math.nan, 1.0)}, "wanted finite numbers, or null"),
        ({"score": "family", "score_range": (0.0, math.inf)}, "wanted finite numbers, or null"),
    ],
)
def test_what_does_not_belong_together(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PostprocessSpec(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"activation": "tanh"},
        {"smoothing": "median"},
        {"border": "wrap"},
        {"resize": "area"},
        {"score": "mean"},
        {"frame_map": "map"},
    ],
)
def test_names_that_nothing_computes(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        build(PostprocessSpec, values, "manifest")


def test_ranges() -> None:
    assert PostprocessSpec().scores == (0.0, 1.0)
    unbounded = PostprocessSpec(activation="none", score="patch_max")
    assert unbounded.scores == unbounded.map_range == (-math.inf, math.inf)
    told = PostprocessSpec(score="family", score_range=(0.0, None))
    assert told.scores == (0.0, math.inf) and told.map_range == (0.0, 1.0)


def test_another_score_takes_along_what_is_its_own_alone() -> None:
    top = PostprocessSpec(activation="none", smoothing="box", size=5, score="top_mean", top_pixels=9)
    assert top.with_score(None) is top and top.with_score("top_mean") is top
    changed = top.with_score("patch_max")
    assert (changed.score, changed.top_pixels, changed.size) == ("patch_max", None, 5)
    with pytest.raises(ValueError, match="top_pixels"):
        PostprocessSpec().with_score("top_mean")
    with pytest.raises(ValueError, match="score_range"):
        top.with_score("family")
    told = top.with_score("reweighted", {"reweighted": (0.0, None)})
    assert (told.score, told.scores, told.top_pixels) == ("reweighted", (0.0, math.inf), None)
    assert told.with_score("map_max").score_range is None
