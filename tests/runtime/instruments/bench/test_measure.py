"""What is measured, on a made-up machine whose clocks are turned by hand; and the yardstick on the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from edge_ad.runtime.instruments.bench.clock import CLOCKS
from edge_ad.runtime.instruments.bench.frames import made_frame
from edge_ad.runtime.instruments.bench.gemm import Gemm
from edge_ad.runtime.instruments.bench.macs import Macs
from edge_ad.runtime.instruments.bench.measure import MIN_PEAKS, Measurement
from edge_ad.runtime.instruments.bench.roofline import arithmetics, roofline
from edge_ad.runtime.instruments.bench.statistics import MIN_ROUNDS
from edge_ad.runtime.instruments.bench.yardstick import Peak, PeakGemm, Yardstick, yard_ms

Measured = Callable[..., Measurement]


def test_every_stage_has_its_time_by_both_clocks(measured: Measured) -> None:
    found = measured()
    for stage, milliseconds in {"preprocess": 4, "infer": 10, "postprocess": 1, "total": 15}.items():
        assert found.stage_ms(stage) == pytest.approx(milliseconds)
        assert found.stage_ms(stage, "processor") == pytest.approx(2 * milliseconds)
        assert found.ratios(stage) == pytest.approx([milliseconds / 4] * found.rounds)
        assert found.ratios(stage, "processor") == pytest.approx([milliseconds / 4] * found.rounds)
    assert found.frames_per_s == pytest.approx(1000 / 15)
    assert found.yards_ms == pytest.approx(np.full((found.rounds, 2), (4, 8)))
    assert found.verdict.verdict == "normal"


def test_a_call_is_a_batch_and_throughput_counts_its_frames(measured: Measured) -> None:
    found = measured(batch=3)
    assert found.stage_ms("total") == pytest.approx(45)
    assert found.frames_per_s == pytest.approx(1000 / 15)


def test_it_takes_the_duration_and_a_frame_that_is_slow_has_its_rounds_too(measured: Measured) -> None:
    long = measured(duration_s=20)
    assert 20 <= long.elapsed_s < 20.2 and long.rounds > 2 * MIN_ROUNDS
    slow = measured(duration_s=0.1, slowness=lambda _: 100.0)
    assert slow.rounds == MIN_ROUNDS


def test_a_machine_that_slows_down_leaves_the_ratios_as_they_are(measured: Measured) -> None:
    factors: Iterator[float] = cycle([1.0] * 300 + [1.7] * 300)
    level = [1.0]

    def drifting() -> float:
        level[0] = next(factors)
        return level[0]

    found = measured(duration_s=20, machine=drifting)
    assert found.stage_ms("total").max() > 1.6 * found.stage_ms("total").min()
    within = [ratio for ratio in found.ratios("total") if abs(ratio - 15 / 4) < 0.05]
    assert len(within) > 0.8 * found.rounds


def test_a_stage_that_slows_down_shows_in_its_ratio(measured: Measured) -> None:
    found = measured(slowness=lambda stage: 1.15 if stage == "infer" else 1.0)
    assert np.median(found.ratios("infer")) == pytest.approx(1.15 * 10 / 4)
    assert np.median(found.ratios("preprocess")) == pytest.approx(1)


def test_meters_see_the_frames_and_not_the_yardstick(measured: Measured) -> None:
    class Meter:
        began = ended = 0

        def begin(self) -> None:
            self.began += 1

        def end(self) -> None:
            self.ended += 1

    meter = Meter()
    found = measured(meters=[meter])
    assert meter.began == meter.ended == found.rounds


def test_the_machine_computes_its_peaks_in_turns_with_the_frames(measured: Measured) -> None:
    """Side 64, by its real clock; a made-up one is not turned by it."""
    peaks = [PeakGemm("fp32", side=64), PeakGemm("int8", side=64)]
    found = measured(peaks=peaks)
    assert [peak.arithmetic for peak in found.peaks] == ["fp32", "int8"]
    for peak in found.peaks:
        assert peak.reason is not None or len(peak.times_ms) >= MIN_PEAKS
        assert peak.macs == 64**3


def test_the_yardstick_is_the_weighted_geometric_mean_of_medians() -> None:
    call = [[16.0, 81.0], [1.0, 1.0]]  # 16 ** 0.75 is 8
    disturbed = [[50.0, 81.0], [1.0, 900.0]]
    assert yard_ms(np.array([call, call, disturbed])).tolist() == pytest.approx([8, 27])


def test_a_chain_of_products_computes_each_of_them() -> None:
    assert Gemm(32, "fp32", depth=5).macs == 5 * 32**3


def test_the_real_yardstick_takes_time_by_both_clocks() -> None:
    times = Yardstick().times()
    assert times.shape[1:] == (2, len(CLOCKS)) and (times > 0).all()


@pytest.mark.parametrize("arithmetic", ["fp32", "int8"])
def test_the_product_is_computed_in_the_arithmetic_that_was_asked_for(arithmetic: str) -> None:
    gemm = Gemm(256, arithmetic)
    assert gemm.kernel and gemm.threads >= 1 and gemm.macs == 256**3
    if not gemm.is_as_asked:
        pytest.skip(f"OpenVINO computes {arithmetic} in {gemm.effective} on this processor")
    gemm.run()


def test_a_product_in_another_arithmetic_is_no_peak(monkeypatch: pytest.MonkeyPatch, measured: Measured) -> None:
    monkeypatch.setattr("edge_ad.runtime.instruments.bench.gemm._what_runs", lambda *_: ("jit_gemm_f32", "f32"))
    peak = PeakGemm("int8", side=32)
    assert not peak.is_real
    found = measured(peaks=[peak])
    assert found.peaks[0].times_ms == [] and found.peaks[0].gmacs_per_s() is None
    assert found.peaks[0].reason == "OpenVINO computes the int8 product in f32 here"
    assert roofline("openvino", "int8", Macs(1), found).reason == found.peaks[0].reason


def test_the_share_of_the_peak_is_taken_in_the_engines_own_arithmetic(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    peaks = (
        Peak("fp32", "k", None, 4_000_000, [(2.0, 4.0), (1.0, 2.0), (2.0, 4.0)]),
        Peak("int8", "k", None, 4_000_000, [(0.5, 1.0)]),
    )
    found = replace(measured(), peaks=peaks, others=None)
    macs = Macs(10_000_000)  # in 10 ms: 1 GMAC/s
    fp32, int8 = (roofline("openvino", arithmetic, macs, found) for arithmetic in ("fp32", "int8"))
    assert (fp32.reached, fp32.share, fp32.best_share, fp32.clock) == pytest.approx((1.0, 0.5, 0.25, "elapsed"))
    assert int8.share == pytest.approx(1 / 8)
    busy = roofline("openvino", "fp32", macs, replace(found, others=0.5))
    assert (busy.share, busy.clock) == (pytest.approx(0.5), "processor")
    assert roofline("tensorrt", "fp32", macs, found).share is None
    assert roofline("fake", "fp32", None, found).reason == "the engine 'fake' computes no graph"
    assert "bf16" in str(roofline("openvino", "bf16", macs, found).reason)


def test_the_peak_is_measured_in_the_engines_arithmetic_too() -> None:
    assert arithmetics("openvino", "fp32") == arithmetics("tensorrt", "fp16") == ("fp32", "int8")
    assert arithmetics("openvino", "fp16") == ("fp32", "int8", "fp16")


@pytest.mark.parametrize("frame_hw", [(1080, 1920), (7, 5), (33, 48)])
def test_the_made_frame_can_be_judged_and_is_always_the_same(frame_hw: tuple[int, int]) -> None:
    frame = made_frame(frame_hw)
    assert frame.shape == (*frame_hw, 3) and frame.dtype == np.uint8 and frame.flags.c_contiguous
    assert frame.min() >= 60 and frame.max() < 230 and frame.std() > 5
    assert np.array_equal(frame, made_frame(frame_hw))


def test_other_programs_are_seen_in_the_systems_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_ad.runtime.instruments.bench.busy import OtherPrograms

    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    stat, own = tmp_path / "stat", [5.0]

    def write(busy: int, idle: int, steal: int) -> None:
        row = f"{busy} 0 0 {idle} 0 0 0 {steal} 0 0"
        stat.write_text(f"cpu  9 9 9 9\ncpu0 {row}\ncpu1 {row}\ncpu2 999999 0 0 {idle} 0 0 0 0 0 0\nintr 5\n")

    write(1000, 1000, 0)
    others = OtherPrograms(stat, own_s=lambda: own[0])
    assert others.share() is None  # no tick has gone by
    write(1060, 1020, 20)  # 100 ticks on each of two processors, of which 160 were busy
    own[0] += 1.0  # 100 of them
    assert others.share() == pytest.approx(60 / 200)
    own[0] += 10
    assert others.share() == 0.0
    stat.unlink()
    assert others.share() is None and OtherPrograms(stat).share() is None
