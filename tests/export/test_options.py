"""Options of the export: what is taken, and that every fault is reported at once, by its name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import ConfigError
from edge_ad.export.options import OWN, ExportOptions, export_options, of_families

NEEDED = {"checkpoint": __file__, "output": "b.edgead"}  # a file that is there; nothing here reads it


def options(**values: Any) -> ExportOptions:
    return export_options(NEEDED | values, "export options")


def faults(**values: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as exc:
        options(**values)
    assert "\n" not in str(exc.value)
    return exc.value.faults


def test_defaults_are_those_of_the_paper() -> None:
    given = options()
    assert given.imgsz is None
    assert given.preprocess == PreprocessSpec(288, 288, "shorter_side_crop", 288)
    assert (given.postprocess.score, given.postprocess.sigma) == ("map_max", 4.0)
    assert (given.opset, given.batch, given.format) == (17, None, "onnx")
    assert given.checkpoint == Path(__file__)


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


@pytest.mark.parametrize("value", [*TEXTS, 0, -5, 12.5, True, [256], [256, 0], {"h": 3}])
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
        ("layers", []),
        ("backbone", ""),
        ("family", ""),
    ],
)
def test_values_out_of_range(option: str, value: object) -> None:
    (fault,) = faults(**{option: value})
    assert fault.startswith(option)


def test_layers_as_text_and_as_list() -> None:
    given = options(layers="features.6, features.13", backbone="mobilenet_v2")
    assert given.network.layers == ("features.6", "features.13")
    assert options(layers=["layer2", "layer3"]).network.layers == ("layer2", "layer3")


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


# Faults that take more than one look


def test_faults_of_every_kind_come_together() -> None:
    found = faults(
        checkpoint="nowhere.pth",
        opset=99,
        resize=300,
        resize_mode="stretch",
        backbone="resnet18",
        layers="layer1,layer9,layer1",
        backbone_weights="nowhere.bin",
        thresold=0.5,
    )
    for beginning in (
        "opset: wanted a number of at most 17",
        "thresold: unknown key",
        "resize: belongs to",
        "layers: layer1, layer9, layer1 names a layer twice",
        "layers: 'layer9' is no layer of 'resnet18', did you mean",
        "checkpoint: nowhere.pth: no such file",
        "backbone_weights: nowhere.bin: no such file",
    ):
        assert [fault.startswith(beginning) for fault in found].count(True) == 1, beginning
    assert len(found) == 7


def test_files_that_lack_are_left_to_the_reader_when_all_else_is_right() -> None:
    given = options(checkpoint="nowhere.pth", backbone_weights="nowhere.bin")
    assert (given.checkpoint, given.network.backbone_weights) == (Path("nowhere.pth"), Path("nowhere.bin"))


def test_a_file_that_is_there_is_no_fault() -> None:
    """Control for the missing ones."""
    (fault,) = faults(opset=99, backbone_weights=__file__)
    assert fault.startswith("opset")


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"family": "glas", "backbone": "resnet81"}, ["family: 'glas' is unknown"]),
        ({"backbone": "resnet81", "layers": "layer9"}, ["backbone: 'resnet81' is no torchvision classifier"]),
        ({"backbone": "mobilenet_v2"}, ["layers: 'layer2' is no", "layers: 'layer3' is no"]),
        ({"backbone": "regnet_y_400mf", "layers": "layer2"}, ["layers: 'layer2' is no"]),
        ({"layers": "layer2,layr3"}, ["layers: 'layr3' is no layer of 'wide_resnet50_2', did you mean layer3"]),
        ({"backbone": "resnet81", "layers": ","}, ["layers: wanted layer names", "backbone: 'resnet81' is no"]),
        ({"backbone": 5, "layers": "layer9"}, ["backbone: wanted text"]),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_faults_of_the_network(values: dict[str, Any], wanted: list[str]) -> None:
    found = faults(opset=99, **values)
    assert len(found) == 1 + len(wanted)
    rest = [fault for fault in found if not fault.startswith("opset")]
    assert all(fault.startswith(beginning) for fault, beginning in zip(rest, wanted, strict=True))


@pytest.mark.parametrize("backbone", ["regnet_y_400mf", "googlenet", "vit_b_32"])
def test_networks_that_are_hard_to_build_have_layers(backbone: str) -> None:
    layer = {"regnet_y_400mf": "trunk_output.block2", "googlenet": "inception3a", "vit_b_32": "encoder"}[backbone]
    assert options(backbone=backbone, layers=layer).network.layers == (layer,)


def test_faults_of_a_timm_network() -> None:
    pytest.importorskip("timm")
    assert faults(backbone="timm:resnet181")[0].startswith("backbone: 'resnet181' is no timm network, did you mean")
    assert faults(backbone="timm:resnet18", layers="layer1,x9") == ("layers: 'x9' is no layer of 'timm:resnet18'",)


def test_without_timm_its_networks_are_left_to_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert options(backbone="timm:never_seen", layers="x").network.backbone == "timm:never_seen"


# Values as YAML gives them


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("option", ["threshold", "batch", "resize", "embed_dim", "opset"])
def test_a_bool_is_no_number(option: str, value: bool) -> None:
    assert faults(**{option: value}) == (f"{option}: wanted a number, got {value}",)


def test_a_bool_stays_one_where_it_belongs() -> None:
    """Control: bools and numbers written as text are taken."""
    given = options(force=True, threshold="0.5", batch="2")
    assert (given.force, given.threshold, given.batch) == (True, 0.5, 2)


def test_null_means_not_given() -> None:
    optional = {name: None for name in (OWN | of_families()) if name not in NEEDED}
    assert options(**optional) == options()
    assert export_options(NEEDED | {"imgsz": 64}, "x", {"imgsz": None}).imgsz == (64, 64)
    assert faults(checkpoint=None) == ("checkpoint: missing",)
    assert faults(thresold=None) == ("thresold: unknown key",)


def test_two_spellings_of_one_key() -> None:
    values = {"pretrain-embed-dim": 48, "pretrain_embed_dim": None, "opset": 99}
    found = faults(**values)
    assert found[0] == "pretrain_embed_dim: given twice, as pretrain-embed-dim and pretrain_embed_dim"
    assert found[1].startswith("opset")
    assert len(found) == 2


def test_either_spelling_alone_is_taken_and_overridden() -> None:
    """Control for the two spellings."""
    assert options(**{"pretrain-embed-dim": 48}).network.pretrain_embed_dim == 48
    given = export_options(NEEDED | {"pretrain-embed-dim": 48}, "x", {"pretrain_embed_dim": "40"})
    assert given.network.pretrain_embed_dim == 40


@pytest.mark.parametrize(("threshold", "n_notes"), [(5, 1), (-0.1, 1), (1.0, 0), (0, 0), (None, 0)])
def test_a_threshold_out_of_reach_is_noted(threshold: float | None, n_notes: int) -> None:
    notes = options(threshold=threshold).notes
    assert len(notes) == n_notes
    assert all(note.startswith("scores lie between 0 and 1; threshold") for note in notes)


@pytest.mark.parametrize(("name", "value"), [("batch", 10**30), ("batch", 1025), ("layers", [])])
def test_what_no_machine_could_build_is_refused(name: str, value: object) -> None:
    (fault,) = faults(**{name: value})
    assert fault.startswith(f"{name}: wanted ")
