"""Options of training: defaults from the paper, presets under what the user says, every fault at once."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import ConfigError
from edge_ad.models.glass.config import Objective
from edge_ad.models.glass.training.options import GlassTrainOptions as TrainOptions
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.validation import build, plain

train_options = TrainOptions.checked
GIVEN = {"output": "run", "data": "parts"}


def faults(**values: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        train_options({**GIVEN, **values}, "test")
    return caught.value.faults


def test_defaults_are_the_published_values() -> None:
    options = train_options(GIVEN, "test")
    published = {
        **{"backbone": "wide_resnet50_2", "layers": ("layer2", "layer3"), "imgsz": (288, 288)},
        **{"pretrain_embed_dim": 1536, "embed_dim": 1536, "hidden_dim": 1024, "discriminator_layers": 2},
        **{"noise_std": 0.015, "ascent_steps": 20, "ascent_step_size": 0.001, "project_every": 5},
        **{"manifold_radii": (0.5, 1.0), "radius_quantile": 0.75, "hard_quantile": 0.5, "focal_gamma": 2.0},
        **{"beta_mean": 0.5, "beta_std": 0.1, "augmentations": 3, "learning_rate": 1e-4, "batch": 8},
        **{"epochs": 640, "epoch_images": 392, "schedule": "constant", "select": "best", "hypothesis": "auto"},
    }
    assert {name: getattr(options, name) for name in published} == published
    assert options.network == HeadConfig()
    assert options.objective("hypersphere") == Objective("hypersphere")
    assert options.preprocess == PreprocessSpec(288, 288, resize=288)


PRESETS = TrainOptions.presets


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_the_user_wins(name: str) -> None:
    options = train_options({**GIVEN, "preset": name}, "test")
    for key, value in PRESETS[name].items():
        assert plain(options)[key] == plain(build(TrainOptions, {"output": "x", key: value}, "test"))[key]
    assert train_options({**GIVEN, "preset": name, "epochs": 7, "learning-rate": 0.5}, "test").epochs == 7
    assert PRESETS["paper"] == {}


def test_options_survive_their_record() -> None:
    options = train_options({**GIVEN, "preset": "fast", "layers": "features.6", "imgsz": "64x96", "resize": 70}, "test")
    assert build(TrainOptions, plain(options), "test") == options
    assert set(options.export) >= {"backbone", "layers", "imgsz", "resize", "resize_mode", "score"}
    assert options.export["imgsz"] == [64, 96]


def test_every_option_is_reached_from_the_command_line() -> None:
    import click

    from edge_ad.cli.choosing import ChoiceOptions
    from edge_ad.cli.train import command

    context = click.Context(command)
    shown = {option.name for option in command.get_params(context) if not getattr(option, "hidden", False)}
    own = {
        "config",
        "resume",
        "force",
        "family",
        "_click_default_help",
        *(field.name for field in fields(ChoiceOptions)),
    }
    assert shown - own == {field.name for field in fields(TrainOptions)}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data": None}, "data: give either a data set or --good DIR"),
        ({"good": "g"}, "not both"),
        ({"bad": "b"}, "bad: belongs to --good DIR"),
        ({"data": None, "good": "g", "masks": "m"}, "masks: are those of --bad DIR"),
        ({"resize": 64, "resize_mode": "stretch"}, "resize: belongs to resize_mode shorter_side_crop"),
        ({"manifold_radii": [1, 0.5]}, "manifold_radii: wanted the nearer first"),
        ({"manifold_radii": [1]}, "manifold_radii"),
        ({"layers": "layer1,layer1"}, "layers: layer1, layer1 names a layer twice"),
        ({"layers": "layer9"}, "layers: 'layer9' is no layer"),
        ({"backbone": "resnet19"}, "backbone: 'resnet19'"),
        ({"preset": "slow"}, "preset: wanted 'paper' or 'fast', got 'slow'"),
        ({"epochs": 0}, "epochs: wanted a number above 0"),
        ({"epochs": True}, "epochs: wanted a number"),
        ({"learning_rate": -1}, "learning_rate: wanted a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: wanted a finite number"),
        ({"hard_quantile": 1.5}, "hard_quantile: wanted a number of at most 1"),
        ({"augmentations": 10}, "augmentations: wanted a number of at most 9"),
        ({"discriminator_layers": 1}, "discriminator_layers: wanted a number of at least 2"),
        ({"hypothesis": "sphere"}, "hypothesis: wanted"),
        ({"seed": -1}, "seed: wanted a number of at least 0"),
        ({"output": None}, "output: missing"),
        ({"colour": "red"}, "colour: unknown key"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_faults(values: dict[str, Any], words: str) -> None:
    (fault,) = faults(**values)
    assert words in fault


def test_all_faults_at_once() -> None:
    found = faults(data=None, epochs="many", layers="layer9", resize=3, resize_mode="stretch", shade=1, noise_std=0)
    assert {fault.split(":")[0] for fault in found} == {
        *("data", "epochs", "layers", "resize", "shade", "noise_std"),
    }


def test_dashes_and_underlines_are_the_same() -> None:
    assert train_options({**GIVEN, "embed-dim": 7}, "test") == train_options({**GIVEN, "embed_dim": 7}, "test")


def test_a_good_picture_folder_is_a_data_set(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "a.png")
    for values in ({"data": tmp_path / "a"}, {"data": None, "good": tmp_path / "a"}):
        assert len(train_options({**GIVEN, **values}, "test").dataset().train) == 1


def test_every_constant_of_the_objective_is_an_option() -> None:
    changed = {"noise_std": 0.5, "ascent_steps": 3, "manifold_radii": (0.25, 0.5), "focal_gamma": 1.0}
    objective = train_options({**GIVEN, **changed}, "test").objective("manifold")
    assert {name: asdict(objective)[name] for name in changed} == changed


def test_the_fast_preset_brings_its_weights_along_and_drops_them_for_another_backbone(tmp_path: Path) -> None:
    told = {"good": tmp_path, "output": tmp_path / "run", "preset": "fast"}
    assert train_options(told, "test").backbone_weights == Path("packaged")
    other = train_options({**told, "backbone": "resnet18", "layers": "layer1,layer2"}, "test")
    assert other.backbone_weights is None


def test_a_preset_can_be_unsaid(tmp_path: Path) -> None:
    told = {"good": tmp_path, "output": tmp_path / "run", "preset": "fast", "freeze_adaptor": False}
    assert train_options({**told, "whiten": "none"}, "test").whiten is None
    assert train_options(told, "test").whiten == 10


def test_patience_with_the_last_epoch_is_refused(tmp_path: Path) -> None:
    told = {"good": tmp_path, "output": tmp_path / "run", "preset": "fast", "patience": 5}
    with pytest.raises(ConfigError, match="patience: with select last"):
        train_options(told, "test")
