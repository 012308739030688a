"""The engines agree, say truly what they compute in, and start from a cache that cannot do harm."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.disk.blob_cache import BlobCache
from edge_ad.engine import BatchArray, Engine, EngineSpec, Outputs
from edge_ad.errors import ConfigError, EngineError, ImageError, MissingExtraError
from edge_ad.image.frame import ColorOrder, ImageArray
from edge_ad.image.preprocess import ModelInput, Preprocessor
from edge_ad.openvino_core import load_openvino, openvino_core
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.engines import openvino as openvino_engine
from edge_ad.runtime.engines.fake import FakeEngine

AGREE_ATOL = 2e-5  # two fp32 libraries, probabilities; the same as the export check allows
SAME_ATOL = 1e-6  # one library, one graph, one CPU, compiled twice

MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="module")
def make(tiny_bundle: Path) -> MakeEngine:
    """An unloaded engine of the small bundle; keywords replace fields of its spec."""
    bundle = Bundle.read(tiny_bundle)
    file = bundle.model_file("fp32")
    spec = EngineSpec(bundle.manifest.input, bundle.manifest.outputs, "fp32", 1, bundle.manifest.files[file])

    def make_one(name: str = "openvino", **changes: Any) -> Engine:
        return make_engine(name, lambda: bundle.read_file(file), replace(spec, **changes))

    return make_one


def _batch(n: int = 1) -> BatchArray:
    return np.random.default_rng(n).integers(0, 256, (n, 64, 64, 3), np.uint8)


def _assert_close(one: Outputs, other: Outputs, atol: float) -> None:
    for name in ("patch_map", "anomaly_map", "pred_score"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.shape == b.shape
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("batch", [1, None])
def test_openvino_and_onnxruntime_agree(make: MakeEngine, batch: int | None) -> None:
    images = _batch(1 if batch else 3)
    with make("openvino", batch=batch) as one, make("onnxruntime", batch=batch) as other:
        outputs = one.infer(images)
        _assert_close(outputs, other.infer(images), AGREE_ATOL)
    assert outputs.patch_map.shape == (len(images), 16, 16)
    assert np.ptp(outputs.patch_map) > 100 * AGREE_ATOL  # control: the outputs say something
    np.testing.assert_allclose(outputs.pred_score, outputs.anomaly_map.max(axis=(1, 2)), rtol=0, atol=SAME_ATOL)


def test_fp32_is_really_fp32(make: MakeEngine) -> None:
    """OpenVINO's default is bf16 or f16 where the CPU has it; only its own property tells."""
    openvino = load_openvino()
    with make("openvino") as engine:
        assert engine.effective_precision == "fp32"
        assert engine._compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    with make("onnxruntime") as engine:
        assert engine.effective_precision == "fp32"


def test_outputs_belong_to_the_caller(make: MakeEngine) -> None:
    for name in ("openvino", "onnxruntime", "fake"):
        with make(name) as engine:
            first = engine.infer(_batch())
            kept = [first.patch_map.copy(), first.anomaly_map.copy(), first.pred_score.copy()]
            engine.infer(255 - _batch())
            for now, before in zip((first.patch_map, first.anomaly_map, first.pred_score), kept, strict=True):
                np.testing.assert_array_equal(now, before)
                now[...] = 0  # writable


def test_views_count_as_what_they_show(make: MakeEngine) -> None:
    view = _batch(4)[1::2, ::-1]
    for name in ("openvino", "onnxruntime"):
        with make(name, batch=2) as engine:
            _assert_close(engine.infer(view), engine.infer(np.ascontiguousarray(view)), 0)


def test_the_second_start_comes_from_the_cache(make: MakeEngine, tmp_path: Path) -> None:
    with make(cache_dir=tmp_path) as engine:
        assert not engine.from_cache
        first = engine.infer(_batch())
    with make(cache_dir=tmp_path) as engine:
        assert engine.from_cache
        assert engine.effective_precision == "fp32"
        _assert_close(engine.infer(_batch()), first, SAME_ATOL)
    # Another graph, batch size or precision is another engine.
    for changes in ({"model_sha256": "0" * 64}, {"batch": 2}, {"precision": "fp16"}):
        with make(cache_dir=tmp_path, **changes) as engine:
            assert not engine.from_cache


