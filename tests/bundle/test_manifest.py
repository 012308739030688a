"""What a manifest says of precisions: how they were made, whether that is proven, which threshold each has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.bundle.bundle import MANIFEST, Bundle, write_bundle, write_changed
from edge_ad.bundle.manifest import Manifest, Quantization
from edge_ad.bundle.specs import (
    GateVerdict,
    PostprocessSpec,
    Precision,
    PreprocessSpec,
    RangeMethod,
    ThresholdOrigin,
    Thresholds,
    UsabilityLimits,
    contract,
)
from edge_ad.errors import BundleError, ConfigError, EdgeAdError, GateError
from edge_ad.validation import build, dump_yaml, parse_yaml, plain

FILES = {"model.onnx": b"float", "model.int8.onnx": b"int8", "model.fp16.onnx": b"half"}
MODELS: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}
IMAGE, OUTPUTS = contract(64, 48, (16, 12), None)
FIELDS: dict[str, Any] = {
    "model": {"family": "glass", "config": {}},
    "preprocess": PreprocessSpec(64, 48, "stretch"),
    "postprocess": PostprocessSpec(),
    "input": IMAGE,
    "outputs": OUTPUTS,
    "opset": 17,
    "thresholds": Thresholds(0.25),
}
RECORD: dict[str, Any] = {
    "ranges": "entropy",
    "images": 320,
    "images_sha256": "a" * 64,
    "seed": 7,
    "layers": 52,
    "float_layers": ["head.0", "head.1"],
    "gate": "passed",
    "held_out": 61,
    "flips": 0,
    "auroc_change": -0.0002,
    "map_correlation": 0.9991,
    "speed_up": 3.1,
}

counts = st.integers(0, 10**6)
figures = st.none() | st.floats(-1e9, 1e9)
records = st.builds(
    Quantization,
    ranges=st.none() | st.sampled_from(get_args(RangeMethod)),
    images=counts,
    images_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    seed=st.integers(-(2**63), 2**63 - 1),
    layers=counts,
    float_layers=st.lists(st.text(st.characters(exclude_categories=("C", "Z"))), max_size=3).map(tuple),
    gate=st.sampled_from(get_args(GateVerdict)),
    held_out=st.integers(1, 10**6),
    flips=st.none() | counts,
    auroc_change=figures,
    map_correlation=figures,
    speed_up=figures,
)


def written(folder: Path, models: dict[Precision, str] = MODELS, **fields: Any) -> Bundle:
    files = {name: data for name, data in FILES.items() if name in models.values()}
    return write_bundle(folder / "part.edgead", {**FIELDS, "models": models, **fields}, files)


def record(gate: str) -> dict[str, Any]:
    return {**RECORD, "gate": gate}


@given(record=records)
def test_a_record_survives_the_file(record: Quantization) -> None:
    text = dump_yaml(plain(record))
    assert build(Quantization, parse_yaml(text, "record"), "record") == record


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"ranges": "maximum"}, "ranges: wanted 'min-max', 'percentile', 'entropy' or 'mse', got 'maximum'"),
        ({"gate": "probably"}, "gate: wanted 'passed', 'failed' or 'unproven', got 'probably'"),
        ({"flips": 0.5}, "flips: wanted a whole number, got 0.5"),
        ({"auroc_change": float("nan")}, "auroc_change: wanted a finite number, got nan"),
        ({"colour": 1}, "colour: unknown key"),
        ({"images": -1}, "images, layers, held_out and flips: wanted at least 0"),
        ({"flips": -1}, "images, layers, held_out and flips: wanted at least 0"),
        ({"held_out": 0}, "gate: cannot have passed on no image"),
    ],
)
def test_a_record_that_cannot_be_is_refused(changes: dict[str, Any], fault: str) -> None:
    build(Quantization, RECORD, "record")
    with pytest.raises(ConfigError) as caught:
        build(Quantization, {**RECORD, **changes}, "record")
    assert fault in str(caught.value)


def test_every_figure_of_a_record_has_to_be_said() -> None:
    """None is written where something was not measured; a figure that is left out is a fault."""
    for name in RECORD:
        with pytest.raises(ConfigError, match=f"record: {name}: missing$"):
            build(Quantization, {key: value for key, value in RECORD.items() if key != name}, "record")


def test_records_and_thresholds_are_read_back(tmp_path: Path) -> None:
    origin = ThresholdOrigin("best-f1", "test", 14, 32)
    bundle = written(
        tmp_path,
        quantization={"int8": build(Quantization, RECORD, "record"), "fp16": record("unproven")},
        precision_thresholds={"int8": Thresholds(0.5, origin)},
    )
    manifest = Bundle.read(bundle.path).manifest
    assert manifest == bundle.manifest
    assert plain(manifest.quantization["int8"]) == RECORD
    assert manifest.quantization["int8"].float_layers == ("head.0", "head.1")
    assert manifest.quantization["fp16"].gate == "unproven"
    assert manifest.precision_thresholds == {"int8": Thresholds(0.5, origin)}


def test_a_manifest_from_before_quantization_is_read(tmp_path: Path) -> None:
    bundle = written(tmp_path, {"fp32": "model.onnx"})
    data = yaml.safe_load((bundle.path / MANIFEST).read_text("utf-8"))
    assert (data.pop("quantization"), data.pop("precision_thresholds")) == ({}, {})
    assert build(Manifest, data, "manifest") == bundle.manifest


@pytest.mark.parametrize(
    "fields",
    [{"quantization": {"int8": RECORD}}, {"precision_thresholds": {"int8": Thresholds(0.5)}}],
    ids=["a record", "thresholds"],
)
def test_what_is_said_of_a_precision_needs_its_model(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="speaks of int8, of which there is no model"):
        written(tmp_path, {"fp32": "model.onnx"}, **fields)
    assert written(tmp_path, **fields).manifest.models == MODELS


def test_a_wrong_record_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quantization\.int8\.gate: wanted .*'probably'"):
        written(tmp_path, quantization={"int8": record("probably")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("held", "gates", "default"),
    [
        (("fp32",), {}, "fp32"),
        (("int8",), {}, "int8"),
        (("int8",), {"int8": "failed"}, "int8"),
        (("fp32", "int8"), {}, "fp32"),
        (("fp32", "int8"), {"int8": "passed"}, "int8"),
        (("fp32", "int8"), {"int8": "failed"}, "fp32"),
        (("fp32", "int8"), {"int8": "unproven"}, "fp32"),
        (("fp32", "fp16"), {"fp16": "passed"}, "fp16"),
        (("fp32", "fp16", "int8"), {"fp16": "passed", "int8": "passed"}, "int8"),
        (("fp32", "int8", "fp16"), {"fp16": "passed", "int8": "failed"}, "fp16"),
        (("fp32", "int8", "fp16"), {"fp16": "unproven", "int8": "failed"}, "fp32"),
        (("int8", "fp16"), {}, "fp32"),
    ],
)
def test_the_precision_that_runs(
    tmp_path: Path, held: tuple[Precision, ...], gates: dict[str, str], default: Precision
) -> None:
    models = {precision: MODELS[precision] for precision in held}
    bundle = written(tmp_path, models, quantization={precision: record(gate) for precision, gate in gates.items()})
    assert bundle.precision(None) == default
    for wanted in get_args(Precision):
        assert bundle.precision(wanted) == wanted


def test_each_precision_has_its_own_thresholds_or_those_of_all(tmp_path: Path) -> None:
    bundle = written(tmp_path, precision_thresholds={"int8": Thresholds(0.5)})
    assert [bundle.thresholds(precision).image for precision in get_args(Precision)] == [0.25, 0.25, 0.5]


def test_files_are_added_and_replaced(tmp_path: Path) -> None:
    before = written(tmp_path, {"fp32": "model.onnx", "int8": "model.int8.onnx"})
    changes = {"models": MODELS, "quantization": {"fp16": record("failed")}}
    files = {"model.fp16.onnx": b"half", "model.int8.onnx": b"other", "report.html": b"<p>fine</p>"}
    after = write_changed(before, tmp_path / "new.edgead", changes, files=files)
    contents = {name: after.read_file(name) for name in after.manifest.files}
    assert contents == {"model.onnx": b"float", **files}
    assert after.manifest.files["model.onnx"] == before.manifest.files["model.onnx"]
    assert after.manifest.quantization["fp16"].gate == "failed"
    assert after.manifest.thresholds == before.manifest.thresholds
    assert Bundle.read(before.path) == before


def test_a_file_that_is_replaced_may_be_damaged_and_others_may_not(tmp_path: Path) -> None:
    bundle = written(tmp_path)
    (bundle.path / "model.int8.onnx").write_bytes(b"scratched")
    mended = write_changed(bundle, tmp_path / "new.edgead", {}, files={"model.int8.onnx": b"again"})
    assert mended.read_file("model.int8.onnx") == b"again"
    with pytest.raises(BundleError, match=r"model\.int8\.onnx changed"):
        write_changed(bundle, tmp_path / "other.edgead", {}, files={"report.html": b""})
    assert not (tmp_path / "other.edgead").exists()


def test_exit_codes_tell_failures_apart() -> None:
    kinds = EdgeAdError.__subclasses__()
    codes = [kind.exit_code for kind in kinds]
    assert GateError.exit_code == 13
    assert len(set(codes)) == len(codes) and EdgeAdError.exit_code not in codes


def test_limits_for_unusable_frames_are_optional_and_survive(tmp_path: Path) -> None:
    files = {"model.onnx": b"float"}
    plain_one = write_bundle(tmp_path / "old", FIELDS | {"models": {"fp32": "model.onnx"}}, files)
    assert plain_one.manifest.usability is None
    assert plain_one.usability == UsabilityLimits()
    limits = UsabilityLimits(31, 0.08, black_below=2, saturated_above=250, one_colour=True)
    write_changed(plain_one.with_usability(limits), tmp_path / "new", {})
    assert Bundle.read(tmp_path / "new").usability == limits
    text = parse_yaml((tmp_path / "old" / MANIFEST).read_text(), MANIFEST)
    del text["usability"]  # as bundles were written before there was one
    assert build(Manifest, text, MANIFEST) == plain_one.manifest


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": -1},
        {"sharpness_min": 0},
        {"sharpness_min": float("nan")},
        {"sharpness_min": True},
        {"black_below": 256},
        {"saturated_above": -1},
        {"one_colour": 7},
        {"blur": 1},
    ],
)
def test_wrong_limits_for_unusable_frames_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(UsabilityLimits, wrong, "usability")
