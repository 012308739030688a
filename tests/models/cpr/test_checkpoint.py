"""Checkpoints of CPR, the authors' with pictures beside it and our own, and what is said where something lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn
from PIL import Image
from torch import Tensor

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.models import model_family
from edge_ad.models.backbone import Backbone
from edge_ad.models.cpr import checkpoint as checkpoint_module
from edge_ad.models.cpr.checkpoint import checkpoint_of, load_cpr, read_parts
from edge_ad.models.cpr.network import LocalBranch
from edge_ad.models.cpr.options import CprOptions
from edge_ad.models.recognise import families_of
from edge_ad.models.references import References

SIDE = 112
SPEC = PreprocessSpec(SIDE, SIDE, resize_mode="stretch", filter="opencv_bilinear")
LAYERS = ("features.3", "features.6")
PREFIX = "backbone.feature_extractor.backbone."
FIRST = "lrb.conv.0.0.weight"


@pytest.fixture(scope="module")
def official(backbone_weights: Path) -> dict[str, Tensor]:
    """A state dict as the authors' code writes it, of a smaller backbone. Do not change it."""
    trunk = Backbone("mobilenet_v2", LAYERS)
    trunk.load_weights(torch.load(backbone_weights, weights_only=True), "drawn")
    lrb = LocalBranch([24, 32]).state_dict()
    state = {PREFIX + key: value for key, value in trunk.trunk.state_dict().items()}
    return state | {f"lrb.{key}": value for key, value in drawn(lrb).items()}


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "disc.pth")
        return tmp_path / "disc.pth"

    return write


@pytest.fixture
def good(parts: Path) -> References:
    return References(parts / "train" / "good", SPEC)


def load(checkpoint: Path, references: References, **options: Any) -> Any:
    return load_cpr(checkpoint, CprOptions(**{"backbone": "mobilenet_v2", **options}), references)


def refused(kind: type[Exception], checkpoint: Path, references: References, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load(checkpoint, references, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_authors_with_pictures(official: dict[str, Tensor], save: Any, good: References) -> None:
    loaded = load(save(official), good, nearest=2)
    network = loaded.network
    assert network.lrb is not None
    assert all(torch.equal(network.lrb.state_dict()[key[4:]], official[key]) for key in official if key[:4] == "lrb.")
    assert network.references.shape == (6, SIDE, SIDE, 3) and network.centres.shape == (12, 24)
    assert network.names == tuple(f"{number}.png" for number in range(6))
    first = np.asarray(Image.open(good.folder / "0.png"))  # type: ignore[operator]
    np.testing.assert_array_equal(network.references[0].numpy(), first)
    assert network.foreground is not None, "a disc on a plain ground is an object"
    assert loaded.config["references"] == 6 and loaded.config["nearest"] == 2
    assert loaded.config["layers"] == list(LAYERS) and loaded.config["backbone_weights"] == "the checkpoint's"
    assert any(note.startswith("foreground: found") for note in loaded.notes)
    assert any(note.startswith("references: 6 of 6 pictures of") for note in loaded.notes)


def test_options_of_the_authors_checkpoint(official: dict[str, Tensor], save: Any, good: References) -> None:
    loaded = load(save(official), good, reference_count=4, foreground="off", metric=False, bank="int8")
    network = loaded.network
    assert network.lrb is None and network.foreground is None and network.bank == "int8"
    assert len(network.references) == 4 == network.config.nearest
    assert any("4 references are all that there are to compare with" in note for note in loaded.notes)


def test_ours_needs_nothing_beside_it(official: dict[str, Tensor], save: Any, good: References) -> None:
    first = load(save(official), good, nearest=2, search_windows=(5, 1)).network
    own = save(checkpoint_of(first))
    nothing = References(None, SPEC)
    again = load(own, nothing, backbone=None)
    state = again.network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in first.state_dict().items())
    assert again.network.config == first.config and again.network.names == first.names
    fewer = load(own, nothing, backbone=None, reference_count=3, nearest=1, foreground="off", metric=False).network
    assert len(fewer.references) == 3 == len(fewer.names) and fewer.lrb is None and fewer.foreground is None
    assert any(torch.equal(fewer.references[0], each) for each in first.references)
    assert families_of(own) == {"cpr": FIRST}


def test_pictures_that_are_given_take_the_place_of_ours(
    official: dict[str, Tensor], save: Any, good: References, parts: Path
) -> None:
    own = save(checkpoint_of(load(save(official), good).network))
    other = load(own, References(parts / "test" / "good", SPEC), backbone=None, nearest=1).network
    assert len(other.references) == 3


def test_pictures_of_another_size_are_resized(official: dict[str, Tensor], save: Any, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(200, 150, 3), (SIDE, SIDE, 3), (64, 300, 3)]):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    assert load(save(official), References(folder, SPEC), nearest=2).network.references.shape == (3, SIDE, SIDE, 3)


