"""Training that cannot begin or go on: what is said, and that nothing that was there is lost."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edge_ad.errors import (
    CheckpointError,
    ConfigError,
    EdgeAdError,
    ImageError,
    OutputError,
    SourceError,
    TrainingError,
)
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.models.glass.training import trainer as trainer_module
from edge_ad.models.glass.training.objective import StepLosses
from edge_ad.models.glass.training.step import fast_step
from edge_ad.models.progress import Progress
from edge_ad.training_run import RunRecord, read_run

Train = Callable[..., RunRecord]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(train: Train, tmp_path: Path) -> Callable[..., str]:
    """Train, expect an error, and see that no folder was made."""

    def run(kind: type[EdgeAdError], **changes: Any) -> str:
        with pytest.raises(kind) as caught:
            train(tmp_path / "runs" / "run", **changes)
        assert not (tmp_path / "runs").exists(), "something was left behind"
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


# Pictures


def test_no_good_picture(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no good image" in refused(SourceError, data=None, good=tmp_path / "empty")
    (tmp_path / "mvtec" / "train" / "good").mkdir(parents=True)
    assert "no good image" in refused(SourceError, data=tmp_path / "mvtec")
    assert "does not exist" in refused(SourceError, data=None, good=tmp_path / "nowhere")


def test_good_pictures_that_cannot_be_read(refused: Callable[..., str], own_parts: Path) -> None:
    for path in (own_parts / "train" / "good").iterdir():
        path.write_bytes(b"no picture")
    line = refused(SourceError, data=own_parts)
    assert "no good picture can be read" in line and "0.png" in line


def test_unreadable_pictures_are_left_out_and_said(train: Train, own_parts: Path, tmp_path: Path) -> None:
    (own_parts / "train" / "good" / "2.png").write_bytes(b"no picture")
    (own_parts / "test" / "blot" / "1.png").write_bytes(b"no picture either")
    said: list[str] = []
    record = train(tmp_path / "run", data=own_parts, epochs=1, progress=Progress(say=said.append))
    assert record.facts["dataset"]["good"] == 6
    (note,) = record.facts["notes"]
    assert note.startswith("1 pictures left out") and "2.png" in note
    assert f"note: {note}" in said
    assert any("blot/1.png" in line for line in said)
    assert record.best is not None and record.best.image_auroc is not None


def said_of(train: Train, output: Path, **told: Any) -> list[str]:
    said: list[str] = []
    train(output, epochs=1, progress=Progress(say=said.append), **told)
    return said


def test_one_good_picture_or_the_same_one_again_is_said(train: Train, own_parts: Path, tmp_path: Path) -> None:
    good = sorted((own_parts / "train" / "good").iterdir())
    shutil.copy(good[0], good[1])
    said = said_of(train, tmp_path / "two", data=own_parts)
    assert f"note: 1 of {len(good)} good pictures are the same as others of them" in said
    for path in good[1:]:
        shutil.copy(good[0], path)
    said = said_of(train, tmp_path / "same", data=own_parts)
    assert any(
        line.startswith(f"note: {len(good)} good pictures, all of them the same, are all there") for line in said
    )
    for path in good[1:]:
        path.unlink()
    said = said_of(train, tmp_path / "one", data=own_parts)
    assert any(line.startswith("note: one good picture is all there is to learn from") for line in said)


def test_what_lies_outside_of_the_crop_is_said(train: Train, own_parts: Path, tmp_path: Path) -> None:
    good = sorted((own_parts / "train" / "good").iterdir())
    assert not any("crop" in line for line in said_of(train, tmp_path / "all", data=own_parts))  # control
    with Image.open(good[0]) as picture:
        picture.resize((128, 64)).save(good[0])
    said = said_of(train, tmp_path / "run", data=own_parts)
    (line,) = (line for line in said if "outside of the crop" in line)
    assert line.startswith(
        f"warning: 50% of 1 of {len(good)} good pictures lies outside of the crop and is NOT learned"
    )
    assert "seen of 128x64: x 32..96, y 0..64" in line and "--resize-mode auto" in line
    said = said_of(train, tmp_path / "letterbox", data=own_parts, resize_mode="letterbox")
    assert not any("crop" in line for line in said)


def test_masks_that_cover_nearly_everything_are_said(train: Train, own_parts: Path, tmp_path: Path) -> None:
    mask = np.full((64, 64), 255, np.uint8)
    mask[10:20, 10:20] = 0
    Image.fromarray(mask).save(own_parts / "ground_truth" / "blot" / "1_mask.png")
    (line,) = (line for line in said_of(train, tmp_path / "run", data=own_parts) if "mask" in line)
    assert line.startswith("note: 1 masks cover nearly all of their picture") and "1_mask.png" in line


def test_a_mask_of_another_size(refused: Callable[..., str], own_parts: Path) -> None:
    Image.fromarray(np.zeros((30, 64), np.uint8)).save(own_parts / "ground_truth" / "blot" / "1_mask.png")
    line = refused(ImageError, data=own_parts)
    assert "1_mask.png is 64×30" in line and "64×64" in line


def test_a_texture_folder_without_a_picture(refused: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "textures"
    folder.mkdir()
    (folder / "readme.txt").write_text("none")
    assert "holds no texture" in refused(SourceError, textures=folder)
    (folder / "a.png").write_bytes(b"no picture")
    assert "none of the 1 textures" in refused(SourceError, textures=folder)
    assert "does not exist" in refused(SourceError, textures=tmp_path / "nowhere")


def test_labels_that_choose_nothing_are_said(train: Train, own_parts: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_parts / "test" / "good")
    said: list[str] = []
    record = train(tmp_path / "run", data=own_parts, epochs=1, progress=Progress(say=said.append))
    assert any("all good or all defective" in line for line in said)
    assert record.best is not None and record.best.image_auroc is None and "loss" in record.best.rule


def test_foreground_files_that_lack(refused: Callable[..., str]) -> None:
    assert "7 of 7 good pictures have none" in refused(ConfigError, foreground="files")


@pytest.mark.parametrize("inside", ["run", "deep/run", "."])
def test_a_run_among_the_pictures_it_reads(train: Train, own_parts: Path, tmp_path: Path, inside: str) -> None:
    """Its samples show anomalies, and would be good pictures the next time."""
    good = own_parts / "train" / "good"
    textures = Path(shutil.copytree(good, tmp_path / "textures"))
    for changes in ({"data": None, "good": good}, {"data": good}, {"data": own_parts, "textures": textures}):
        folder = changes.get("textures") or good
        with pytest.raises(ConfigError, match="from which pictures are read"):
            train(folder / inside, **changes)
    assert len(list(good.iterdir())) == 7


def test_a_run_beside_the_pictures_it_reads(train: Train, own_parts: Path) -> None:
    """Control: a category's own folder is a natural place for it."""
    for _ in range(2):
        record = train(own_parts / "run", data=own_parts, epochs=1, eval_every=0, force=True)
        assert record.facts["dataset"]["good"] == 7


