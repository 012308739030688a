"""The suite: what it may use, what it measures in turns, and how that reaches pytest-benchmark.

    pytest benchmarks [--full] [--benchmark-json FILE]

A module of the suite builds subjects under the names of its tests' parameter `subject`; those of the selected tests
are measured in turns with the yardstick, once, before the first of them reports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from suite.replay import CLOCK, report
from suite.threads import fix_threads
from suite.turns import Rounds, Subject, in_turns

HERE = Path(__file__).parent
ROUNDS, FULL_ROUNDS, WARMUP = 20, 50, 3
"""The gate wants 20 rounds at least."""
CORES = 2

Measure = Callable[[Mapping[str, Subject]], dict[str, Rounds]]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("edge-ad benchmarks")
    group.addoption("--full", action="store_true", help=f"All benchmarks, in {FULL_ROUNDS} rounds.")
    group.addoption("--rounds", type=int, help=f"Rounds that count ({ROUNDS}, with --full {FULL_ROUNDS}).")
    group.addoption("--cores", type=int, default=CORES, help=f"Processors to measure on ({CORES}).")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: a benchmark that only --full runs")
    for name in ("rounds", "cores"):
        value = config.getoption(name)
        if value is not None and value < 1:
            raise pytest.UsageError(f"--{name}: wanted a number from 1 on, got {value}")
    config.stash[THREADS] = fix_threads(config.getoption("cores"))


THREADS = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.benchmark(timer=CLOCK.now, group=item.path.stem.removeprefix("test_")))
    if not config.getoption("full"):
        left_out = [item for item in ours if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def yardstick() -> Any:
    from edge_ad.runtime.instruments.bench.yardstick import Yardstick

    return Yardstick()


@pytest.fixture(scope="module")
def selected(request: pytest.FixtureRequest) -> list[str]:
    """Names of the subjects of the tests of this module that are to run."""
    items = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    return list(dict.fromkeys(item.callspec.params["subject"] for item in items))


@pytest.fixture(scope="module")
def measure(request: pytest.FixtureRequest, yardstick: Any, selected: list[str]) -> Measure:
    """Measures those of the subjects that are selected."""
    rounds = request.config.getoption("rounds") or (FULL_ROUNDS if request.config.getoption("full") else ROUNDS)

    def measured(subjects: Mapping[str, Subject]) -> dict[str, Rounds]:
        chosen = {name: subjects[name] for name in selected}
        return in_turns(chosen, yardstick, rounds=rounds, warmup=WARMUP)

    return measured


@pytest.fixture
def stored(request: pytest.FixtureRequest, benchmark: Any) -> Callable[..., None]:
    """Stores rounds, and facts by name, as the result of this test."""
    from edge_ad.runtime.instruments.bench.yardstick import NAME

    threads = request.config.stash[THREADS]
    return lambda rounds, **facts: report(benchmark, rounds, NAME, threads=threads, **facts)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the 1080p scene as JPEG, PNG and video."""
    from suite.scenes import scene, write_picture, write_video

    folder = tmp_path_factory.mktemp("pictures")
    frame = scene("1080p")
    write_picture(folder / "frame.jpg", frame)
    write_picture(folder / "frame.png", frame)
    write_video(folder / "frames.avi", frame, frames=100)
    return folder


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Name of a network of the suite → its bundle, float and int8; each is made once."""
    from suite.networks import NETWORKS, OTHER_FAMILIES, export_network, with_int8

    folder, made = tmp_path_factory.mktemp("bundles"), {}

    def bundle(name: str) -> Any:
        if name not in made:
            exported = export_network({**NETWORKS, **OTHER_FAMILIES}[name], folder / name)
            made[name] = with_int8(exported, folder / name / "int8.edgead")
        return made[name]

    return bundle


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled models of this session."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache of compiled models out of it."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
