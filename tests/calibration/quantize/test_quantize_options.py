"""Options of quantization: what is wrong is said at once, and what is not given has a sane value."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from edge_ad.calibration.agreement.tolerances import Tolerances
from edge_ad.calibration.quantize.options import MAX_IMAGES, OF_EXPORT, QuantizeOptions, quantize_options
from edge_ad.errors import ConfigError

SOUND: dict[str, Any] = {"bundle": "b.edgead", "data": "images", "output": "new.edgead"}


def faults(values: dict[str, Any], overrides: dict[str, Any] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        quantize_options(values, "options", overrides)
    return caught.value.faults


def test_what_is_not_given() -> None:
    options = quantize_options(SOUND, "options")
    assert (options.bundle, options.data, options.val) == (Path("b.edgead"), Path("images"), None)
    assert (options.quantize, options.ranges, options.gate, options.images, options.seed) == (
        "int8",
        "min-max",
        "enforce",
        512,
        0,
    )
    assert options.tolerances == Tolerances()
    assert (options.tolerances.flips, options.tolerances.auroc_drop) == (0.002, 0.002)
    assert (options.destination, options.replaces) == (Path("new.edgead"), False)
    assert options.gate_engine == "openvino"
    assert quantize_options({**SOUND, "quantize": "fp16"}, "options").gate_engine == "onnxruntime"


def test_where_it_goes() -> None:
    in_place = quantize_options({"bundle": "b.edgead", "data": "d", "in_place": True}, "options")
    assert (in_place.destination, in_place.replaces) == (Path("b.edgead"), True)
    forced = quantize_options({**SOUND, "force": True}, "options")
    assert (forced.destination, forced.replaces) == (Path("new.edgead"), True)
    both = {**SOUND, "in-place": True}
    neither = {"bundle": "b.edgead", "data": "d"}
    for values in (both, neither):
        assert faults(values) == ("output: give either --output BUNDLE, or --in-place to replace the bundle itself",)


def test_tolerances_are_those_given() -> None:
    given = {"max-flips": "0.1", "max_auroc_drop": 0.2, "max-pixel-auroc-drop": "0.3", "min-map-correlation": "-0.4"}
    assert quantize_options({**SOUND, **given}, "options").tolerances == Tolerances(0.1, 0.2, 0.3, -0.4)


def test_the_command_line_wins_and_none_is_not_given() -> None:
    values = {**SOUND, "images": 4, "seed": None, "val": "v"}
    options = quantize_options(values, "options", {"images": "8", "val": None, "gate": "report"})
    assert (options.images, options.seed, options.val, options.gate) == (8, 0, Path("v"), "report")


def test_every_fault_at_once() -> None:
    wrong = {
        "quantize": "int4",
        "ranges": "median",
        "images": 0,
        "seed": -1,
        "gate": "maybe",
        "max-flips": 1.5,
        "max-auroc-drop": -0.1,
        "max-pixel-auroc-drop": "much",
        "min-map-correlation": 2,
        "colour": "red",
    }
    found = faults(wrong)
    keys = [fault.split(":")[0] for fault in found]
    for key in wrong:
        assert key.replace("-", "_") in keys, key
    for key in ("bundle", "data"):
        assert f"{key}: missing" in found
    assert "output" in keys
    assert any(fault.startswith("colour: unknown") for fault in found)


@pytest.mark.parametrize(
    ("key", "value"),
    [("images", MAX_IMAGES + 1), ("images", 1.5), ("images", True), ("seed", 2**31), ("max_flips", float("nan"))],
)
def test_numbers_out_of_their_range(key: str, value: Any) -> None:
    (found,) = faults({**SOUND, key: value})
    assert found.startswith(f"{key}: wanted")


def test_two_spellings_of_one_key() -> None:
    (found,) = faults({**SOUND, "max-flips": 0.1, "max_flips": 0.2})
    assert found.startswith("max_flips: given twice")


def test_what_float16_has_not() -> None:
    found = faults({**SOUND, "quantize": "fp16", "ranges": "mse", "engine": "openvino"})
    assert [fault.split(":")[0] for fault in found] == ["ranges", "engine"]
    assert "onnxruntime" in found[1]
    sound = {**SOUND, "quantize": "fp16", "engine": "onnxruntime"}
    assert quantize_options(sound, "options").gate_engine == "onnxruntime"
    assert quantize_options({**SOUND, "ranges": "mse", "engine": "onnxruntime"}, "options").ranges == "mse"  # control


def test_export_shares_all_but_the_places() -> None:
    names = {field.name for field in fields(QuantizeOptions)}
    assert names - OF_EXPORT == {"bundle", "output", "in_place", "force"}
    assert names >= OF_EXPORT
