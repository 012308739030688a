"""Decoded frame → model input, for both kinds of resize that users train with, and without the compiled resize."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from suite.scenes import SIZES, scene

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.preprocess import Preprocessor, chosen_resizer
from edge_ad.image.resize.strips import PillowResizer

SIDE = 288
CROP = PreprocessSpec(SIDE, SIDE, resize=SIDE)
WAYS = {
    "crop": (CROP, chosen_resizer),
    "stretch": (PreprocessSpec(SIDE, SIDE, resize_mode="stretch"), chosen_resizer),
    "pillow": (CROP, PillowResizer),
}
SUBJECTS = [*(f"{size}-{mode}" for size in SIZES for mode in ("crop", "stretch")), "1080p-pillow"]


@pytest.fixture(scope="module")
def measured(measure: Any, selected: list[str]) -> Iterator[Any]:
    with ExitStack() as stack:
        subjects = {}
        for name in selected:
            size, mode = name.split("-")
            spec, resizer = WAYS[mode]
            preprocessor = stack.enter_context(closing(Preprocessor(spec, resizer=resizer())))
            subjects[name] = preprocessing(preprocessor, scene(size))
        yield measure(subjects)


def preprocessing(preprocessor: Preprocessor, frame: Any) -> Callable[[], None]:
    def once() -> None:
        preprocessor(frame, "bgr")

    return once


@pytest.mark.parametrize("subject", SUBJECTS)
def test_preprocess(subject: str, measured: Any, stored: Callable[..., None]) -> None:
    stored(measured[subject])
