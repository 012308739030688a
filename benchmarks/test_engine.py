"""The engine alone: model input → patch map, anomaly map and score; by network, precision and batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad.engine import Engine
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.judge.loader import engine_spec

SHORT = [
    "mobilenet_v2-256/fp32/batch1",
    "mobilenet_v2-256/fp32/batch4",
    "mobilenet_v2-256/int8/batch1",
    "resnet18-256/fp32/batch1",
    "resnet18-256/int8/batch1",
    "draem-16-128/fp32/batch1",
    "draem-16-128/int8/batch1",
]
FULL = [
    f"{network}/{precision}/batch{batch}"
    for network in ("mobilenet_v2-256", "resnet18-256", "wide_resnet50_2-288", "draem-16-128")
    for precision in ("fp32", "int8")
    for batch in (1, 4)
] + [
    f"{network}/{precision}/batch1"
    for network in ("simplenet-wide_resnet50_2-288", "draem-32-256")
    for precision in ("fp32", "int8")
]


@pytest.fixture(scope="module")
def measured(measure: Any, selected: list[str], bundles: Any, engine_cache: Path) -> Iterator[Any]:
    with ExitStack() as stack:
        subjects, precisions = {}, {}
        for name in selected:
            engine, subjects[name] = inferring(bundles, name, engine_cache)
            stack.enter_context(engine)
            precisions[name] = engine.effective_precision
        yield measure(subjects), precisions


def inferring(bundles: Any, name: str, engine_cache: Path) -> tuple[Engine, Callable[[], None]]:
    from edge_ad.export.parity import probe_images

    network, precision, batch_name = name.split("/")
    batch = int(batch_name.removeprefix("batch"))
    bundle = bundles(network)
    file = bundle.model_file(precision)
    spec = replace(engine_spec(bundle, precision, bundle.manifest.files[file], engine_cache), batch=batch)
    images = probe_images(bundle.manifest.preprocess.size_hw, count=batch + 1)[1:]
    engine = make_engine("openvino", lambda: bundle.read_file(file), spec)

    def once() -> None:
        assert np.isfinite(engine.infer(images).pred_score).all()

    return engine, once


@pytest.mark.parametrize(
    "subject", [*SHORT, *(pytest.param(name, marks=pytest.mark.full) for name in FULL if name not in SHORT)]
)
def test_engine(subject: str, measured: Any, stored: Callable[..., None]) -> None:
    rounds, precisions = measured
    stored(rounds[subject], computes_in=precisions[subject])
