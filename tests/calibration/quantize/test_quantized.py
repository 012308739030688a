"""What quantizing adds to a bundle: graphs, records, thresholds, reports; and when it is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import ThresholdOrigin, Thresholds
from edge_ad.calibration.evaluation.evaluate import Judge
from edge_ad.calibration.quantize.images import content_sha256
from edge_ad.calibration.quantize.lint import check_qdq, qdq_faults
from edge_ad.calibration.quantize.options import QuantizeOptions
from edge_ad.calibration.quantize.quantized import Quantized, RejectedError, quantize_bundle
from edge_ad.calibration.tools import Tools
from edge_ad.datasets import open_dataset, read_image
from edge_ad.errors import BundleError, GateError, SourceError
from edge_ad.image.frame import ImageArray
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector, open_graph

pytestmark = pytest.mark.rung(1)

FLOAT_MS, LOWER_MS = 8.0, 2.0


@dataclass
class Workshop:
    """A bundle, options and tools whose engines take a known time; `said` is what the user is told."""

    bundle: Bundle
    options: QuantizeOptions
    engine_cache: Path
    said: list[str] = field(default_factory=list)
    opened: int = 0

    def quantize(self, **changes: Any) -> Quantized:
        self.options = replace(self.options, **changes)
        self.said.clear()
        return quantize_bundle(self.bundle, self.options, self.tools)

    def write(self, made: Quantized, path: Path) -> Bundle:
        return write_changed(self.bundle, path, made.changes, files=made.files)

    @property
    def tools(self) -> Tools:
        return Tools(self.open_float, self.open_graph, lambda what: lambda samples: samples, self.said.append)

    @contextmanager
    def open_float(self) -> Iterator[Judge]:
        engine = self.options.gate_engine
        with open_detector(self.bundle, engine=engine, precision="fp32", engine_cache=self.engine_cache) as detector:
            yield timed(detector, FLOAT_MS)

    @contextmanager
    def open_graph(self, graph: bytes) -> Iterator[Judge]:
        self.opened += 1
        with open_graph(self.bundle, graph, self.options.quantize, engine=self.options.gate_engine) as detector:
            yield timed(detector, LOWER_MS)


def timed(detector: Detector, infer_ms: float) -> Judge:
    def judge(image_hwc: ImageArray) -> Verdict:
        return replace(detector.judge(image_hwc), timings_ms={"infer": infer_ms})

    return judge


@pytest.fixture(scope="module")
def calibrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of calibrations for this module: measuring is slow, and what is measured is tested elsewhere."""
    return tmp_path_factory.mktemp("calibrations")


@pytest.fixture
def workshop(micro_bundle: Path, checked_parts: Path, calibrations: Path, engine_cache: Path) -> Workshop:
    """The edge detector, ONNX Runtime, labelled test images for the gate."""
    options = QuantizeOptions(
        bundle=micro_bundle,
        data=checked_parts,
        val=checked_parts,
        output=Path("new.edgead"),
        engine="onnxruntime",
        calibration_cache=calibrations,
    )
    return Workshop(Bundle.read(micro_bundle), options, engine_cache)


def plain_page(made: Mapping[str, bytes]) -> str:
    """The page without its pictures."""
    page = re.sub(r'"data:[^"]*"', '"picture"', made["report.html"].decode("utf-8"))
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    return page


