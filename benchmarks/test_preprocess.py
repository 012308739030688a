"""Decoded frame → model input, for both kinds of resize that users train with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from suite.scenes import SIZES, scene

from edge_ad.preprocess import Preprocessor
from edge_ad.specs import PreprocessSpec

SIDE = 288
SPECS = {"crop": PreprocessSpec(SIDE, SIDE, resize=SIDE), "stretch": PreprocessSpec(SIDE, SIDE, resize_mode="stretch")}
SUBJECTS = [f"{size}-{mode}" for size in SIZES for mode in SPECS]


@pytest.fixture(scope="module")
def measured(measure: Any, selected: list[str]) -> Iterator[Any]:
    with ExitStack() as stack:
        subjects = {}
        for name in selected:
            size, mode = name.split("-")
            preprocessor = stack.enter_context(closing(Preprocessor(SPECS[mode])))
            subjects[name] = preprocessing(preprocessor, scene(size))
        yield measure(subjects)


def preprocessing(preprocessor: Preprocessor, frame: Any) -> Callable[[], None]:
    def once() -> None:
        preprocessor(frame, "bgr")

    return once


@pytest.mark.parametrize("subject", SUBJECTS)
def test_preprocess(subject: str, measured: Any, stored: Callable[..., None]) -> None:
    stored(measured[subject])