def test_what_is_refused(official: dict[str, Tensor], save: Any, good: References) -> None:
    path, nothing = save(official), References(None, SPEC)
    told = refused(ConfigError, path, nothing)
    assert told.startswith("references: ") and "give --references DIR" in told
    told = refused(ConfigError, path, good, nearest=7)
    assert told == "nearest: wanted at most 6, the number of references, got 7; lower it, or give more"
    assert FIRST.replace("0.0", "0.0") in refused(CheckpointError, save({"fc.weight": torch.zeros(1)}), good)
    lacking = {key: value for key, value in official.items() if key != "lrb.conv.1.4.bias"}
    assert "tensor 'lrb.conv.1.4.bias' is missing" in refused(CheckpointError, save(lacking), good)
    other = official | {FIRST: torch.zeros(192, 48, 1, 1)}
    assert f"tensor '{FIRST}' has shape (192, 48, 1, 1)" in refused(CheckpointError, save(other), good)
    bare = {key: value for key, value in official.items() if key.startswith("lrb.") or "features.0" not in key}
    assert "of backbone 'mobilenet_v2' is not in the file" in refused(CheckpointError, save(bare), good)
    endless = official | {FIRST: torch.full((192, 24, 1, 1), torch.nan)}
    assert "holds NaN or infinity" in refused(CheckpointError, save(endless), good)


def test_pickles_of_modules_are_never_opened(save: Any, good: References) -> None:
    """The authors keep codebook and foreground so, in files beside the checkpoint."""
    told = refused(CheckpointError, save(torch.nn.Linear(2, 2)), good)
    assert "holds more than plain tensors and is not opened" in told


def test_what_ours_cannot_be(official: dict[str, Tensor], save: Any, good: References) -> None:
    nothing = References(None, SPEC)
    own = checkpoint_of(load(save(official), good, foreground="off").network)
    larger = References(None, PreprocessSpec(128, 128))
    assert "references are 112x112, wanted 128x128" in refused(ConfigError, save(own), larger, backbone=None)
    told = refused(ConfigError, save(own), nothing, backbone=None, foreground="on")
    assert told.startswith("foreground: on: the checkpoint has none")
    told = refused(ConfigError, save(own | {"lrb": {}}), nothing, backbone=None, metric=True)
    assert told.startswith("metric: the checkpoint was trained without")
    for key, value, told in (
        ("config", {**own["config"], "nearest": "many"}, "nearest: wanted a whole number"),
        ("config", {**own["config"], "unheard_of": 1}, "unheard_of"),
        ("grb", {"centers": torch.zeros(3, 24)}, "'grb.centers': wanted (12, channels), got (3, 24)"),
        ("feb", {"weight": torch.zeros(5)}, "'feb': wanted a weight for each channel"),
        ("references", {"images": torch.zeros(2, 8, 8, 3)}, "'references.images': wanted uint8"),
        ("references", [], "references: wanted a dictionary"),
        ("backbone", None, "without 'backbone'"),
    ):
        assert told in refused(CheckpointError, save(own | {key: value}), nothing, backbone=None), key


def test_a_texture_has_no_object(official: dict[str, Tensor], save: Any, tmp_path: Path) -> None:
    folder = tmp_path / "noise"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    path, textures = save(official), References(folder, SPEC)
    loaded = load(path, textures)
    assert loaded.network.foreground is None
    assert any(note.endswith("the whole picture counts; else give --foreground on") for note in loaded.notes)
    forced = load(path, textures, foreground="on")
    assert forced.network.foreground is not None
    assert any("though" in note and "--foreground off" in note for note in forced.notes)
    small = References(folder, PreprocessSpec(96, 96, resize_mode="stretch"))
    told = refused(ConfigError, path, small, foreground="on")
    assert told.startswith("foreground: on: 24x24 patches have no border") and "--foreground off" in told


def test_a_bank_that_no_file_holds(
    official: dict[str, Tensor], save: Any, good: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(official)
    each = 257 * 4 * (28 * 28 + 16 * 16) + 4 * SIDE * SIDE  # tiles of 4x4 cells: 14 cells take 16
    monkeypatch.setattr(checkpoint_module, "MOST_BANK_BYTES", 4 * each)
    told = refused(ConfigError, path, good)
    assert told.startswith("reference_count: 6 references take")
    assert "room for 4 with --bank float32, " in told
    assert len(load(path, good, reference_count=4).network.references) == 4
    assert len(load(path, good, bank="int8").network.references) == 6


def test_what_can_be_refused_is_refused_before_anything_is_computed(
    official: dict[str, Tensor], save: Any, good: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codebook and foreground take minutes."""
    path = save(official)

    def never(*_: Any) -> Any:
        raise AssertionError("something was computed")

    monkeypatch.setattr(checkpoint_module, "learned", never)
    assert refused(ConfigError, path, good, reference_count=2, nearest=3).startswith("nearest: wanted at most 2, ")
    monkeypatch.setattr(checkpoint_module, "MOST_BANK_BYTES", 10**6)
    assert refused(ConfigError, path, good).startswith("reference_count: 6 references take")


def test_options_that_are_no_layers() -> None:
    family = model_family("cpr")
    assert family.faults(CprOptions(), set()) == []
    assert family.faults(CprOptions(layers=("a",)), set())[0].startswith("layers: wanted two")
    assert "none are known for 'vgg11'" in family.faults(CprOptions(backbone="vgg11"), set())[0]
    unknown = CprOptions(backbone="resnet18", layers=("layer1", "layer9"))
    assert "'layer9' is no layer of 'resnet18'" in family.faults(unknown, set())[0]


def test_a_file_is_read_once_as_what_it_is(official: dict[str, Tensor], save: Any) -> None:
    parts = read_parts(save(official))
    assert parts.config is None and parts.images is None and set(parts.lrb) == {k[4:] for k in official if "lrb." in k}