def strict_json(data: bytes) -> Any:
    return json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_int8_that_agrees(workshop: Workshop, checked_parts: Path, tmp_path: Path) -> None:
    made = workshop.quantize()
    assert sorted(made.files) == ["model.int8.onnx", "report.html", "report.json"]
    check_qdq(made.files["model.int8.onnx"])
    bundle = workshop.write(made, tmp_path / "new.edgead")
    manifest = bundle.manifest
    record = manifest.quantization["int8"]
    assert (record.gate, record.speed_up, record.float_layers, record.layers) == ("passed", 4.0, (), 5)
    assert (record.ranges, record.images, record.seed, record.held_out) == ("min-max", 16, 0, 18)
    assert record.images_sha256 == content_sha256(open_dataset(checked_parts).train)
    assert (record.flips, record.auroc_change) == (0, 0.0)
    assert record.map_correlation is not None and record.map_correlation > 0.98
    assert bundle.precision(None) == "int8"
    assert bundle.read_file("model.onnx") == workshop.bundle.read_file("model.onnx")
    content = strict_json(made.files["report.json"])
    assert (content["verdict"], content["breaches"], content["sensitivities"]) == ("passed", [], [])
    assert content["agreement"]["auroc"]["pairs"] == 80
    assert content["about"]["calibration_sha256"] == record.images_sha256
    assert content["about"]["options"]["ranges"] == "min-max"
    assert "4.00 times as fast as float on onnxruntime" in content["why"]
    assert plain_page(made.files).count("absolute difference of the maps") == 6
    assert workshop.said[-1] == "5 layers in int8"
    assert any("only 16 images calibrate, 300 or more are better" in line for line in workshop.said)


def test_what_is_slower_or_fails_is_not_the_default(workshop: Workshop, tmp_path: Path) -> None:
    made = workshop.quantize(gate="report", min_map_correlation=1.0)
    record = made.changes["quantization"]["int8"]
    assert (record.gate, record.float_layers, record.speed_up) == ("failed", (), 4.0)
    bundle = workshop.write(made, tmp_path / "failed.edgead")
    assert bundle.precision(None) == "fp32"
    assert strict_json(made.files["report.json"])["verdict"] == "failed"
    passed = workshop.quantize(gate="report", min_map_correlation=0.95)
    assert passed.changes["quantization"]["int8"].gate == "passed"
    slow = replace(passed.changes["quantization"]["int8"], speed_up=0.9)
    changes = {**passed.changes, "quantization": {"int8": slow}}
    assert write_changed(workshop.bundle, tmp_path / "s", changes, files=passed.files).precision(None) == "fp32"


