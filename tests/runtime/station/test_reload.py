"""Thresholds read again: from settings and bundle as they are now, or not at all."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import PreprocessSpec, Thresholds
from edge_ad.errors import BundleError, ConfigError, EdgeAdError
from edge_ad.runtime.line.scheduling.thresholds import ThresholdBoard
from edge_ad.runtime.station import reload as reload_module
from edge_ad.runtime.station.file import run_options
from edge_ad.runtime.station.reload import SighupReload, ThresholdReload, configured
from edge_ad.runtime.station.settings import LineSettings

PATIENCE_S = 10


class Bench:
    """Settings of two cameras, of which the first has a threshold of its own, and a bundle that says 0.6."""

    def __init__(self, folder: Path, write: Callable[..., Bundle]) -> None:
        self.path = folder / "b.edgead"
        self.write = write
        bundle = write(self.path)
        self.now = self.with_scores(0.3, None)
        self.said: list[str] = []
        self.board = ThresholdBoard(["one", "two"], configured(self.now, bundle.thresholds("fp32")))
        self.reload = ThresholdReload(self.now, lambda: self.now, bundle, "fp32", self.board, self.said.append)

    def with_scores(self, *scores: float | None) -> LineSettings:
        settings = run_options({"bundle": str(self.path), "source": ("sim:?seed=1", "sim:?seed=2")}, "test")
        cameras = [replace(one, threshold=score) for one, score in zip(settings.cameras, scores, strict=True)]
        return replace(settings, cameras=tuple(cameras))

    @property
    def scores(self) -> list[float | None]:
        return [use.thresholds.image for use in self.board.snapshot().values()]


@pytest.fixture
def bench(tmp_path: Path, fake_bundle: Callable[..., Bundle]) -> Bench:
    return Bench(tmp_path, fake_bundle)


def test_settings_and_bundle_as_they_are_now(bench: Bench) -> None:
    assert bench.scores == [0.3, 0.6]
    bench.now = bench.with_scores(0.35, None)
    bench.reload()
    assert bench.scores == [0.35, 0.6]
    write_changed(Bundle.read(bench.path), bench.path, {"thresholds": Thresholds(0.7)}, replace=True)
    bench.reload()
    assert bench.scores == [0.35, 0.7]
    bench.now = bench.with_scores(None, 0.2)
    bench.reload()
    assert bench.scores == [0.7, 0.2]
    assert bench.said[-1] == "thresholds read again: one 0.7, two 0.2"
    assert (bench.reload.done, bench.reload.failed) == (3, 0)


def test_what_requests_have_changed_is_over_after_a_reload(bench: Bench) -> None:
    bench.board.change({"one": 0.9, "two": 0.8})
    bench.reload()
    assert bench.scores == [0.3, 0.6]


def test_other_changes_are_said_to_wait(bench: Bench) -> None:
    bench.now = replace(bench.with_scores(0.4, None), batch=4)
    bench.reload()
    assert bench.scores == [0.4, 0.6]
    assert bench.said[-1] == "note: other settings have changed too; they count from the next start on"


def other_cameras(bench: Bench) -> None:
    bench.now = replace(bench.now, cameras=bench.now.cameras[:1])


def other_bundle(bench: Bench) -> None:
    bench.now = replace(bench.now, bundle=bench.path.with_name("other.edgead"))


def no_bundle(bench: Bench) -> None:
    bench.path.rename(bench.path.with_name("gone.edgead"))


def damaged_bundle(bench: Bench) -> None:
    (bench.path / "model.onnx").write_bytes(b"something else")


def other_model(bench: Bench) -> None:
    bench.write(bench.path, graph=b"another graph", replace=True)


def other_preprocessing(bench: Bench) -> None:
    bench.write(bench.path, preprocess=PreprocessSpec(32, 32), replace=True)


def no_threshold(bench: Bench) -> None:
    write_changed(Bundle.read(bench.path), bench.path, {"thresholds": Thresholds()}, replace=True)


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (other_cameras, ConfigError, "cameras: are not those that the line runs with"),
        (other_bundle, ConfigError, "bundle: is another one"),
        (no_bundle, BundleError, "does not exist"),
        (damaged_bundle, BundleError, "is not what was written"),
        (other_model, ConfigError, "holds another model now"),
        (other_preprocessing, ConfigError, "holds another model now"),
        (no_threshold, ConfigError, "two: neither its settings nor the bundle hold a threshold any more"),
    ],
)
def test_what_cannot_be_used_changes_nothing_and_is_said(
    bench: Bench, damage: Callable[[Bench], None], kind: type[EdgeAdError], words: str
) -> None:
    bench.board.change({"one": 0.9})
    damage(bench)
    with pytest.raises(kind, match=words):
        bench.reload()
    assert bench.scores == [0.9, 0.6]
    (line,) = bench.said
    assert line.startswith("warning: thresholds stay as they are: ") and words in line
    assert (bench.reload.done, bench.reload.failed) == (0, 1)


def test_a_reload_that_hangs_does_not_hold_up_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload_module, "END_S", 0.1)
    began, release = threading.Event(), threading.Event()

    def hang() -> LineSettings:
        began.set()
        assert release.wait(PATIENCE_S)
        return bench.now

    bench.reload._reread = hang
    sighup = SighupReload()
    with sighup.answered_by(bench.reload):
        sighup._asked.set()
        assert began.wait(PATIENCE_S)
    release.set()  # too late for a reload that was waited for: its own patience is over
    for thread in threading.enumerate():
        if thread.name == "edge-ad-reload":
            thread.join(PATIENCE_S)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_hangup_reloads_even_one_that_came_too_early(bench: Bench) -> None:
    came = threading.Semaphore(0)
    bench.reload._reread = lambda: (came.release(), bench.now)[1]
    previous = signal.getsignal(signal.SIGHUP)
    with SighupReload() as sighup:
        os.kill(os.getpid(), signal.SIGHUP)  # while the engine is loaded, say
        with sighup.answered_by(bench.reload):
            assert came.acquire(timeout=PATIENCE_S)
            bench.now = replace(bench.now, cameras=())
            os.kill(os.getpid(), signal.SIGHUP)
            assert came.acquire(timeout=PATIENCE_S)
            bench.now = bench.with_scores(0.1, 0.1)  # the failure before has ended nothing
            os.kill(os.getpid(), signal.SIGHUP)
            assert came.acquire(timeout=PATIENCE_S)
    assert bench.scores == [0.1, 0.1]
    assert signal.getsignal(signal.SIGHUP) == previous