def _flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def _foreign_blob(folder: Path) -> None:
    """Garbage whose sidecar fits, as a crash of the file system or another OpenVINO might leave."""
    (blob,), (sidecar,) = folder.glob("*.blob"), folder.glob("*.json")
    blob.write_bytes(b"no compiled model at all" * 100)
    content = json.loads(sidecar.read_text())
    content["sha256"] = hashlib.sha256(blob.read_bytes()).hexdigest()
    sidecar.write_text(json.dumps(content))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped byte": lambda folder: _flip_byte(next(folder.glob("*.blob"))),
    "truncated blob": lambda folder: next(folder.glob("*.blob")).write_bytes(b"half"),
    "missing blob": lambda folder: next(folder.glob("*.blob")).unlink(),
    "flipped byte in the sidecar": lambda folder: _flip_byte(next(folder.glob("*.json"))),
    "empty sidecar": lambda folder: next(folder.glob("*.json")).write_text(""),
    "other JSON": lambda folder: next(folder.glob("*.json")).write_text("[1]"),
    "missing sidecar": lambda folder: next(folder.glob("*.json")).unlink(),
    "a blob that OpenVINO refuses": _foreign_blob,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_cache_is_not_used(make: MakeEngine, tmp_path: Path, name: str) -> None:
    with make(cache_dir=tmp_path) as engine:
        first = engine.infer(_batch())
    DAMAGE[name](tmp_path)
    with make(cache_dir=tmp_path) as engine:
        assert not engine.from_cache
        _assert_close(engine.infer(_batch()), first, SAME_ATOL)
    with make(cache_dir=tmp_path) as engine:
        assert engine.from_cache  # it was put right


def test_a_cache_that_cannot_be_written_only_costs_time(make: MakeEngine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        with make(cache_dir=tmp_path / "file" / "engines") as engine:
            assert not engine.from_cache
            assert engine.infer(_batch()).pred_score.shape == (1,)


def test_a_refused_blob_that_cannot_be_removed_only_costs_time(
    make: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(cache_dir=tmp_path):
        pass
    _foreign_blob(tmp_path)

    def read_only(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", read_only)
        patch.setattr(BlobCache, "put", lambda *args: None)
        with make(cache_dir=tmp_path) as engine:
            assert not engine.from_cache


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "fake"])
def test_wrong_use_is_said_clearly(make: MakeEngine, name: str) -> None:
    engine = make(name)
    with pytest.raises(EngineError, match="not loaded"):
        engine.infer(_batch())
    with engine:
        for bad in (
            np.zeros((1, 32, 64, 3), np.uint8),
            np.zeros((64, 64, 3), np.uint8),
            np.zeros((1, 64, 64, 3), np.float32),
            np.zeros((0, 64, 64, 3), np.uint8),
        ):
            with pytest.raises(ImageError, match=r"bundle expects \(N, 64, 64, 3\) uint8"):
                engine.infer(bad)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match="batch of 2, the engine is compiled for 1"):
            engine.infer(_batch(2))
        engine.infer(_batch())
    with pytest.raises(EngineError, match="not loaded"):
        engine.infer(_batch())


class _OneBadValue(Engine):
    name = "bad"

    def __init__(self, spec: EngineSpec, where: str, value: float) -> None:
        super().__init__(lambda: b"", spec)
        self.where, self.value = where, value

    def load_impl(self) -> None:
        pass

    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        outputs = Outputs(np.zeros((1, 16, 16), np.float32), np.zeros((1, 64, 64), np.float32), np.zeros(1, np.float32))
        getattr(outputs, self.where).flat[-1] = self.value
        return outputs

    def close_impl(self) -> None:
        pass


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["patch_map", "anomaly_map", "pred_score"])
def test_what_is_no_number_is_never_a_score(make: MakeEngine, where: str, value: float) -> None:
    with _OneBadValue(make().spec, where, value) as engine, pytest.raises(EngineError, match=f"not finite.*{where}"):
        engine.infer(_batch())
    with _OneBadValue(make().spec, where, 0.5) as engine:  # control
        engine.infer(_batch())