def test_gate_off_judges_nothing(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.quantize()
    opened = workshop.opened
    monkeypatch.setattr(Workshop, "open_float", lambda _: pytest.fail("the gate is off"))
    made = workshop.quantize(gate="off")
    assert workshop.opened == opened
    assert (list(made.files), made.content) == (["model.int8.onnx"], None)
    record = made.changes["quantization"]["int8"]
    assert (record.gate, record.held_out, record.flips, record.speed_up) == ("unproven", 0, None, None)
    assert workshop.write(made, tmp_path / "off.edgead").precision(None) == "fp32"
    assert any("the gate is off, nobody knows how far" in line for line in workshop.said)


def test_a_threshold_is_derived_anew(workshop: Workshop, tmp_path: Path) -> None:
    """Chosen by best F1, whose place on these images scikit-learn finds as well: between the two groups of scores."""
    origin = ThresholdOrigin("best-f1", "test", 10, 8)
    old = Thresholds(0.65, origin)
    workshop.bundle = write_changed(workshop.bundle, tmp_path / "with.edgead", {"thresholds": old})
    made = workshop.quantize()
    content = strict_json(made.files["report.json"])
    scores = content["scores"]
    middles = []
    for model in ("reference", "candidate"):
        good = max(row[model] for row in scores if row["defect"] == "good")
        bad = min(row[model] for row in scores if row["defect"] != "good")
        assert good < bad
        middles.append((good + bad) / 2)
    derived = made.changes["precision_thresholds"]["int8"]
    assert derived.image == pytest.approx(0.65 + middles[1] - middles[0], abs=1e-9)
    assert derived.image_origin == ThresholdOrigin("best-f1")  # no figures: they are of the float model
    assert content["thresholds"]["shift"] == pytest.approx(middles[1] - middles[0], abs=1e-9)
    assert "best-f1" in content["thresholds"]["by"]
    written = workshop.write(made, tmp_path / "new.edgead")
    assert written.thresholds("fp32") == old
    assert written.thresholds("int8") == derived


def test_a_threshold_of_pixels_is_derived_anew(workshop: Workshop, tmp_path: Path) -> None:
    """On the maps of int8 it cuts out what the float model's own cuts out of its maps, and the report says so."""
    with workshop.open_float() as judge:
        picture = read_image(next(one for one in open_dataset(workshop.options.data).test if one.anomalous))
        peak = float(judge(picture).maps.anomaly_map.max())  # type: ignore[union-attr]
    old = Thresholds(0.65, None, 0.7 * peak)
    workshop.bundle = write_changed(workshop.bundle, tmp_path / "with.edgead", {"thresholds": old})
    made = workshop.quantize()
    derived, content = made.changes["precision_thresholds"]["int8"], strict_json(made.files["report.json"])
    assert content["pixel_thresholds"]["old"] == old.pixel and content["pixel_thresholds"]["new"] == derived.pixel
    assert 0 < abs(derived.pixel - old.pixel) < 0.05 and derived.image != old.image
    assert '<td class="text">pixels</td>' in plain_page(made.files)
    bundle = workshop.write(made, tmp_path / "new.edgead")
    areas = {}
    for precision in ("fp32", "int8"):
        with open_detector(
            bundle, engine="onnxruntime", precision=precision, engine_cache=workshop.engine_cache
        ) as detector:
            maps = [detector.judge(read_image(one)).maps for one in open_dataset(workshop.options.data).test]
        for name, at in (("own", bundle.thresholds(precision).pixel), ("float's", old.pixel)):
            areas[precision, name] = sum(int((one.anomaly_map >= at).sum()) for one in maps if one is not None)
    wanted = areas["fp32", "own"]
    assert wanted > 0
    assert abs(areas["int8", "own"] - wanted) <= abs(areas["int8", "float's"] - wanted)


def test_without_a_threshold_flips_are_counted_at_the_quantile(workshop: Workshop, tmp_path: Path) -> None:
    workshop.bundle = write_changed(workshop.bundle, tmp_path / "bare.edgead", {"thresholds": {}})
    made = workshop.quantize()
    content = strict_json(made.files["report.json"])
    good = [row["reference"] for row in content["scores"] if row["defect"] == "good"]
    assert content["agreement"]["threshold"] == pytest.approx(np.quantile(good, 0.99), abs=1e-12)
    assert content["agreement"]["threshold_of"] == "quantile"
    assert content["thresholds"] is None
    assert made.changes["precision_thresholds"] == {}


def test_a_fifth_is_held_out_without_val(workshop: Workshop) -> None:
    made = workshop.quantize(val=None)
    record = made.changes["quantization"]["int8"]
    assert record.held_out + record.images == 16 and record.held_out >= 1
    assert record.auroc_change is None
    content = strict_json(made.files["report.json"])
    assert (content["agreement"]["auroc"], content["agreement"]["good"]) == (None, 0)
    assert "defective" not in plain_page(made.files).replace("no defective ones", "").replace("see changes", "")


def test_a_graph_that_cannot_hold_is_refused_with_a_report(workshop: Workshop) -> None:
    with pytest.raises(RejectedError) as caught:
        workshop.quantize(min_map_correlation=1.0)
    line, page = str(caught.value), caught.value.report.decode("utf-8")
    assert line.startswith("int8 does not hold the tolerances, with 2 layers back in float: correlation of the maps: ")
    assert "most sensitive: " in line and "the float model stays as it is" in line and "\n" not in line
    assert caught.value.exit_code == 13
    assert "<b>failed</b>" in page and "Sensitivity by layer" in page
    backs = [said for said in workshop.said if " back in float, " in said]
    assert len(backs) == 2
    for said in backs:
        layer = said.partition(" back in float")[0]
        assert layer in page
    assert all("2.00 ms" in said for said in backs)


def test_rolled_back_layers_are_in_the_record_and_in_float(workshop: Workshop, tmp_path: Path) -> None:
    """Whatever int8 reaches by itself on this machine, a tenth less error is asked for."""
    reached = workshop.quantize().changes["quantization"]["int8"].map_correlation
    made = workshop.quantize(min_map_correlation=1 - 0.9 * (1 - reached))
    record = made.changes["quantization"]["int8"]
    assert record.gate == "passed"
    assert 1 <= len(record.float_layers) <= 2
    assert record.layers == 5 - len(record.float_layers)
    content = strict_json(made.files["report.json"])
    assert [step["layer"] for step in content["steps"]] == [None, *record.float_layers]
    assert [bool(step["breaches"]) for step in content["steps"]] == [True] * len(record.float_layers) + [False]
    assert [each["layer"] for each in content["sensitivities"]][: len(record.float_layers)] == list(record.float_layers)
    model = onnx.load_model_from_string(made.files["model.int8.onnx"])
    assert qdq_faults(model) == []
    sources = {output: node.op_type for node in model.graph.node for output in node.output}
    weights = {node.name: sources.get(node.input[1]) for node in model.graph.node if node.op_type == "Conv"}
    floats = {name for name, source in weights.items() if source != "DequantizeLinear"}
    assert floats == {*record.float_layers, list(weights)[-1]}  # the last convolution gives the logit
    assert f"with {len(record.float_layers)} layers back in float" in content["why"]


def test_float16(workshop: Workshop, tmp_path: Path) -> None:
    made = workshop.quantize(quantize="fp16")
    assert sorted(made.files) == ["model.fp16.onnx", "report.html", "report.json"]
    record = made.changes["quantization"]["fp16"]
    assert (record.gate, record.ranges, record.images, record.layers) == ("passed", None, 0, 5)
    assert record.map_correlation > 0.99999
    model = onnx.load_model_from_string(made.files["model.fp16.onnx"])
    halves = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert len(halves) >= 5
    assert not any(node.name.endswith("rounded.cast") for node in model.graph.node)  # what ships has no such casts
    content = strict_json(made.files["report.json"])
    assert content["about"]["calibration_sha256"] is None
    assert "ranges" not in content["about"]["options"]
    assert any(note.startswith("float16 was computed in float32 and rounded") for note in content["notes"])
    assert not any("calibrate" in line and "warning" in line for line in workshop.said)


def test_float16_that_overflows_is_rolled_back(workshop: Workshop, overflowing: Any, tmp_path: Path) -> None:
    """The report has layers of infinite sensitivity and a step without a time, and is sound all the same."""
    graph = overflowing(workshop.bundle.read_file("model.onnx"), 1e6)
    workshop.bundle = write_changed(workshop.bundle, tmp_path / "big.edgead", {}, files={"model.onnx": graph})
    made = workshop.quantize(quantize="fp16")
    record = made.changes["quantization"]["fp16"]
    assert record.gate == "passed"
    assert 1 <= len(record.float_layers) <= 2
    content = strict_json(made.files["report.json"])
    assert content["steps"][0]["candidate_ms"] is None
    assert content["sensitivities"][0]["error"] is None
    page = plain_page(made.files)
    assert "<td>inf</td>" in page and "width: 100.0%" in page


def test_float16_that_overflows_is_refused_where_nothing_is_put_back(
    workshop: Workshop, overflowing: Any, tmp_path: Path
) -> None:
    graph = overflowing(workshop.bundle.read_file("model.onnx"), 1e6)
    workshop.bundle = write_changed(workshop.bundle, tmp_path / "big.edgead", {}, files={"model.onnx": graph})
    with pytest.raises(GateError, match=r"lost images: all 18 .*not finite"):
        workshop.quantize(quantize="fp16", gate="report")


def test_int8_and_float16_side_by_side(workshop: Workshop, tmp_path: Path) -> None:
    workshop.bundle = workshop.write(workshop.quantize(), tmp_path / "one.edgead")
    first = workshop.bundle.manifest
    bundle = workshop.write(workshop.quantize(quantize="fp16"), tmp_path / "two.edgead")
    manifest = bundle.manifest
    assert manifest.models == {"fp32": "model.onnx", "int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}
    assert manifest.quantization["int8"] == first.quantization["int8"]
    assert set(manifest.quantization) == set(manifest.precision_thresholds) == {"int8", "fp16"}
    assert manifest.files["model.int8.onnx"] == first.files["model.int8.onnx"]
    workshop.bundle = bundle
    again = workshop.write(workshop.quantize(quantize="int8", seed=1), tmp_path / "three.edgead").manifest
    assert again.quantization["int8"].seed == 1
    assert again.quantization["fp16"] == manifest.quantization["fp16"]


def test_the_cache_saves_the_measuring_alone(workshop: Workshop, tmp_path: Path) -> None:
    """Same graphs to the byte with and without it; anything that matters makes another calibration."""
    cached = "calibration from the cache"
    made = {}
    for name, changes in {
        "first": {"calibration_cache": tmp_path / "own"},
        "again": {},
        "ranges": {"ranges": "percentile"},
        "images": {"ranges": "min-max", "images": 8},
        "back": {"images": 512},
    }.items():
        made[name] = workshop.quantize(gate="off", **changes).files["model.int8.onnx"]
        assert (cached in workshop.said) == (name in ("again", "back")), name
    assert made["again"] == made["first"] == made["back"]
    assert made["ranges"] != made["first"] != made["images"]


def test_another_graph_misses_the_cache(workshop: Workshop, overflowing: Any, tmp_path: Path) -> None:
    workshop.quantize(gate="off")
    graph = overflowing(workshop.bundle.read_file("model.onnx"), 2.0)
    workshop.bundle = write_changed(workshop.bundle, tmp_path / "other.edgead", {}, files={"model.onnx": graph})
    workshop.quantize(gate="off")
    assert "calibration from the cache" not in workshop.said


def some_parts(source: Path, folder: Path, count: int = 6) -> Path:
    """A plain folder of good pictures."""
    folder.mkdir()
    for image in sorted((source / "train" / "good").iterdir())[:count]:
        (folder / image.name).write_bytes(image.read_bytes())
    return folder


def test_pictures_that_cannot_be_used_are_named_each_time(
    workshop: Workshop, checked_parts: Path, tmp_path: Path
) -> None:
    data = some_parts(checked_parts, tmp_path / "data")
    (data / "torn.png").write_bytes((data / "00.png").read_bytes()[:500])
    Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save(data / "dark.png")
    for _ in range(2):
        made = workshop.quantize(data=data, gate="off")
        assert made.changes["quantization"]["int8"].images == 6
        assert "calibration from the cache" not in workshop.said
        (torn,) = (line for line in workshop.said if "cannot be read" in line)
        (dark,) = (line for line in workshop.said if "show nothing" in line)
        assert torn.startswith("warning: 1 of 8 images") and "torn.png" in torn
        assert dark.startswith("warning: 1 of 8 images") and "dark.png" in dark and "lens cover" in dark
    # A changed file is another calibration; that one is kept, as nothing is left out any more.
    (data / "torn.png").unlink()
    (data / "dark.png").unlink()
    for cached in (False, True):
        workshop.quantize(gate="off")
        assert ("calibration from the cache" in workshop.said) == cached


def test_black_pictures_calibrate_nothing(workshop: Workshop, tmp_path: Path) -> None:
    for index in range(4):
        dark = np.random.default_rng(index).integers(0, 4, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(dark).save(tmp_path / f"{index}.png")
    for val in (workshop.options.val, None):
        with pytest.raises(SourceError, match=r"wanted images to calibrate on, got none.*black.*well exposed"):
            workshop.quantize(data=tmp_path, val=val)


def test_held_out_pictures_that_cannot_be_judged_are_named(
    workshop: Workshop, checked_parts: Path, tmp_path: Path
) -> None:
    val = some_parts(checked_parts, tmp_path / "val", count=4)
    for index, image in enumerate(sorted(val.iterdir())):
        Image.open(image).rotate(180).save(image)
        if index == 1:
            Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save(image)
    made = workshop.quantize(val=val)
    assert made.changes["quantization"]["int8"].held_out == 3
    (line,) = (line for line in workshop.said if "01.png" in line)
    assert line.startswith("warning: 01.png is held out and was not judged: the frame is black")
    for image in val.iterdir():
        image.write_bytes(b"")
    with pytest.raises(SourceError, match="none of 4 images was judged"):
        workshop.quantize()


def test_a_bundle_without_a_float_model(workshop: Workshop, tmp_path: Path) -> None:
    models = {"int8": "model.onnx"}
    workshop.bundle = write_changed(workshop.bundle, tmp_path / "int8.edgead", {"models": models})
    with pytest.raises(BundleError, match="no float model"):
        workshop.quantize()
