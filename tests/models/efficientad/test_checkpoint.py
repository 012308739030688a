"""Checkpoints of EfficientAD in every form that they come in, and what is said where a file is something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from golden_files import largest
from torch import Tensor

from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.export.options import export_options
from edge_ad.models import model_family
from edge_ad.models.efficientad.checkpoint import load_efficientad, load_teacher
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.efficientad.options import EfficientAdOptions
from edge_ad.models.efficientad.specs import INPUT
from edge_ad.models.efficientad.statistics import normalised
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.recognise import families_of, loaded_as
from edge_ad.models.references import References

Folder = Callable[..., Path]
Making = Callable[..., References]
PARTS = ("teacher", "student", "autoencoder")
NAMES = {"small": ("0", "3", "6", "8"), "medium": ("0", "3", "6", "8", "10", "12")}
ENCODER, DECODER = ("0", "2", "4", "6", "8", "10"), ("12", "16", "20", "24", "28", "32", "36", "38")


def given(references: References | None) -> References:
    return References(None, INPUT) if references is None else references


def load(checkpoint: Path, references: References | None = None, **options: Any) -> LoadedNetwork[EfficientAd]:
    return load_efficientad(checkpoint, EfficientAdOptions(**options), given(references))


def refused(checkpoint: Path, references: References | None = None, **options: Any) -> str:
    """What loading says, as the command does it, on one line."""
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        loaded_as(
            model_family("efficientad"),
            checkpoint,
            EfficientAdOptions(**options),
            given(references),
        )
    assert "\n" not in str(caught.value)
    return str(caught.value)


def own(network: EfficientAd, **changes: Any) -> dict[str, Any]:
    """Our own file; None takes an entry away."""
    parts = {part: network.get_submodule(part).state_dict() for part in PARTS}
    measured = {"mean": network.mean, "std": network.std, "quantiles": network.quantiles}
    content = {**parts, **measured, "map_padding": network.map_padding, "imgsz": [256, 256], **changes}
    return {key: value for key, value in content.items() if value is not None}


def anomalib(network: EfficientAd, **changes: Tensor | None) -> dict[str, Any]:
    """As Lightning saves anomalib's module; changes by name in its state dict."""
    state: dict[str, Any] = {"image_threshold": torch.tensor(0.5)}
    tables = {
        "teacher": {name: f"teacher.conv{n}" for n, name in enumerate(NAMES[network.config.size], start=1)},
        "student": {name: f"student.conv{n}" for n, name in enumerate(NAMES[network.config.size], start=1)},
        "autoencoder": {name: f"ae.encoder.enconv{n}" for n, name in enumerate(ENCODER, start=1)}
        | {name: f"ae.decoder.deconv{n}" for n, name in enumerate(DECODER, start=1)},
    }
    for part, table in tables.items():
        for name, value in network.get_submodule(part).state_dict().items():
            layer, _, kind = name.rpartition(".")
            state[f"model.{table[layer]}.{kind}"] = value
    state |= {
        "model.mean_std.mean": network.mean[None, :, None, None],
        "model.mean_std.std": network.std[None, :, None, None],
    }
    for name, value in zip(("qa_st", "qb_st", "qa_ae", "qb_ae"), network.quantiles, strict=True):
        state[f"model.quantiles.{name}"] = value
    state = {key: value for key, value in {**state, **changes}.items() if value is not None}
    return {"epoch": 3, "state_dict": state, "hyper_parameters": {"padding": False, "pad_maps": True}}


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any, name: str = "one.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def assert_same(found: EfficientAd, wanted: EfficientAd, *, measured: bool = True) -> None:
    state = found.state_dict()
    assert all(torch.equal(state[key], value) for key, value in wanted.state_dict().items())
    if measured:
        assert all(torch.equal(getattr(found, name), getattr(wanted, name)) for name in ("mean", "std", "quantiles"))


# What is read