def test_a_detector_prepares_frames_with_what_its_engine_offers(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    class Own(Preprocessor):
        def __call__(self, image_hwc: ImageArray, color_order: ColorOrder = "rgb") -> ModelInput:
            happened.append("prepare")
            return super().__call__(image_hwc, color_order)

        def close(self) -> None:
            happened.append("close")

    monkeypatch.setattr(FakeEngine, "preprocessor", lambda self, spec: Own(spec))
    with edge_ad.open(tiny_bundle, engine="fake") as detector:
        happened.clear()  # of the frame that warms it up
        detector.judge(_batch()[0])
    assert happened == ["prepare", "close"]


def test_an_engine_that_cannot_prepare_frames_is_closed(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(engine: Engine, spec: PreprocessSpec) -> Preprocessor:
        raise EngineError("no compiler is here")

    closed: list[bool] = []
    monkeypatch.setattr(FakeEngine, "preprocessor", fail)
    monkeypatch.setattr(FakeEngine, "close_impl", lambda self: closed.append(True))
    with pytest.raises(EngineError, match="no compiler"), edge_ad.open(tiny_bundle, engine="fake"):
        pass
    assert closed == [True]


def test_an_unknown_engine_names_the_known_ones(make: MakeEngine, tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"'openvno' is unknown, wanted one of openvino, onnxruntime"):
        edge_ad.open(tiny_bundle, engine="openvno")


@pytest.mark.parametrize(
    ("name", "error", "command"),
    [
        ("openvino", EngineError, "pip install openvino"),
        ("onnxruntime", MissingExtraError, r"'edge-ad\[onnxruntime\]'"),
    ],
)
def test_a_missing_package_names_the_command(
    make: MakeEngine, monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception], command: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(error, match=command), make(name):
        pass


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_graph_that_is_none_is_an_engine_error(make: MakeEngine, name: str) -> None:
    spec = make().spec
    with pytest.raises(EngineError, match="cannot"), make_engine(name, lambda: b"\x00garbage", spec):
        pass


class _Raising:
    """An `openvino.Core` that raises something in place of what it was asked for."""

    def __init__(self, core: Any, exc: Exception, name: str) -> None:
        self._core, self._exc, self._name = core, exc, name

    def __getattr__(self, name: str) -> Any:
        return self._raise if name == self._name else getattr(self._core, name)

    def _raise(self, *_: Any) -> Any:
        raise self._exc


@pytest.mark.parametrize("exc", [RuntimeError("a\nreason"), MemoryError(), TypeError("odd"), ValueError("no")])
@pytest.mark.parametrize("name", ["read_model", "compile_model"])
def test_whatever_openvino_raises_on_a_graph_is_an_engine_error(
    make: MakeEngine, monkeypatch: pytest.MonkeyPatch, exc: Exception, name: str
) -> None:
    raising = _Raising(openvino_core(), exc, name)
    monkeypatch.setattr(openvino_engine, "openvino_core", lambda: raising)
    with pytest.raises(EngineError, match="OpenVINO cannot compile the bundle's graph"), make():
        pass


def test_graphs_that_are_no_text_are_refused_with_the_reason(tiny_bundle: Path, make: MakeEngine) -> None:
    """OpenVINO quotes names of the graph; where they are no text, Python raises UnicodeDecodeError instead."""
    graph = (tiny_bundle / "model.onnx").read_bytes()
    name = b"/Conv_output_0"
    used = graph.index(name, graph.index(name) + 1)  # after the node that makes it, one that takes it
    damaged = graph[:used] + b"/C\xa9\x1bv_output_0" + graph[used + len(name) :]
    assert len(damaged) == len(graph)
    with pytest.raises(EngineError) as caught, make_engine("openvino", lambda: damaged, make().spec):
        pass
    assert r"\xa9\x1bv_output_0" in str(caught.value) and ".cpp" not in str(caught.value)


@pytest.mark.parametrize("exc", [RuntimeError("a\nreason"), UnicodeDecodeError("utf-8", b"\xa9", 0, 1, "what")])
def test_a_blob_that_openvino_chokes_on_is_forgotten(
    make: MakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    exc: Exception,
) -> None:
    with make(cache_dir=tmp_path):
        pass
    raising = _Raising(openvino_core(), exc, "import_model")
    with monkeypatch.context() as patch:
        patch.setattr(openvino_engine, "openvino_core", lambda: raising)
        patch.setattr(BlobCache, "put", lambda *args: None)
        with make(cache_dir=tmp_path) as engine:
            assert not engine.from_cache
    assert list(tmp_path.iterdir()) == [] and "compiling it again" in caplog.text


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_that_is_no_number_is_refused(tiny_bundle: Path, threshold: float) -> None:
    """No score is ever at or above NaN: every frame would be normal."""
    with pytest.raises(ConfigError, match="threshold"):
        edge_ad.open(tiny_bundle, engine="fake", threshold=threshold)


def test_the_public_way_judges_a_frame(tiny_bundle: Path, engine_cache: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    scores = []
    for name in ("openvino", "onnxruntime"):
        with edge_ad.open(tiny_bundle, engine=name, engine_cache=engine_cache) as detector:
            verdict = detector.judge(image)
            assert verdict.status == "ok"
            assert verdict.threshold == 0.5
            bgr = detector.judge(np.ascontiguousarray(image[:, :, ::-1]), color_order="bgr")
            assert bgr.score == pytest.approx(verdict.score, abs=SAME_ATOL)
            scores.append(verdict.score)
    assert scores[0] == pytest.approx(scores[1], abs=AGREE_ATOL)
