"""An engine in a process of its own computes the same, and what ends that process costs no more than its batch."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engine_process import DEFECT, EXIT, FORK, HANG, HOLD, REFUSE, SEGV, SHAPE, MakeEngine, batch_of, children

from edge_ad.bundle.bundle import Bundle
from edge_ad.engine import EngineSpec, Outputs
from edge_ad.errors import BundleError, ConfigError, EngineError, ImageError
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.engines.process.engine import EngineProcess, ProcessEngine
from edge_ad.runtime.engines.process.launch import launch
from edge_ad.runtime.engines.process.wire import EngineDefect


def same(one: Outputs, other: Outputs) -> None:
    for name in ("patch_map", "anomaly_map", "pred_score"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def pid_of(engine: ProcessEngine) -> int:
    assert engine.health.pid is not None
    return engine.health.pid


@pytest.mark.parametrize("name", ["fake", "openvino", "onnxruntime"])
def test_it_computes_what_the_engine_here_computes(
    make: MakeEngine, bundle: Bundle, spec: EngineSpec, name: str
) -> None:
    with make(name) as engine, make_engine(name, lambda: bundle.read_file("model.onnx"), spec) as here:
        assert (engine.name, engine.effective_precision) == (here.name, here.effective_precision)
        assert engine.health.pid in children()
        for images in (1, 3, 2):  # more, and fewer
            batch = batch_of(spec, images=images)
            first, wanted = engine.infer(batch), here.infer(batch)
            same(first, wanted)
            engine.infer(255 - batch)
            same(first, wanted)  # what was returned belongs to the caller
            first.patch_map[...] = 0
        same(engine.infer(batch[:, ::-1]), here.infer(np.ascontiguousarray(batch[:, ::-1])))
        assert engine.health.restarts == 0
    with pytest.raises(EngineError, match="is not loaded"):
        engine.infer(batch)


def test_this_process_needs_no_library_of_the_engine() -> None:
    code = (
        "import sys; from importlib import resources; from edge_ad.runtime.judge.loader import open_detector;"
        "from edge_ad.runtime.engines.process.engine import EngineProcess;"
        "bundle = str(resources.files('edge_ad.demo') / 'disc.edgead')\n"
        "with EngineProcess('openvino') as process, open_detector(bundle, make=process.engine) as detector:\n"
        "    print(detector.provenance.precision, 'openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["fp32", "False"]


CRASHES = {
    SEGV: "its process crashed (SIGSEGV: it touched memory that is not its own); a fresh one takes over",
    EXIT: "its process ended by itself (exit code 7); a fresh one takes over",
    FORK: "its process crashed (SIGSEGV",  # and what it has started holds its descriptors
    HANG: "its process gave no answer within",
    HOLD: "its process gave no answer within",
}


@pytest.mark.parametrize("what", CRASHES)
def test_a_crash_or_a_hang_costs_its_batch(
    make: MakeEngine, spec: EngineSpec, crashing: Callable[[str], None], what: int
) -> None:
    crashing("")
    with make() as engine:
        wanted, first = engine.infer(batch_of(spec)), pid_of(engine)
        with pytest.raises(EngineError) as raised:
            engine.infer(batch_of(spec, what))
        assert str(raised.value).startswith(f"engine fake: {CRASHES[what]}")
        assert str(raised.value).startswith(engine.health.last_fault)
        same(engine.infer(batch_of(spec)), wanted)
        assert engine.health.restarts == 1
        assert engine.health.fault is None
        assert first != engine.health.pid in children()
        assert first not in children()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_ends_while_nothing_is_asked_of_it_costs_nothing(
    make: MakeEngine, spec: EngineSpec, number: int
) -> None:
    with make() as engine:
        wanted, first = engine.infer(batch_of(spec)), pid_of(engine)
        os.kill(first, number)
        until(lambda: engine.health.pid != first)  # at once, though nobody asks
        same(engine.infer(batch_of(spec)), wanted)
        assert (engine.health.restarts, engine.health.fault) == (1, None)
        assert signal.Signals(number).name in engine.health.last_fault


def test_a_batch_that_is_refused_costs_no_process(
    make: MakeEngine, spec: EngineSpec, crashing: Callable[[str], None]
) -> None:
    crashing("")
    with make() as engine:
        first = engine.health.pid
        with pytest.raises(EngineError, match=r"^refused$"):
            engine.infer(batch_of(spec, REFUSE))
        with pytest.raises(EngineDefect, match=r"^ValueError: a defect$"):
            engine.infer(batch_of(spec, DEFECT))
        with pytest.raises(EngineError, match="engine 'fake' returned 'patch_map' as float32"):
            engine.infer(batch_of(spec, SHAPE))
        with pytest.raises(ImageError, match="bundle expects"):
            engine.infer(np.zeros((1, 2, 2, 3), np.uint8))
        engine.infer(batch_of(spec))
        assert (engine.health.pid, engine.health.restarts) == (first, 0)


def test_signals_that_end_a_line_do_not_end_its_engine(make: MakeEngine, spec: EngineSpec) -> None:
    with make() as engine:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid_of(engine), number)
        engine.infer(batch_of(spec))
        assert engine.health.restarts == 0


def test_what_it_says_is_logged_here(
    make: MakeEngine, crashing: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    crashing("")
    with caplog.at_level(logging.WARNING), make():
        pass
    said = {(record.name, record.levelname): record.getMessage() for record in caplog.records}
    assert said["edge_ad.runtime.engines.crashing", "WARNING"] == "loaded fp32"
    crashing("close")
    with caplog.at_level(logging.WARNING), make():
        pass
    assert "its process crashed (SIGSEGV" in caplog.messages[-1] and caplog.messages[-1].endswith("while it closed")


LOADING: dict[str, tuple[type[Exception], str]] = {
    "load": (EngineError, "engine fake: its process crashed (SIGSEGV: it touched memory that is not its own)"),
    "hang": (
        EngineError,
        "engine fake: its process gave no answer within 0.5 s while it loaded the bundle's",
    ),
    "refuse": (EngineError, "wanted another graph, got this one; export it again"),
    "defect": (EngineDefect, "KeyError: 'no such thing'"),
    "graph": (BundleError, "the file has changed"),
}


@pytest.mark.parametrize("where", LOADING)
def test_what_goes_wrong_while_it_is_loaded_ends_the_attempt(
    make: MakeEngine, crashing: Callable[[str], None], where: str
) -> None:
    def changed() -> bytes:
        raise BundleError("the file has changed")

    crashing(where)
    kind, words = LOADING[where]
    with pytest.raises(kind) as raised:
        make(read_model=changed, load_s=0.5 if where == "hang" else 30.0).__enter__()
    assert type(raised.value) is kind
    assert str(raised.value).startswith(words)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_graph_that_is_none_is_refused_in_the_same_words(make: MakeEngine, spec: EngineSpec, name: str) -> None:
    said = []
    for engine in (make(name, lambda: b"no graph"), make_engine(name, lambda: b"no graph", spec)):
        with pytest.raises(EngineError) as raised:
            engine.__enter__()
        said.append((type(raised.value), raised.value.exit_code, str(raised.value)))
    assert said[0] == said[1]


def test_an_engine_of_no_name_is_refused_at_once(spec: EngineSpec) -> None:
    with pytest.raises(ConfigError, match="'nothing' is unknown"):
        ProcessEngine("nothing", bytes, spec)
    with pytest.raises(ConfigError, match="'nothing' is unknown"):
        EngineProcess("nothing")


def test_further_failures_are_waited_out(
    make: MakeEngine, spec: EngineSpec, crashing: Callable[[str], None], tmp_path: Any
) -> None:
    """While no process can be started, a batch waits no longer than it is told to, and says what is wrong."""
    broken = tmp_path / "broken"
    crashing(str(broken))
    with make(wait_s=0.3, first_pause_s=600.0, longest_pause_s=600.0) as engine:
        engine.infer(batch_of(spec))
        broken.touch()
        os.kill(pid_of(engine), signal.SIGKILL)
        said = [""]

        def is_tried_later() -> bool:
            with pytest.raises(EngineError) as raised:
                engine.infer(batch_of(spec))
            said.append(str(raised.value))
            return said[-1].endswith("the next process is started in 600 s")

        until(is_tried_later)
        assert "its process crashed (SIGSEGV: it touched memory that is not its own) while it loaded" in said[-1]
        assert (engine.health.restarts, engine.health.pid) == (0, None)


def test_a_batch_that_hangs_can_be_given_up(
    make: MakeEngine, spec: EngineSpec, crashing: Callable[[str], None]
) -> None:
    crashing("")
    engine = make(answer_s=60.0).__enter__()
    raised: list[Exception] = []

    def infer() -> None:
        try:
            engine.infer(batch_of(spec, HOLD))
        except EngineError as exc:
            raised.append(exc)

    thread = threading.Thread(target=infer)
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()
    engine.give_up()
    thread.join(20)
    engine.__exit__(None, None, None)
    assert "was not waited for any longer" in str(raised[0])


def test_a_process_that_nobody_needs_is_ended(spec: EngineSpec) -> None:
    with EngineProcess("fake") as process:
        assert len(children()) == 1
        process.engine("fake", bytes, spec)  # which nobody loads
    with launch() as launched:
        assert launched.process.pid in children()


def test_an_interrupt_while_it_is_loaded_leaves_no_process(make: MakeEngine, crashing: Callable[[str], None]) -> None:
    crashing("hang")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            make().__enter__()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