@pytest.mark.parametrize("size", ["small", "medium"])
def test_our_own_file_is_complete(make: Any, size: str, save: Any) -> None:
    network = make(size, "before")
    loaded = load(save(own(network)))
    assert_same(loaded.network, network)
    assert loaded.notes == () and not loaded.network.training
    assert loaded.config["quantiles"] == [float(value) for value in network.quantiles]
    sizes = {"size": size, "width": 4, "channels": 6, "autoencoder_width": 3, "map_padding": "before"}
    assert {key: loaded.config[key] for key in sizes} == sizes
    assert not any(weight.requires_grad for weight in loaded.network.parameters())


@pytest.mark.parametrize("size", ["small", "medium"])
def test_anomalibs_is_complete(make: Any, size: str, save: Any) -> None:
    network = make(size)
    loaded = load(save(anomalib(network)))
    assert_same(loaded.network, network)
    assert loaded.network.map_padding == "before"
    (note,) = loaded.notes
    assert "anomalib" in note and "not those it shows" in note


def test_anomalibs_settings_are_heeded(small: EfficientAd, save: Any) -> None:
    content = anomalib(small)
    content["hyper_parameters"]["pad_maps"] = False
    assert load(save(content)).network.map_padding == "none"
    content["hyper_parameters"]["padding"] = True
    assert "padding=True" in refused(save(content))
    del content["hyper_parameters"]
    loaded = load(save(content))
    assert loaded.network.map_padding == "before" and "taken for anomalib's defaults" in loaded.notes[-1]
    assert load(save(content), map_padding="after").config["map_padding"] == "after"


def by_hand(network: EfficientAd, images: list[np.ndarray]) -> list[Tensor]:
    """Mean, deviation and quantiles in float64, as their definitions have them."""
    double = network.double()
    stacked = normalised(images).double()
    answers = double.teacher(stacked)
    mean = answers.mean((0, 2, 3))
    std = (answers - mean[:, None, None]).square().mean((0, 2, 3)).sqrt()
    local, whole = double.student(stacked).chunk(2, dim=1)
    st = ((answers - mean[:, None, None]) / std[:, None, None] - local).square().mean(1)
    ae = (double.autoencoder(stacked) - whole).square().mean(1)
    quantiles = [torch.quantile(one.flatten(), level) for one in (st, ae) for level in (0.9, 0.995)]
    return [mean, std, torch.stack(quantiles)]


def test_three_state_dicts_and_the_references(make: Any, folder: Folder, references: Making) -> None:
    """Statistics are measured anew: on pictures of any size, as the model will see them."""
    network, pictures = make(), references()
    loaded = load(folder(network), pictures)
    assert_same(loaded.network, network, measured=False)
    assert loaded.network.map_padding == "after"
    (note,) = loaded.notes
    assert "3 reference pictures" in note and "choose the threshold anew" in note
    found = [getattr(loaded.network, name) for name in ("mean", "std", "quantiles")]
    for got, wanted in zip(found, by_hand(network, list(pictures)), strict=True):
        assert largest(got, wanted) <= 2e-6 * float(wanted.abs().max())


def test_another_size_of_the_input_is_said(folder: Folder, small: EfficientAd, references: Making, save: Any) -> None:
    import dataclasses

    larger = dataclasses.replace(INPUT, height=320, width=256)
    found = [load(folder(small), references(preprocess=larger)), load(save(own(small)), References(None, larger))]
    assert all("trained at 256x256 pixels and exported for 320x256" in loaded.notes[-1] for loaded in found)


def test_final_files_come_before_others(folder: Folder, make: Any, references: Making) -> None:
    folder(make("medium"), "_tmp.pth")
    assert load(folder(make()), references()).config["size"] == "small"


