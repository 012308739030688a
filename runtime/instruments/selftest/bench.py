"""What a self-test examines: engines, what makes their inputs, and the ways to put them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from edge_ad.bundle.bundle import Bundle
from edge_ad.engine import Engine, EngineSpec
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.engines.tensorrt.choices import Choices
from edge_ad.runtime.instruments.selftest.record import Record

SWITCHES: dict[str, dict[str, Any]] = {
    "kernel tail": {"tail": "kernel"},
    "device preprocessing": {"preprocess": "device"},
    "CUDA graph": {"cuda_graph": True},
}
"""What may be faster than the defaults, as fields of `Choices`. A new one is one entry here."""

DEFAULTS = "defaults"
CPU_BATCH = 4


@dataclass(frozen=True)
class Variant:
    """Some of the switches, by their names."""

    name: str
    choices: Choices


VARIANTS = tuple(
    Variant(
        " + ".join(names) or DEFAULTS,
        Choices(**{key: value for name in names for key, value in SWITCHES[name].items()}),
    )
    for count in range(len(SWITCHES) + 1)
    for names in combinations(SWITCHES, count)
)
"""All sets of switches; those that need less come first."""


@dataclass(frozen=True)
class Subject:
    """A loaded engine that is compared with the reference.

    Attributes:
        engine: takes any number of images, unless its graph has fixed it.
        batches: how many to give it at once, one after the other.
        makes_maps: whether code of ours makes its maps, which then have to be the operator's.
    """

    engine: Engine
    batches: tuple[int, ...]
    makes_maps: bool = False


@dataclass(frozen=True)
class Way:
    """One way from a frame to its outputs.

    Attributes:
        name: what it differs in from the defaults.
        choices: what would be recorded.
        engine, preprocess: names of its parts in a `Bench`.
    """

    name: str
    choices: Choices
    engine: str
    preprocess: str = "cpu"


@dataclass(frozen=True)
class Bench:
    """Everything that is loaded.

    Attributes:
        engines, preprocessors: by name; `cpu` is what the others are compared with.
        ways: those that need less come first.
        missing: what could not be tried, and why.
        about: what a bug report needs to know, in words.
        record: where to keep what is fastest; None where there is nothing to choose.
        free_before: what was free of the device's memory before anything was loaded, in bytes.
        free_bytes: what is free of it now; None where there is no device.
        lost: why nothing more can be done; None while all is well.
    """

    engines: Mapping[str, Subject]
    preprocessors: Mapping[str, Preprocessor]
    ways: tuple[Way, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    record: Record | None = None
    free_before: int | None = None
    free_bytes: Callable[[], int] | None = None
    lost: Callable[[], str | None] = lambda: None


@contextmanager
def cpu_bench(bundle: Bundle, spec: EngineSpec, name: str, missing: Mapping[str, str]) -> Iterator[Bench]:
    """An engine of the CPU. Raises: EngineError, MissingExtraError."""
    with ExitStack() as stack:
        engine = stack.enter_context(make_engine(name, lambda: bundle.read_graph(spec.precision), spec))
        preprocess = Preprocessor(bundle.manifest.preprocess)
        stack.callback(preprocess.close)
        batches = (1, CPU_BATCH) if spec.batch is None else (spec.batch,)
        yield Bench(
            engines={name: Subject(engine, batches)},
            preprocessors={"cpu": preprocess},
            ways=(Way(name, Choices(), name),),
            missing=missing,
        )
