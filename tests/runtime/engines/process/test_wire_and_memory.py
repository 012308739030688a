"""What two processes say to each other, and the memory that both see."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad import errors
from edge_ad.bundle.specs import PostprocessSpec, TensorSpec
from edge_ad.engine import EngineSpec, Outputs
from edge_ad.errors import ConfigError, EdgeAdError, EngineError, MissingExtraError
from edge_ad.runtime.engines.process import wire as wire_module
from edge_ad.runtime.engines.process.keeper import Limits, Pauses
from edge_ad.runtime.engines.process.launch import make_descriptor
from edge_ad.runtime.engines.process.memory import Exchange
from edge_ad.runtime.engines.process.wire import (
    EngineDefect,
    GoneError,
    Wire,
    error_of,
    spec_of,
    told_error,
    told_spec,
)

ERRORS: list[EdgeAdError] = [
    ConfigError("batch", ["wanted 1, got 2", "and more"]),
    MissingExtraError("engine 'onnxruntime'", "onnxruntime", "onnxruntime"),
    *(kind("wanted this, got that") for kind in (errors.BundleError, EngineError, errors.ImageError, EdgeAdError)),
]


@pytest.fixture
def ends() -> Any:
    ours, theirs = socket.socketpair()
    one, other = Wire(ours), Wire(theirs)
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_on_the_other_side(ends: tuple[Wire, Wire], error: EdgeAdError) -> None:
    one, other = ends
    one.send({"failed": told_error(error)})
    found = error_of(other.receive(1.0)["failed"])
    assert type(found) is type(error)
    assert (str(found), getattr(found, "exit_code", None)) == (str(error), error.exit_code)
    assert getattr(found, "faults", None) == getattr(error, "faults", None)


def test_no_other_class_is_made_of_what_is_said() -> None:
    for kind in ("SystemExit", "one_line", "annotations", "ClassVar", "__builtins__", ""):
        assert type(error_of({"kind": kind, "text": "x"})) is EngineDefect
    for nonsense in (None, [], {}, {"kind": 1, "text": "x"}, {"kind": "EngineError"}, {"kind": "ConfigError"}, "x"):
        with pytest.raises(ValueError, match="no error"):
            error_of(nonsense)


def test_nothing_that_it_says_rules_a_terminal() -> None:
    for told in (
        {"kind": "EngineError", "text": "\x1b[2Jgone\r\n"},
        {"kind": "ConfigError", "where": "\x1b[2Jgone", "faults": ["\x07"]},
        {"kind": "", "text": "\u202egone" * 10_000},
    ):
        text = str(error_of(told))
        assert text.isprintable() and len(text) <= wire_module.MOST_SHOWN


def test_a_defect_says_what_it_is() -> None:
    assert str(error_of(told_error(KeyError("x")))) == "KeyError: 'x'"
    assert str(error_of(told_error(MemoryError()))) == "MemoryError"


def test_a_spec_is_the_same_on_the_other_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = TensorSpec("image", (None, 8, 8, 3), "uint8")
    outputs = tuple(TensorSpec(name, (None, 4, 4), "float32") for name in ("a", "b", "c"))
    plain = EngineSpec(image, outputs, "int8", None, "0" * 64)
    full = replace(plain, batch=3, cache_dir=tmp_path, postprocess=PostprocessSpec(sigma=2.5), device=1, dla=0)
    for spec in (plain, full):
        assert spec_of(told_spec(spec)) == spec
    monkeypatch.chdir(tmp_path)
    assert spec_of(told_spec(replace(plain, cache_dir=Path("engines")))).cache_dir == tmp_path / "engines"


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80) | st.binary(max_size=40).map(lambda body: len(body).to_bytes(4, "big") + body))
def test_whatever_is_said_is_a_message_or_none(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    one = Wire(ours)
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            while True:
                assert isinstance(one.receive(1.0), dict)
        except (ValueError, GoneError):
            pass
        finally:
            one.close()


def test_a_message_has_a_limit_and_an_attachment_none(ends: tuple[Wire, Wire]) -> None:
    one, other = ends
    one.send({"bytes": 5}, b"12345")
    one.send({"next": 1})
    assert other.receive(1.0) == {"bytes": 5}
    assert other.receive_attachment(5) == b"12345"
    assert other.receive(1.0) == {"next": 1}
    one._socket.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="a message of 4294967295 bytes"):
        other.receive(1.0)


def test_the_time_in_which_both_were_stopped_does_not_count(
    ends: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after Ctrl-Z: the clock has jumped when the wait goes on."""
    one, _ = ends
    monkeypatch.setattr(wire_module, "SLICE_S", 0.02)
    hours_s = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(wire_module.time, "monotonic", lambda: float(next(hours_s)))
    with pytest.raises(TimeoutError):
        one.receive(0.1)
    assert next(hours_s) // 3600 >= 10  # five slices, each with a look before and after
    one.end()
    one.close()
    with pytest.raises(GoneError):
        one.send({})


