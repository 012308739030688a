"""Checkpoints of DiffusionAD: the authors' file, what is read from it, and what is refused."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn_plainly
from torch import Tensor

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.export.options import export_options
from edge_ad.models import model_family
from edge_ad.models.diffusionad.checkpoint import load_diffusionad
from edge_ad.models.diffusionad.config import MULTIPLIERS, DiffusionAdConfig, strides_of
from edge_ad.models.diffusionad.network import DiffusionAd
from edge_ad.models.diffusionad.noise import NOISES, fixed_noise
from edge_ad.models.diffusionad.options import DiffusionAdOptions
from edge_ad.models.recognise import families_of, loaded_as
from edge_ad.models.references import References

State = dict[str, Any]
SPECS = (PreprocessSpec(64, 64), PostprocessSpec())
CONFIG = DiffusionAdConfig(32, MULTIPLIERS[64], strides_of(64), 4)
SETTINGS = {"img_size": [64, 64], "eval_normal_t": 100, "eval_noisier_t": 300, "condition_w": 2, "T": 1000}


@pytest.fixture(scope="module")
def official() -> State:
    """As the authors save it. Do not change it."""
    network = DiffusionAd(CONFIG)
    settings: Any = collections.defaultdict(str)
    settings.update(SETTINGS, output_path="outputs", loss_type="l2")
    return {
        "n_epoch": 7,
        "unet_model_state_dict": drawn_plainly(network.unet.state_dict(), {}),
        "seg_model_state_dict": drawn_plainly(network.segmentation.state_dict(), {}),
        "args": settings,
    }


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "params-best.pt")
        return tmp_path / "params-best.pt"

    return write


def refused(checkpoint: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        loaded_as(model_family("diffusionad"), checkpoint, DiffusionAdOptions(**options), References(None, SPECS[0]))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(official: State, half: str, key: str, value: Tensor | None) -> State:
    inner = {name: tensor for name, tensor in {**official[half], key: value}.items() if tensor is not None}
    return {**official, half: inner}


def test_the_authors_file_with_its_defaultdict(official: State, save: Any) -> None:
    path = save(official)
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        torch.load(path, weights_only=True)
    loaded = load_diffusionad(path, DiffusionAdOptions())
    assert loaded.network.config == CONFIG and loaded.preprocess is not None
    assert loaded.preprocess.size_hw == (64, 64)
    told = {key: loaded.config[key] for key in ("normal_t", "noisier_t", "condition_w", "noise_seed", "passes")}
    assert told == {"normal_t": 100, "noisier_t": 300, "condition_w": 2.0, "noise_seed": None, "passes": 2}
    for half, part in (("unet", loaded.network.unet), ("seg", loaded.network.segmentation)):
        wanted = official[f"{half}_model_state_dict"]
        assert all(torch.equal(value, wanted[key]) for key, value in part.state_dict().items())
    assert [note for note in loaded.notes if "time step" in note] != [], "narrow: warned of"
    assert families_of(path) == {"diffusionad": "unet_model_state_dict.time_embedding.1.weight"}


def test_what_is_admitted_executes_nothing(save: Any, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    settings: Any = collections.defaultdict(str)
    settings["x"] = Attack()
    for content in ({"args": settings}, {"args": Attack()}):
        assert "more than plain tensors" in refused(save(content))
    assert not (tmp_path / "made").exists()


def test_what_the_user_says_comes_first(official: State, save: Any) -> None:
    told = DiffusionAdOptions(normal_t=20, noisier_t=30, condition_w=0.5, noise_seed=3, num_heads=2, passes=1)
    config = load_diffusionad(save(official), told).config
    found = [config[key] for key in ("normal_t", "noisier_t", "condition_w", "noise_seed", "num_heads", "passes")]
    assert found == [20, 30, 0.5, 3, 2, 1]


def test_without_settings_the_usual_ones_are_assumed_and_said(official: State, save: Any) -> None:
    loaded = load_diffusionad(save({**official, "args": None}), DiffusionAdOptions())
    assert (loaded.config["normal_t"], loaded.config["noisier_t"]) == (200, 400)
    assert any("--normal-t" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("half", "other"),
    [("unet_model_state_dict", "seg_model_state_dict"), ("seg_model_state_dict", "unet_model_state_dict")],
)
def test_one_network_without_the_other(official: State, save: Any, half: str, other: str) -> None:
    path = save({half: official[half], "args": official["args"]})
    assert f"holds '{half}' without '{other}'" in refused(path)


def test_a_bare_unet(official: State, save: Any) -> None:
    assert "UNet alone" in refused(save(official["unet_model_state_dict"]))


def test_something_else(save: Any) -> None:
    assert "no DiffusionAD checkpoint" in refused(save({"x": torch.zeros(3)}))


@pytest.mark.parametrize(
    ("half", "key", "value", "words"),
    [
        ("unet_model_state_dict", "middle.0.out_layers.3.bias", None, "is missing"),
        ("unet_model_state_dict", "down.0.0.weight", torch.zeros(32, 4, 3, 3), "wanted (width, 3, 3, 3)"),
        ("unet_model_state_dict", "down.4.0.out_layers.3.weight", torch.zeros(48, 64, 3, 3), "a multiple of 32"),
        ("unet_model_state_dict", "down.12.0.weight", torch.zeros(1), "13 stages"),
        ("unet_model_state_dict", "out.2.bias", torch.full((3,), torch.nan), "holds NaN"),
        ("seg_model_state_dict", "encoder_segment.block1.0.weight", torch.zeros(4, 3, 3, 3), "(width, 6, 3, 3)"),
        ("seg_model_state_dict", "decoder_segment.fin_out.0.weight", torch.zeros(2, 4, 3, 3), "expects (1, 4, 3, 3)"),
    ],
)
def test_tensors_that_do_not_fit(
    official: State, save: Any, half: str, key: str, value: Tensor | None, words: str
) -> None:
    text = refused(save(changed(official, half, key, value)))
    assert words in text and (key in text or "stages" in text)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("T", 3),
        ("eval_normal_t", 1000),
        ("eval_normal_t", "many"),
        ("condition_w", float("nan")),
        ("img_size", [64, 32]),
    ],
)
def test_settings_that_are_none(official: State, save: Any, setting: str, value: Any) -> None:
    assert f"setting '{setting}'" in refused(save({**official, "args": {**SETTINGS, setting: value}}))


def test_steps_in_the_wrong_order(official: State, save: Any) -> None:
    assert "wanted the smaller first" in refused(save({**official, "args": {**SETTINGS, "eval_noisier_t": 50}}))
    given = {"checkpoint": "x", "family": "diffusionad", "output": "y", "normal_t": 9, "noisier_t": 9}
    with pytest.raises(ConfigError, match="normal_t: wanted a time step before"):
        export_options(given, "test")


@pytest.mark.parametrize("seed", ["1.5", "x", -1])
def test_a_seed_that_is_no_integer(seed: Any) -> None:
    with pytest.raises(ConfigError, match="noise_seed: "):
        export_options({"checkpoint": "x", "family": "diffusionad", "output": "y", "noise_seed": seed}, "test")


@pytest.mark.parametrize("imgsz", [48, "64x40", 16])
def test_a_size_that_is_no_multiple(imgsz: Any) -> None:
    with pytest.raises(ConfigError, match=r"imgsz: .*multiples of 32"):
        export_options({"checkpoint": "x", "family": "diffusionad", "imgsz": imgsz, "output": "b"}, "test")


def test_a_size_with_other_levels(official: State, save: Any) -> None:
    family = model_family("diffusionad")
    loaded = load_diffusionad(save(official), DiffusionAdOptions())
    for form in (family.fast, family.published):
        with pytest.raises(ConfigError, match="was made for 64x64, with other levels than one for 128x128"):
            form(loaded, PreprocessSpec(128, 128), SPECS[1])
        with pytest.raises(ConfigError, match="places would look at one another"):
            form(loaded, PreprocessSpec(512, 512), SPECS[1])
    family.fast(loaded, PreprocessSpec(64, 32), SPECS[1])


def test_more_heads_than_channels_divide(official: State, save: Any) -> None:
    assert "num_heads" in refused(save(official), num_heads=7)


def test_a_seed_draws_other_noise_for_each_pass() -> None:
    usual = [fixed_noise(name, (4, 6)) for name in NOISES]
    again = [fixed_noise(name, (4, 6)) for name in NOISES]
    seeded = [fixed_noise(name, (4, 6), 0) for name in NOISES]
    assert all(np.array_equal(first, second) for first, second in zip(usual, again, strict=True))
    drawn = [*usual, *seeded]
    assert len({each.tobytes() for each in drawn}) == 4
    assert usual[0].shape == (1, 3, 4, 6) and usual[0].dtype == np.float32