# Networks


def test_backbone_weights_that_cannot_be_had(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    line = refused(CheckpointError, backbone_weights=None)
    assert "pretrained weights of 'resnet18' cannot be fetched" in line and "--backbone-weights FILE" in line
    assert "or --preset fast, whose weights come with the extra 'train'" in line
    assert "--preset fast" not in refused(CheckpointError, backbone_weights=None, preset="fast"), "control"
    assert "no such file" in refused(CheckpointError, backbone_weights=tmp_path / "nowhere.pth")
    assert "no package with weights of 'resnet18'" in refused(CheckpointError, backbone_weights="packaged")


def test_a_device_that_is_not_there(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cpu" in refused(ConfigError, device="cuda")


def test_pictures_of_one_patch(refused: Callable[..., str], train: Train, tmp_path: Path) -> None:
    """BatchNorm cannot learn from one value, which the last batch of an epoch may come to."""
    assert "imgsz: one patch is all that 'layer1' has" in refused(ConfigError, imgsz=4)
    assert train(tmp_path / "run", imgsz=8, epochs=1).status == "finished"


# Losses


def with_step(monkeypatch: pytest.MonkeyPatch, at: int, change: Callable[[Any, StepLosses], StepLosses]) -> None:
    """Training's step number `at`, counted over all epochs, as `change` has it."""
    count = iter(range(10_000))

    def step(network: Any, *rest: Any, **given: Any) -> StepLosses:
        losses = fast_step(network, *rest, **given)
        return change(network, losses) if next(count) == at else losses

    monkeypatch.setattr(trainer_module, "fast_step", step)


def assert_exportable(run: Path, bundle: Path) -> None:
    assert export_bundle(export_options({"checkpoint": run, "output": bundle}, "test")).path == bundle


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    with_step(monkeypatch, 4, lambda _, losses: StepLosses(losses.normal, value, losses.las, 1.0, 1.0))
    with pytest.raises(TrainingError) as caught:
        train(tmp_path / "run")
    assert caught.value.exit_code == 12
    line = str(caught.value)
    for words in (f"loss is {value}", "epoch 1, step 1", f"gas {value}", "--learning-rate"):
        assert words in line
    record = read_run(tmp_path / "run")
    assert (record.status, record.epochs_done, record.checkpoint) == ("running", 1, "ckpt_best_0.pth")
    assert_exportable(tmp_path / "run", tmp_path / "b.edgead")


def test_weights_that_are_no_numbers(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the last step is that before its update: it alone does not show what the update did."""

    def spoil(network: Any, losses: StepLosses) -> StepLosses:
        with torch.no_grad():
            network.discriminator.tail[0].weight[0, 3] = math.nan
        return losses

    with_step(monkeypatch, 5, spoil)
    with pytest.raises(TrainingError, match=r"'tail\.0\.weight' are not finite after epoch 1"):
        train(tmp_path / "run", select="last")
    assert read_run(tmp_path / "run").checkpoint == "ckpt_best_0.pth"
    assert_exportable(tmp_path / "run", tmp_path / "b.edgead")


@pytest.mark.parametrize("batch", [3, 100], ids=["several steps", "one step"])
def test_a_learning_rate_far_too_high(train: Train, tmp_path: Path, batch: int) -> None:
    with pytest.raises(TrainingError, match=r"epoch [012]"):
        train(tmp_path / "run", learning_rate=1e30, batch=batch)
    assert read_run(tmp_path / "run").status == "running"


# Folders


@pytest.fixture(scope="module")
def two_epochs(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended. Do not change it."""
    folder = tmp_path_factory.mktemp("two") / "run"
    train(folder, epochs=2)
    return folder


@pytest.fixture
def run(two_epochs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_epochs, tmp_path / "run"))


def test_an_earlier_run_is_replaced_on_demand_only(train: Train, run: Path) -> None:
    before = contents(run)
    with pytest.raises(OutputError, match=r"--resume .*--force"):
        train(run, epochs=1)
    assert contents(run) == before
    (run / "mine.txt").write_text("x")
    record = train(run, epochs=1, eval_every=0, seed=5, force=True)
    assert read_run(run) == record
    assert record.options["seed"] == 5
    assert len((run / "metrics.csv").read_text().splitlines()) == 2
    assert [path.name for path in run.glob("ckpt*")] == ["ckpt_best_0.pth"]
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert (run / "mine.txt").exists(), "what no run wrote is not the run's to delete"


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone_weights": Path("nowhere.pth")},
        {"foreground": "files"},
        {"textures": Path("nowhere")},
        {"data": Path("nowhere")},
        {"imgsz": 8000, "layers": "fc"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_that_cannot_begin_replaces_nothing(train: Train, run: Path, changes: dict[str, Any]) -> None:
    before = contents(run)
    with pytest.raises(EdgeAdError):
        train(run, force=True, **changes)
    assert contents(run) == before


def test_a_folder_of_something_else(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "diary.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(OutputError, match="holds no run"):
            train(folder, force=force)
    assert contents(folder) == {"diary.txt": b"x"}
    with pytest.raises(OutputError, match="is a file"):
        train(folder / "diary.txt")
    with pytest.raises(OutputError, match="cannot be made"):
        train(folder / "diary.txt" / "run")


def test_an_empty_folder_will_do(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert train(tmp_path / "run", epochs=1).status == "finished"