def test_the_students_file_finds_the_others(folder: Folder, small: EfficientAd, references: Making) -> None:
    path = folder(small) / "student_final.pth"
    assert_same(load(path, references()).network, small, measured=False)
    elsewhere = {part: (path.parent / f"{part}_final.pth").rename(path.parent / f"{part[0]}.pt") for part in PARTS[::2]}
    assert "--teacher FILE" in refused(path, references())
    assert_same(load(path, references(), **elsewhere).network, small, measured=False)


def test_the_hash_is_of_all_files(folder: Folder, small: EfficientAd, references: Making) -> None:
    before = load(folder(small), references()).checkpoint_sha256
    state = small.teacher.state_dict()
    torch.save({**state, "8.bias": state["8.bias"] + 1}, folder(small) / "teacher_final.pth")
    path = folder(small)
    torch.save({**state, "8.bias": state["8.bias"] + 1}, path / "teacher_final.pth")
    assert load(path, references()).checkpoint_sha256 != before


def test_three_in_one_dictionary_without_statistics(small: EfficientAd, save: Any, references: Making) -> None:
    bare = save(own(small, mean=None, std=None, quantiles=None))
    assert_same(load(bare, references()).network, small, measured=False)
    assert "--references DIR" in refused(bare)


def test_it_is_known_by_its_tensors(small: EfficientAd, save: Any, folder: Folder) -> None:
    assert families_of(save(own(small))) == {"efficientad": "autoencoder.38.weight"}
    assert list(families_of(save(anomalib(small)))) == ["efficientad"]
    assert families_of(folder(small) / "student_final.pth") == {}


# What is refused


@pytest.mark.parametrize("part", PARTS)
def test_one_of_the_three_is_missing(
    part: str, folder: Folder, small: EfficientAd, save: Any, references: Making
) -> None:
    path = folder(small)
    (path / f"{part}_final.pth").unlink()
    assert f"the {part} is missing; wanted {part}_final.pth" in refused(path, references())
    assert f"the {part} is missing" in refused(save(own(small, **{part: None})))


def test_two_files_that_could_be_it(folder: Folder, small: EfficientAd, references: Making) -> None:
    folder(small, "_a.pth")
    assert "which is the teacher?" in refused(folder(small, "_b.pth"), references())


def test_without_references(folder: Folder, small: EfficientAd) -> None:
    text = refused(folder(small))
    assert "mean and deviation" in text and "quantiles" in text and "--references DIR" in text


def test_faults_of_options_are_told_before_a_file_is_read(folder: Folder, small: EfficientAd, tmp_path: Path) -> None:
    """A folder is a checkpoint; what it lacks is no matter of options."""
    values = {"checkpoint": folder(small), "output": tmp_path / "b.edgead", "family": "efficientad"}
    with pytest.raises(ConfigError) as caught:
        export_options({**values, "imgsz": "128x256", "references": tmp_path / "nowhere"}, "options")
    faults = caught.value.faults
    assert faults[0].startswith("imgsz: efficientad wants multiples of 4, 256 or more, got 128x256")
    assert len(faults) == 2 and "no such folder" in faults[1]
    with pytest.raises(ConfigError, match=r"checkpoint: .*no such file"):
        export_options({**values, "checkpoint": tmp_path / "nowhere", "imgsz": 128}, "options")
    with pytest.raises(ConfigError, match="map_padding"):
        export_options({**values, "map_padding": "later"}, "options")


def test_networks_of_different_sizes(make: Any, folder: Folder, save: Any, references: Making) -> None:
    """Named by tensor, in the words of the source."""
    small, medium = make("small"), make("medium")
    path = folder(small)
    torch.save(medium.teacher.state_dict(), path / "teacher_final.pth")
    text = refused(path, references())
    assert "'10.weight' of the student is missing" in text and "is small and the teacher medium" in text
    torch.save(small.teacher.state_dict(), path / "teacher_final.pth")
    torch.save(medium.student.state_dict(), path / "student_final.pth")
    text = refused(path, references())
    assert "'10.weight' of the student is not known" in text and "is medium and the teacher small" in text
    states = anomalib(medium)["state_dict"]
    mixed = anomalib(small)
    mixed["state_dict"] = {key: value for key, value in mixed["state_dict"].items() if "teacher" not in key}
    mixed["state_dict"] |= {key: value for key, value in states.items() if "teacher" in key}
    assert "'model.student.conv5.weight' of the student is missing" in refused(save(mixed))


