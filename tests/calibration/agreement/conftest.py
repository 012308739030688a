"""Answers without models: scores, kinds of defects and maybe maps are said, the rest is made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad.calibration.agreement.answers import Answer, Answers, Lost
from edge_ad.datasets import Sample

AnswersMaker = Callable[..., Answers]


@pytest.fixture(scope="session")
def make_answers() -> AnswersMaker:
    """(scores, defects="good" for all, maps=zeros of 2×3, ms=1) → answers; a score of None is a lost image."""

    def make(
        scores: Sequence[float | None],
        defects: Sequence[str] | None = None,
        maps: Sequence[Any] | None = None,
        ms: Sequence[float] | None = None,
    ) -> Answers:
        kinds = ["good"] * len(scores) if defects is None else list(defects)
        names = tuple(f"{kind}/{index}.png" for index, kind in enumerate(kinds))
        answers = tuple(
            None
            if score is None
            else Answer(
                float(score),
                np.zeros((2, 3), np.float32) if maps is None else np.asarray(maps[index], np.float32),
                1.0 if ms is None else ms[index],
            )
            for index, score in enumerate(scores)
        )
        return Answers(
            names=names,
            samples=tuple(Sample(Path("/data", name), kind) for name, kind in zip(names, kinds, strict=True)),
            answers=answers,
            lost=tuple(Lost(n, "error", "torn") for n, a in zip(names, answers, strict=True) if a is None),
        )

    return make