@pytest.fixture
def small() -> EngineSpec:
    shapes = {"patch_map": (None, 2, 3), "anomaly_map": (None, 4, 6), "pred_score": (None,)}
    outputs = tuple(TensorSpec(name, shape, "float32") for name, shape in shapes.items())
    return EngineSpec(TensorSpec("image", (None, 4, 6, 3), "uint8"), outputs, "fp32", None, "")


@pytest.fixture(params=["memfd", "file"])
def descriptor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    made = make_descriptor()
    yield made
    os.close(made)


def test_both_sides_see_the_same(small: EngineSpec, descriptor: int) -> None:
    here, there = Exchange(small, descriptor), Exchange(small, descriptor)
    for images in (2, 5, 1):
        here.make_room(images)
        batch = np.random.default_rng(images).integers(0, 256, (images, 4, 6, 3), np.uint8)
        here.put_inputs(batch)
        there.use(here.images)
        np.testing.assert_array_equal(there.inputs(images), batch)
        wanted = Outputs(
            np.full((images, 2, 3), 0.25, np.float32),
            np.full((images, 4, 6), 0.5, np.float32),
            np.arange(images, dtype=np.float32),
        )
        assert there.put_outputs(wanted, images)
        found = here.outputs(images)
        assert there.put_outputs(replace(wanted, pred_score=wanted.pred_score + 1), images)
        for name in ("patch_map", "anomaly_map", "pred_score"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert here.images == 5
    assert not there.put_outputs(replace(wanted, patch_map=np.zeros((1, 9), np.float32)), 1)
    assert not there.put_outputs(replace(wanted, patch_map=np.zeros((1, 2, 3))), 1)
    assert not there.put_outputs(wanted, 2)
    here.close()
    there.close()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")
def test_the_other_side_cannot_take_the_memory_away(small: EngineSpec) -> None:
    made = make_descriptor()
    exchange = Exchange(small, made)
    exchange.make_room(2)
    with pytest.raises(PermissionError):
        os.ftruncate(made, 0)
    os.close(made)
    exchange.close()


def test_no_memory_is_an_error_and_no_crash(
    small: EngineSpec, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EngineError, match="no memory for a batch of 2 images: No space left on device"):
        Exchange(small, descriptor).make_room(2)


def test_maps_without_a_fixed_size_are_refused(small: EngineSpec, descriptor: int) -> None:
    open_size = replace(small, image=TensorSpec("image", (None, None, 6, 3), "uint8"))
    with pytest.raises(EngineError, match="tensor 'image' has no fixed size"):
        Exchange(open_size, descriptor)


def test_pauses_grow_and_have_an_end() -> None:
    pauses = Pauses(Limits())
    assert [pauses.after(0.0) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert pauses.after(59.0) == 60  # it worked for less than the last pause
    assert [pauses.after(61.0), pauses.after(4.9), pauses.after(4.9), pauses.after(5.0)] == [0, 1, 2, 0]
    assert [pauses.after(10.0) for _ in range(5)] == [0] * 5  # now and then: only the batch in hand is lost