@pytest.mark.parametrize(
    ("part", "tensor", "shape", "words"),
    [
        (
            "student",
            "6.weight",
            (8, 8, 2, 2),
            "has shape (8, 8, 2, 2), a small student of width 4 expects (8, 8, 3, 3)",
        ),
        ("student", "8.weight", (6, 8, 4, 4), "a small student of width 4 expects (12, 8, 4, 4)"),
        ("teacher", "0.weight", (4, 1, 4, 4), "has shape (4, 1, 4, 4), wanted (N, 3, 4, 4)"),
        ("teacher", "8.weight", (6, 8), "has shape (6, 8), wanted (N, N, N, N)"),
        ("autoencoder", "38.weight", (7, 6, 3, 3), "an autoencoder for 6 channels expects (6, 6, 3, 3)"),
        ("autoencoder", "0.weight", (0, 3, 4, 4), "has shape (0, 3, 4, 4)"),
        ("autoencoder", "0.weight", (9999, 3, 4, 4), "'0.bias' of the autoencoder has shape (3,)"),
    ],
)
def test_a_tensor_of_another_shape(
    small: EfficientAd, save: Any, part: str, tensor: str, shape: tuple[int, ...], words: str
) -> None:
    state = {**small.get_submodule(part).state_dict(), tensor: torch.zeros(shape)}
    text = refused(save(own(small, **{part: state})))
    assert words in text and (f"'{tensor}'" in text or "'0.bias'" in words)


@pytest.mark.parametrize(("value", "what"), [(None, "is missing"), (torch.zeros(3), "is not known")])
def test_a_tensor_too_few_or_too_many(small: EfficientAd, save: Any, value: Tensor | None, what: str) -> None:
    key = "20.weight" if value is None else "21.weight"
    state = {**small.autoencoder.state_dict(), key: value}
    text = refused(save(own(small, autoencoder={name: one for name, one in state.items() if one is not None})))
    assert f"'{key}' of the autoencoder {what}" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": torch.zeros(5)}, "mean has shape (5,), wanted (6,)"),
        ({"std": torch.zeros(6)}, "std: wanted numbers above 0"),
        ({"std": None}, "holds mean and quantiles, wanted all of"),
        ({"quantiles": torch.tensor([1.0, 1.0, 0.0, 1.0])}, "the local map has 1 and 1"),
        ({"quantiles": torch.tensor([0.0, 1.0, 2.0, 1.0])}, "the global map has 2 and 1"),
        ({"quantiles": torch.zeros(3)}, "quantiles has shape (3,)"),
        ({"mean": torch.full((6,), torch.nan)}, "'mean' holds NaN"),
    ],
)
def test_statistics_that_are_none(small: EfficientAd, save: Any, changes: dict[str, Any], words: str) -> None:
    assert words in refused(save(own(small, **changes)))


def test_an_anomalib_training_that_never_ended(small: EfficientAd, save: Any, references: Making) -> None:
    zero = {f"model.quantiles.{name}": torch.tensor(0.0) for name in ("qa_st", "qb_st", "qa_ae", "qb_ae")}
    path = save(anomalib(small, **zero))
    assert "the quantiles of both maps; give --references" in refused(path)
    loaded = load(path, references())
    assert torch.equal(loaded.network.mean, small.mean), "what is there is kept"
    assert "its quantiles are all 0" in loaded.notes[1] and "never brought to an end" in loaded.notes[1]
    zero |= {f"model.mean_std.{name}": torch.zeros(1, 6, 1, 1) for name in ("mean", "std")}
    assert "mean and deviation" in refused(save(anomalib(small, **zero)))
    assert "'model.quantiles.qb_ae' is missing" in refused(save(anomalib(small, **{"model.quantiles.qb_ae": None})))


