"""Engines in processes of their own, some of which crash."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest
from engine_process import CRASH_AT, CRASHING, MakeEngine, children

from edge_ad.bundle.bundle import Bundle
from edge_ad.engine import EngineSpec
from edge_ad.runtime.engines.process.engine import ProcessEngine
from edge_ad.runtime.engines.process.keeper import Limits
from edge_ad.runtime.judge.loader import engine_spec

QUICK = Limits(answer_s=0.5, first_answer_s=20.0, wait_s=20.0, first_pause_s=0.1, longest_pause_s=0.4)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The bundle of the demo: a real graph, of 13 kB."""
    return Bundle.read(str(resources.files("edge_ad.demo") / "disc.edgead"))


@pytest.fixture(scope="session")
def spec(bundle: Bundle) -> EngineSpec:
    return replace(engine_spec(bundle, "fp32", bundle.manifest.files["model.onnx"], None), batch=None)


@pytest.fixture
def make(bundle: Bundle, spec: EngineSpec) -> MakeEngine:
    """An engine that is not loaded; keywords replace fields of its limits."""

    def make_one(name: str = "fake", read_model: Callable[[], bytes] | None = None, **limits: float) -> ProcessEngine:
        graph = read_model or (lambda: bundle.read_file("model.onnx"))
        return ProcessEngine(name, graph, spec, limits=replace(QUICK, **limits))

    return make_one


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the fake engine of processes that are started from now on crash there."""

    def crash_at(where: str) -> None:
        monkeypatch.setenv("PYTHONPATH", str(CRASHING))
        monkeypatch.setenv(CRASH_AT, where)

    return crash_at


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process, descriptor or piece of shared memory stays behind."""
    before = _held()
    yield
    assert _held() == before


def _held() -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            kinds[os.readlink(f"/proc/self/fd/{entry}").partition(":")[0]] += 1
    shared = sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else []
    return {
        "children": children(),
        "sockets": kinds["socket"],
        "memory": kinds["/memfd"],
        "shared memory": [name for name in shared if name.startswith("edge-ad")],
    }
