"""Energy and clocks from made-up files and libraries."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_ad.runtime.instruments.bench.energy import Probe, ProbeMeter, find_probes


def rapl(root: Path, microjoules: int) -> Path:
    for name in ("intel-rapl:0", "intel-rapl:0:0"):
        folder = root / "sys/class/powercap" / name
        folder.mkdir(parents=True)
        (folder / "name").write_text("package-0\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")
    return root / "sys/class/powercap/intel-rapl:0/energy_uj"


def test_rapl_counts_the_energy_of_the_frames_over_its_wrap(tmp_path: Path) -> None:
    counter = rapl(tmp_path, 990_000_000)
    with ExitStack() as stack:
        probes, silent = find_probes(stack, root=tmp_path)
        (probe,) = [each for each in probes if each.source.startswith("RAPL")]
        now = [0.0]
        meter = ProbeMeter(probe, now_s=lambda: now[0])
        meter.begin()
        now[0], _ = 2.0, counter.write_text("15000000")
        meter.end()
        counter.write_text("500000000")  # between the frames, which is not counted
        meter.begin()
        now[0], _ = 3.0, counter.write_text("505000000")
        meter.end()
    reading = meter.reading()
    assert reading is not None and reading.source == "RAPL package-0"
    assert reading.joules == pytest.approx(30) and reading.watts == pytest.approx(10)
    assert [line.split(":")[0] for line in silent] == [
        "NVML (package nvidia-ml-py)",
        "jtop (package jetson-stats)",
        "processor clock",
    ]


def test_what_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = rapl(tmp_path, 1)
    read_text = Path.read_text

    def guarded(self: Path, *args: Any, **kwargs: Any) -> str:
        if self == counter:
            raise PermissionError(13, "Permission denied", str(self))
        return read_text(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", guarded)
    with ExitStack() as stack:
        _, silent = find_probes(stack, root=tmp_path)
    assert "RAPL: energy_uj may be read by root only" in silent


@pytest.mark.parametrize("counts_energy", [True, False])
def test_nvml_is_asked_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, counts_energy: bool
) -> None:
    nvml: Any = ModuleType("pynvml")
    state = {"millijoules": 5000, "closed": False}

    def energy(_: Any) -> int:
        if not counts_energy:
            raise RuntimeError("Not Supported")
        return state["millijoules"]

    nvml.nvmlInit = lambda: None
    nvml.nvmlShutdown = lambda: state.update(closed=True)
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index
    nvml.nvmlDeviceGetName = lambda _: b"Some GPU"
    nvml.nvmlDeviceGetTotalEnergyConsumption = energy
    nvml.nvmlDeviceGetPowerUsage = lambda _: 50_000
    nvml.nvmlDeviceGetClockInfo = lambda *_: 1500
    nvml.NVML_CLOCK_SM = 1
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with ExitStack() as stack:
        probes, _ = find_probes(stack, root=tmp_path)
        now = [0.0]
        meter = ProbeMeter(probes[0], now_s=lambda: now[0])
        meter.begin()
        now[0] = 0.5
        state["millijoules"] += 20_000
        meter.end()
    reading = meter.reading()
    assert state["closed"] and reading is not None and reading.source == "NVML Some GPU"
    assert reading.joules == pytest.approx(20 if counts_energy else 25)
    assert reading.clocks_mhz == (1500, 1500, 1500)


def test_jtop_is_asked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Jetson:
        def __enter__(self) -> Jetson:
            self.power = {"tot": {"power": 9000}}
            self.gpu = {"gv11b": {"freq": {"cur": 918_000}}}
            return self

        def __exit__(self, *_: object) -> None: ...

    module: Any = ModuleType("jtop")
    module.jtop = Jetson
    monkeypatch.setitem(sys.modules, "jtop", module)
    with ExitStack() as stack:
        probes, _ = find_probes(stack, root=tmp_path)
        meter = ProbeMeter(probes[0], now_s=iter([0.0, 2.0]).__next__)
        meter.begin()
        meter.end()
    reading = meter.reading()
    assert reading is not None and reading.joules == pytest.approx(18) and reading.clocks_mhz == (918, 918, 918)


def test_clocks_come_from_cpufreq_or_from_cpuinfo(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("cpu MHz\t\t: 2100.5\ncpu MHz : 3000.0\n")
    with ExitStack() as stack:
        (listed,), _ = find_probes(stack, root=tmp_path)
        for number, kilohertz in enumerate((800_000, 2_400_000)):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/cpufreq"
            folder.mkdir(parents=True)
            (folder / "scaling_cur_freq").write_text(f"{kilohertz}\n")
        (probe,), _ = find_probes(stack, root=tmp_path)
    assert listed.clocks_mhz is not None and listed.clocks_mhz() == [2100.5, 3000.0]
    assert "fixed figure" in listed.source
    meter = ProbeMeter(probe, now_s=iter([0.0, 2.0]).__next__)
    meter.begin()
    meter.end()
    reading = meter.reading()
    assert reading is not None and reading.clocks_mhz == (800, 1600, 2400)
    assert reading.joules is None and reading.watts is None


def test_a_source_that_stops_answering_has_no_reading_and_ends_nothing() -> None:
    answers = iter([1.0])
    meter = ProbeMeter(Probe("made", joules=lambda: next(answers)), now_s=iter(range(9)).__next__)
    meter.begin()
    meter.end()
    meter.begin()
    meter.end()
    assert meter.reading() is None