def test_a_teacher_that_says_nothing(small: EfficientAd, folder: Folder, references: Making) -> None:
    path = folder(small)
    state = {**small.teacher.state_dict(), "8.weight": torch.zeros(6, 8, 4, 4)}
    torch.save(state, path / "teacher_final.pth")
    assert "of 6 answers the same" in refused(path, references())


def test_something_else(save: Any, folder: Folder, small: EfficientAd, references: Making) -> None:
    assert "no EfficientAD checkpoint, it holds 'weight'" in refused(save({"weight": torch.zeros(1)}))
    assert "holds the autoencoder alone" in refused(folder(small) / "autoencoder_final.pth", references())
    assert "holds all three networks; leave teacher" in refused(
        save(own(small)), teacher=folder(small) / "teacher_final.pth"
    )


# Pickles


class Told(torch.nn.Module):
    """What would be noticed if it were unpickled."""

    opened: ClassVar[list[str]] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.opened.append("opened")
        super().__setstate__(state)


def converted(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what the message tells the owner of the files to run."""
    monkeypatch.chdir(folder)
    exec(text.split("run in its folder: ")[1], {})


def test_whole_modules_are_not_opened_and_converting_them_is_explained(
    small: EfficientAd, tmp_path: Path, references: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in PARTS:
        module = small.get_submodule(part)
        torch.save(torch.nn.Sequential(Told(), module), tmp_path / f"{part}_final.pth")
    Told.opened.clear()
    text = refused(tmp_path, references())
    assert "a whole module, pickled, which is never opened here" in text and Told.opened == []
    for part in PARTS:
        torch.save(small.get_submodule(part), tmp_path / f"{part}_final.pth")
    converted(refused(tmp_path / "student_final.pth", references()), tmp_path, monkeypatch)
    assert_same(load(tmp_path / "efficientad.pth", references()).network, small, measured=False)


def test_objects_in_anomalibs_are_not_opened_and_leaving_them_out_is_explained(
    small: EfficientAd, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = anomalib(small)
    content["hyper_parameters"]["model_size"] = Path("small")  # theirs is an enumeration
    text = refused(save(content, "model.ckpt"))
    assert "holds more than tensors, which is never opened here" in text
    converted(text, tmp_path, monkeypatch)
    assert_same(load(tmp_path / "efficientad.ckpt").network, small)


# Teachers


@pytest.mark.parametrize("size", ["small", "medium"])
def test_teachers_in_every_form(make: Any, size: str, save: Any) -> None:
    network = make(size)
    state = network.teacher.state_dict()
    table = {
        f"{name}.{kind}": f"conv{n}.{kind}" for n, name in enumerate(NAMES[size], 1) for kind in ("weight", "bias")
    }
    renamed = {table[name]: value for name, value in state.items()}
    forms: list[Any] = [state, renamed, {"state_dict": state}, own(network), anomalib(network), {"model": renamed}]
    for content in forms:
        teacher = load_teacher(save(content))
        assert (teacher.size, teacher.width, teacher.channels) == (size, 4, 6)
        assert all(torch.equal(teacher.tensors[name], value) for name, value in state.items())


def test_a_file_that_is_no_teacher(small: EfficientAd, save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in ({"weight": torch.zeros(1)}, small.autoencoder.state_dict()):
        with pytest.raises(CheckpointError, match=r"teacher .*one\.pth: "):
            load_teacher(save(content))
    path = save(small.teacher, "teacher_final.pth")
    with pytest.raises(CheckpointError, match="a whole module, pickled") as caught:
        load_teacher(path)
    converted(str(caught.value), path.parent, monkeypatch)
    assert load_teacher(path.parent / "teacher.pth").channels == 6
