"""A bench of engines that are right, wrong, slow or unreliable: what is found, what is eligible, what is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.engine import Outputs
from edge_ad.errors import EngineError
from edge_ad.image.preprocess import ModelInput, Preprocessor
from edge_ad.runtime.engines.tensorrt.choices import Choices, read_choices, write_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import PlanNeed, this_platform
from edge_ad.runtime.instruments.selftest import checks as conclusions
from edge_ad.runtime.instruments.selftest import examine, run
from edge_ad.runtime.instruments.selftest.agreement import infer_in_batches, judged
from edge_ad.runtime.instruments.selftest.bench import SWITCHES, VARIANTS, Bench, Subject, Way
from edge_ad.runtime.instruments.selftest.examine import (
    Findings,
    examine_engines,
    examine_preprocessing,
    fastest_way,
    latency_rows,
    time_ways,
)
from edge_ad.runtime.instruments.selftest.images import FrameSet
from edge_ad.runtime.instruments.selftest.memory import MemoryFigures
from edge_ad.runtime.instruments.selftest.options import SelftestOptions
from edge_ad.runtime.instruments.selftest.page import page
from edge_ad.runtime.instruments.selftest.record import Record
from edge_ad.runtime.instruments.selftest.reference import Reference
from edge_ad.runtime.instruments.selftest.report import Report

SIZE = 48
SPEC = PreprocessSpec(SIZE, SIZE)
ROUNDS = 12  # as few as can decide
NEED = PlanNeed("tensorrt", "10.3.0", 86, "emulated GPU", "fp32", 1, "0" * 64, None, this_platform())
KERNEL = Choices(tail="kernel")
DEVICE = Choices(preprocess="device")


def _unwatched(things: Iterable[Any], _: str, __: int) -> Iterable[Any]:
    return things


class Clock:
    """Stands for the module `time`: every look at it takes a millisecond, and what is slow takes ten more."""

    now_s = 0.0

    def perf_counter(self) -> float:
        self.now_s += 1e-3
        return self.now_s

    def slow(self, outputs: Outputs) -> Outputs:
        self.now_s += 10e-3
        return outputs


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(examine, "time", clock)
    return clock


@pytest.fixture
def reference(make_engine: Any, frames: tuple[Any, ...], postprocess: PostprocessSpec) -> Reference:
    preprocess = Preprocessor(SPEC)
    inputs = tuple(preprocess(frame) for frame in frames)
    with make_engine() as engine:
        outputs = infer_in_batches(engine, [made.image_hwc for made in inputs], 1)
    right = judged(outputs, [made.geometry for made in inputs], postprocess)
    return Reference("onnxruntime", inputs, right, None, 0.5, "given", postprocess)


class OtherPreprocessor(Preprocessor):
    """Stands for the device's. Args: change: what it does to the CPU's model inputs."""

    def __init__(self, change: Any = lambda made: made) -> None:
        super().__init__(SPEC)
        self.change = change

    def __call__(self, image_hwc: Any, color_order: Any = "rgb") -> ModelInput:
        made: ModelInput = self.change(super().__call__(image_hwc, color_order))
        return made


def _bench(graph: Any, kernel: Any, device: Preprocessor | None = None, **changes: Any) -> Bench:
    preprocessors = {"cpu": Preprocessor(SPEC)} | ({"device": device} if device is not None else {})
    ways = [Way("defaults", Choices(), "graph tail"), Way("kernel tail", KERNEL, "kernel tail")]
    if device is not None:
        ways.append(Way("device preprocessing", DEVICE, "graph tail", "device"))
    engines = {"graph tail": Subject(graph, (1, 4)), "kernel tail": Subject(kernel, (1, 4), makes_maps=True)}
    return Bench(engines, preprocessors, tuple(ways), **changes)


def _examined(bench: Bench, reference: Reference, frames: Any) -> tuple[Findings, Any, Way | None]:
    found = Findings()
    for tested in bench.engines.values():
        tested.engine.__enter__()
    examine_engines(bench, reference, found, _unwatched)
    examine_preprocessing(bench, frames, found, _unwatched)
    times, _ = time_ways(bench, frames[:3], ROUNDS, 1.0, found, _unwatched)
    return found, times, fastest_way(bench, times, found)


def test_every_set_of_switches_is_there_once_and_those_that_need_less_come_first() -> None:
    assert [variant.name for variant in VARIANTS[:4]] == ["defaults", *SWITCHES]
    assert len({repr(variant.choices) for variant in VARIANTS}) == len(VARIANTS) == 2 ** len(SWITCHES)
    assert VARIANTS[0].choices == Choices()


def test_the_faster_of_two_that_are_right_is_taken(
    make_engine: Any, clock: Clock, reference: Reference, frames: Any
) -> None:
    found, times, way = _examined(_bench(make_engine(clock.slow), make_engine()), reference, frames)
    assert found.failures == {}
    assert way is not None and way.choices == KERNEL
    assert {len(taken.total_ms) for taken in times.values()} == {ROUNDS}


def test_one_that_is_right_but_slower_is_not_taken(
    make_engine: Any, clock: Clock, reference: Reference, frames: Any
) -> None:
    found, _, way = _examined(_bench(make_engine(), make_engine(clock.slow)), reference, frames)
    assert found.failures == {}
    assert way is not None and way.name == "defaults"


@pytest.mark.parametrize("fault", ["wrong_tail", "shifted", "noisy", "scaled", "stuck"])
def test_one_that_is_faster_but_wrong_is_not_taken(
    make_engine: Any, clock: Clock, faults: Any, reference: Reference, frames: Any, fault: str
) -> None:
    bench = _bench(make_engine(clock.slow), make_engine(getattr(faults, fault)))
    found, times, way = _examined(bench, reference, frames)
    assert set(found.failures) == {"kernel tail"}
    assert set(times) == {"defaults"}  # what is wrong is not timed
    assert way is not None and way.name == "defaults"
    assert all(line.startswith("kernel tail: ") for line in found.listed())


def test_a_fault_of_larger_batches_alone_is_seen(
    make_engine: Any, faults: Any, reference: Reference, frames: Any
) -> None:
    found, _, _ = _examined(_bench(make_engine(), make_engine(faults.stuck)), reference, frames)
    assert {row.batch for row in found.engines if row.faults} == {4}
    assert all(fault.startswith("batch 4: ") for fault in found.failures["kernel tail"])


def test_maps_are_compared_with_the_operator_where_our_code_makes_them(
    make_engine: Any, faults: Any, reference: Reference, frames: Any
) -> None:
    found, _, _ = _examined(_bench(make_engine(), make_engine(faults.wrong_tail)), reference, frames)
    rows = {row.engine: row for row in found.operators if row.faults or not row.judged}
    assert not rows["graph tail"].judged
    assert any("float64 operator" in fault for fault in rows["kernel tail"].faults)


def test_when_the_defaults_are_wrong_another_way_is_taken(
    make_engine: Any, clock: Clock, faults: Any, reference: Reference, frames: Any
) -> None:
    found, _, way = _examined(_bench(make_engine(faults.scaled), make_engine(clock.slow)), reference, frames)
    assert set(found.failures) == {"graph tail"}
    assert way is not None and way.choices == KERNEL


def test_preprocessing_that_is_wrong_is_not_eligible(
    make_engine: Any, clock: Clock, reference: Reference, frames: Any
) -> None:
    def wrong(made: ModelInput) -> ModelInput:
        return ModelInput(made.image_hwc[:, ::-1].copy(), made.geometry)

    bench = _bench(make_engine(), make_engine(clock.slow), OtherPreprocessor(wrong))
    found, times, way = _examined(bench, reference, frames)
    assert set(found.failures) == {"device preprocessing"}
    assert "device preprocessing" not in times
    assert way is not None and way.name == "defaults"
    right = _bench(make_engine(), make_engine(clock.slow), OtherPreprocessor())
    found, times, _ = _examined(right, reference, frames)
    assert (found.failures, set(times)) == ({}, {"defaults", "kernel tail", "device preprocessing"})


def test_an_engine_that_fails_is_a_finding_and_not_the_end(make_engine: Any, reference: Reference, frames: Any) -> None:
    def fails(outputs: Outputs) -> Outputs:
        raise EngineError("TensorRT failed on a batch")

    found, _, way = _examined(_bench(make_engine(), make_engine(fails)), reference, frames)
    assert found.failures == {"kernel tail": [f"batch {batch}: TensorRT failed on a batch" for batch in (1, 4)]}
    assert [row.difference for row in found.engines if row.engine == "kernel tail"] == [None, None]
    assert way is not None and way.name == "defaults"


def test_a_device_that_is_lost_ends_it(make_engine: Any, reference: Reference, frames: Any) -> None:
    def fails(outputs: Outputs) -> Outputs:
        raise EngineError("the GPU is lost to this process")

    bench = _bench(make_engine(), make_engine(fails), lost=lambda: "the GPU is lost to this process")
    with pytest.raises(EngineError, match="self-test: the GPU is lost"):
        _examined(bench, reference, frames)


def test_answers_that_change_while_frames_are_timed_are_seen(
    make_engine: Any, reference: Reference, frames: Any
) -> None:
    calls = 0

    def later_wrong(outputs: Outputs) -> Outputs:
        nonlocal calls
        calls += 1
        return replace(outputs, pred_score=outputs.pred_score + 1) if calls > 20 else outputs

    found, times, way = _examined(_bench(make_engine(), make_engine(later_wrong)), reference, frames)
    assert set(found.failures) == {"kernel tail"}
    assert "while timing: a frame that had the score" in found.failures["kernel tail"][0]
    assert set(times) == {"defaults"}
    assert way is not None and way.name == "defaults"
    rows = latency_rows(_bench(make_engine(), make_engine()), times, found)
    assert [(row.way, row.passed) for row in rows] == [("defaults", True)]


def test_what_is_recorded(
    make_engine: Any, clock: Clock, faults: Any, reference: Reference, frames: Any, tmp_path: Path
) -> None:
    write_choices(tmp_path, NEED, replace(KERNEL, medians_ms={"old": 1.0}))
    record = Record(tmp_path, NEED)
    record.suspend()
    assert read_choices(tmp_path, NEED) == Choices()  # while it is in question
    record.restore()
    assert read_choices(tmp_path, NEED) == replace(KERNEL, medians_ms={"old": 1.0})
    bench = _bench(make_engine(faults.scaled), make_engine(faults.shifted), record=record)
    found, times, way = _examined(bench, reference, frames)
    assert way is None
    assert "WARNING: what is recorded, kernel tail, has failed" in conclusions.leave(bench, found)
    said, error = conclusions.keep(bench, way, times)
    assert error is None and "defaults, because nothing has passed" in said
    assert read_choices(tmp_path, NEED) == Choices()
    good = _bench(make_engine(clock.slow), make_engine(), record=record)
    found, times, way = _examined(good, reference, frames)
    assert conclusions.leave(good, found) == "not recorded, as was asked for"
    said, error = conclusions.keep(good, way, times)
    assert error is None and "kernel tail" in said and str(tmp_path) in said
    kept = read_choices(tmp_path, NEED)
    assert kept is not None and kept.tail == "kernel"
    assert kept.medians_ms == {"defaults": 12.0, "kernel tail": 2.0}


@pytest.mark.parametrize(
    ("ends_with", "left"), [(KeyboardInterrupt(), KERNEL), (EngineError("the GPU is lost"), Choices())]
)
def test_a_test_that_the_user_ends_leaves_the_record_and_one_that_breaks_off_the_defaults(
    make_engine: Any, reference: Reference, frames: Any, tmp_path: Path, ends_with: BaseException, left: Choices
) -> None:
    write_choices(tmp_path, NEED, KERNEL)
    bench = _bench(make_engine(), make_engine(), record=Record(tmp_path, NEED))
    seen = []

    def watch(things: Iterable[Any], what: str, _: int) -> Iterable[Any]:
        seen.append(read_choices(tmp_path, NEED))
        if what == "timing":
            raise ends_with
        return things

    for subject in bench.engines.values():
        subject.engine.__enter__()
    options = SelftestOptions(Path("bundle"))
    with pytest.raises(type(ends_with)):
        run.examine(bench, FrameSet("some", frames, frames), reference, options, Findings(), watch)
    assert set(map(repr, seen)) == {repr(Choices())}
    assert read_choices(tmp_path, NEED) == left


def test_a_record_that_says_the_defaults_is_left_alone(tmp_path: Path) -> None:
    for before in (None, Choices(medians_ms={"old": 1.0})):
        if before is not None:
            write_choices(tmp_path, NEED, before)
        record = Record(tmp_path, NEED)
        record.suspend()
        record.restore()
        assert read_choices(tmp_path, NEED) == before


def test_a_record_that_cannot_be_written_is_said(tmp_path: Path, make_engine: Any) -> None:
    (tmp_path / "file").write_text("")
    bench = _bench(make_engine(), make_engine(), record=Record(tmp_path / "file", NEED))
    said, error = conclusions.keep(bench, bench.ways[0], {})
    assert error is not None and said == f"NOT recorded: {error}"


def test_a_budget(make_engine: Any, clock: Clock, reference: Reference, frames: Any) -> None:
    bench = _bench(make_engine(), make_engine(clock.slow))
    found, times, way = _examined(bench, reference, frames)
    rows = latency_rows(bench, times, found)
    assert conclusions.over_budget(None, way, rows) is None
    assert conclusions.over_budget(1e6, way, rows) is None
    assert "the budget is 1e-06 ms" in str(conclusions.over_budget(1e-6, way, rows))
    assert conclusions.over_budget(1e-6, None, rows) is None  # what failed is said already


def test_pictures_on_which_the_reference_sees_nothing_are_said(reference: Reference) -> None:
    frames = FrameSet("some", (), (), ("a.png: no picture",))
    said = conclusions.notes(frames, reference, own_pictures=True)
    assert said == ("not read: a.png: no picture",)
    flat = replace(reference, judged=replace(reference.judged, maps=np.full((2, SIZE, SIZE), 0.25, np.float32)))
    assert "prove little" in conclusions.notes(frames, flat, own_pictures=True)[-1]


def test_a_page_says_what_is_wrong_once_and_all_of_it_above(make_engine: Any, reference: Reference) -> None:
    found = Findings()
    found.fail("kernel tail", ["batch 1: off", "batch 4: off"])
    found.fail("device preprocessing", ["off: by 3"])
    report = Report(
        about={"edge-ad": "0"},
        engine="tensorrt",
        reference="onnxruntime",
        images="some",
        threshold=0.5,
        threshold_of="given",
        engines=(),
        operators=(),
        preprocess=None,
        against_fp32=None,
        against_fp32_faults=(),
        latency=(),
        frames=1,
        clocks=("1 of 2 MHz",),
        fastest=None,
        recorded="nothing",
        memory=MemoryFigures(),
        failures=found.listed(),
    )
    lines = page(report).splitlines()
    assert lines[-1] == "FAILED: kernel tail: batch 1: off; device preprocessing: off: by 3"
    assert lines[lines.index("Wrong") + 1 :][:3] == [f"  {failure}" for failure in report.failures]
    assert "  clocks before: 1 of 2 MHz" in lines
