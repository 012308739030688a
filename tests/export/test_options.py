"""Options of the export: what is taken, and that every fault is reported at once, by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_ad.errors import ConfigError
from edge_ad.export.options import ExportOptions, export_options
from edge_ad.specs import PreprocessSpec

NEEDED = {"checkpoint": "a.pth", "output": "b.edgead"}


def options(**values: Any) -> ExportOptions:
    return export_options(NEEDED | values, "export options")


def faults(**values: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as exc:
        options(**values)
    assert "\n" not in str(exc.value)
    return exc.value.faults


def test_defaults_are_those_of_the_paper() -> None:
    given = options()
    assert given.imgsz == (288, 288)
    assert given.preprocess == PreprocessSpec(288, 288, "shorter_side_crop", 288)
    assert (given.postprocess.score, given.postprocess.sigma) == ("map_max", 4.0)
    assert (given.opset, given.batch, given.format) == (17, None, "onnx")
    assert given.checkpoint == Path("a.pth")


@pytest.mark.parametrize(
    ("value", "size_hw"),
    [
        (288, (288, 288)),
        ("288", (288, 288)),
        ("256x320", (256, 320)),
        (" 256 X 320 ", (256, 320)),
        ([256, 320], (256, 320)),
        ("1", (1, 1)),
    ],
)
def test_image_sizes(value: object, size_hw: tuple[int, int]) -> None:
    assert options(imgsz=value).imgsz == size_hw


TEXTS = ("0", "-5", "abc", "12.5", "0x10", "256x", "x256", "256x0", "10x20x30", "", "1e3", "99999", "9" * 30)


@pytest.mark.parametrize("value", [*TEXTS, 0, -5, 12.5, True, None, [256], [256, 0], {"h": 3}])
def test_image_sizes_that_are_none(value: object) -> None:
    (fault,) = faults(imgsz=value)
    assert fault.startswith("imgsz: wanted ")
    assert "got" in fault


@pytest.mark.parametrize("option", ["resize", "embed_dim", "pretrain_embed_dim", "hidden_dim", "batch"])
@pytest.mark.parametrize("value", ["0", "-3", "x", "2.5"])
def test_counts_are_positive_whole_numbers(option: str, value: str) -> None:
    (fault,) = faults(**{option: value})
    assert fault.startswith(f"{option}: ")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("opset", "12"),
        ("opset", "18"),
        ("score", "mean"),
        ("format", "tflite"),
        ("resize_mode", "crop"),
        ("threshold", "nan"),
        ("threshold", "inf"),
        ("threshold", "high"),
        ("layers", ""),
        ("layers", "layer2,,layer3"),
        ("layers", "layer2,layer2"),
    ],
)
def test_values_out_of_range(option: str, value: str) -> None:
    (fault,) = faults(**{option: value})
    assert fault.startswith(option)


def test_layers_as_text_and_as_list() -> None:
    assert options(layers="features.6, features.13").layers == ("features.6", "features.13")
    assert options(layers=["layer2", "layer3"]).layers == ("layer2", "layer3")


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_resize_belongs_to_the_crop(mode: str) -> None:
    (fault,) = faults(resize=300, resize_mode=mode)
    assert fault.startswith("resize: belongs to resize_mode shorter_side_crop")
    assert options(resize_mode=mode).preprocess.resize is None


def test_resize_before_the_crop() -> None:
    assert options(imgsz="256x320", resize="300").preprocess == PreprocessSpec(256, 320, "shorter_side_crop", 300)
    assert options(imgsz="256x320").preprocess.resize == 256


def test_every_fault_is_reported() -> None:
    found = faults(imgsz="abc", opset=99, score="mean", thresold=0.5)
    assert sorted(fault.split(":")[0] for fault in found) == ["imgsz", "opset", "score", "thresold"]
    assert "thresold: unknown key" in found


def test_what_is_needed_is_named() -> None:
    with pytest.raises(ConfigError) as exc:
        export_options({}, "export options")
    assert exc.value.faults == ("checkpoint: missing", "output: missing")
