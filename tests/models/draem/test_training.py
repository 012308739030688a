"""Training DRAEM as a whole on a small data set: the run, its weights, what interrupts it, what it refuses."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import assert_same_run, interrupted_in

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.datasets import open_dataset
from edge_ad.errors import ConfigError, TrainingError
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.metrics.ranking import auroc
from edge_ad.models import model_family
from edge_ad.models.draem.checkpoint import load_draem
from edge_ad.models.draem.options import DraemOptions
from edge_ad.models.draem.training import trainer as trainer_module
from edge_ad.models.draem.training.options import DraemTrainOptions
from edge_ad.models.draem.training.samples import Samples, turned
from edge_ad.models.draem.training.trainer import DraemTrainer
from edge_ad.models.progress import Progress
from edge_ad.models.synthesis.textures import ProceduralTextures
from edge_ad.models.training.overlaid import OverlaidSample as Sample
from edge_ad.training_run import RunRecord, read_run

Train = Callable[..., RunRecord]
TENSORS = 700  # of two networks and Adam's two moments


@pytest.fixture(scope="module")
def run(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs. Do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_complete(run: Path) -> None:
    record = read_run(run)
    assert (record.status, record.family, record.epochs_done) == ("finished", "draem", 3)
    assert record.best is not None and record.checkpoint == f"ckpt_best_{record.best.epoch}.pth"
    files = {"run.yaml", "state.pt", "metrics.csv", record.checkpoint, "tensorboard", "samples"}
    assert {entry.name for entry in run.iterdir()} == files, "there is no backbone that is frozen"
    assert record.facts["dataset"] == {"name": "disc", "layout": "mvtec", "good": 7, "test": 6}
    assert "drawn patterns" in record.facts["textures"]


def test_metrics_say_what_the_record_says(run: Path) -> None:
    """The epoch that is kept is the best one by labels."""
    table, best = rows(run), read_run(run).best
    assert best is not None and "AUROC" in best.rule
    assert [row["epoch"] for row in table] == ["0", "1", "2"]
    for row in table:
        assert float(row["loss"]) == pytest.approx(sum(float(row[f"loss_{part}"]) for part in ("l2", "ssim", "focal")))
    sums = [float(row["image_auroc"]) + float(row["pixel_auroc"]) for row in table]
    assert best.epoch == int(np.argmax(sums))
    assert (best.loss, best.image_auroc) == tuple(float(table[best.epoch][key]) for key in ("loss", "image_auroc"))


def test_the_checkpoint_is_our_own_single_file(run: Path) -> None:
    path = run / str(read_run(run).checkpoint)
    data = torch.load(path, weights_only=True)
    assert set(data) == {"reconstruction", "segmentation", "color_order"} and data["color_order"] == "rgb"
    loaded = load_draem(path, DraemOptions())
    assert loaded.config == {"base_width": 4, "base_channels": 4, "color_order": "rgb"} and loaded.notes == ()


def test_samples_show_a_texture_where_the_mask_is_white(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "run", imgsz=64, epochs=1, clean_share=0.0, beta_range="0,0.1", eval_every=0)
    files = sorted((tmp_path / "run" / "samples").iterdir())
    assert 3 <= len(files) <= 7
    inside = []
    for file in files:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert pixels.shape == (64, 192, 3)
        good, augmented, mask = pixels[:, :64], pixels[:, 64:128], pixels[:, 128:].mean(2)
        different = np.abs(good - augmented).mean(2)
        assert (mask > 200).any()
        inside.append(different[mask > 200].mean())
        far = torch.nn.functional.max_pool2d(torch.from_numpy(mask)[None], 17, 1, 8)[0].numpy() < 60  # JPEG's blocks
        assert not far.any() or different[far].mean() < 4
    assert np.mean(inside) > 20


def test_the_seed_decides(train: Train, run: Path, tmp_path: Path) -> None:
    train(tmp_path / "again")
    assert_same_run(run, tmp_path / "again", tensors=TENSORS)
    train(tmp_path / "other", seed=1, epochs=1)
    one, other = rows(run)[0], rows(tmp_path / "other")[0]
    assert one["loss"] != other["loss"]


@pytest.mark.parametrize("step", [2, 5])
def test_an_interrupted_run_ends_as_if_it_had_not_been(train: Train, run: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", progress=interrupted_in(step))
    assert read_run(tmp_path / "run").status == "running"
    assert read_run(tmp_path / "run").epochs_done == (step - 1) // 3
    train(tmp_path / "run", resume=True)
    assert_same_run(run, tmp_path / "run", tensors=TENSORS)


def test_export_needs_nothing_else_and_ranks_as_training_said(
    run: Path, parts: Path, tmp_path: Path, engine_cache: Path
) -> None:
    said: list[str] = []
    export_bundle(export_options({"checkpoint": run, "output": tmp_path / "b.edgead"}, "test"), said.append)
    assert [line for line in said if line.startswith("note")] == []
    manifest = Bundle.read(tmp_path / "b.edgead").manifest
    assert manifest.model.family == "draem" and manifest.model.config["color_order"] == "rgb"
    assert manifest.preprocess.size_hw == (32, 64)
    assert (manifest.preprocess.filter, manifest.preprocess.channel_order) == ("opencv_bilinear", "rgb")
    assert (manifest.postprocess.smoothing, manifest.postprocess.size) == ("box", 21)
    with edge_ad.open(tmp_path / "b.edgead", engine_cache=engine_cache) as detector:
        samples = open_dataset(parts).test
        scores = []
        for sample in samples:
            with Image.open(sample.image) as picture:
                scores.append(detector.judge(np.asarray(picture.convert("RGB"))).score)
    best = read_run(run).best
    assert best is not None
    assert auroc(scores, [sample.anomalous for sample in samples]) == best.image_auroc


def test_official_weights_are_recorded_as_blue_first(run: Path, tmp_path: Path) -> None:
    data = torch.load(run / str(read_run(run).checkpoint), weights_only=True)
    torch.save({**data["reconstruction"], **data["segmentation"]}, tmp_path / "bare.pth")
    told = {"checkpoint": tmp_path / "bare.pth", "output": tmp_path / "b.edgead", "imgsz": 32}
    export_bundle(export_options(told, "test"))
    manifest = Bundle.read(tmp_path / "b.edgead").manifest
    assert manifest.preprocess.channel_order == manifest.model.config["color_order"] == "bgr"


@pytest.mark.parametrize("imgsz", [48, "64x40", 16])
def test_a_size_that_is_no_multiple_is_refused_before_a_file_is_read(
    train: Train, tmp_path: Path, imgsz: int | str
) -> None:
    with pytest.raises(ConfigError, match=r"imgsz: .*multiples of 32"):
        train(tmp_path / "run", imgsz=imgsz, data=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"imgsz: .*multiples of 32"):
        export_options({"checkpoint": "nowhere", "family": "draem", "imgsz": imgsz, "output": "b"}, "test")


def test_pictures_of_one_innermost_pixel(train: Train, tmp_path: Path) -> None:
    """A batch of one picture, as the last of an epoch may be, would give its normalisation one value to learn from."""
    with pytest.raises(ConfigError, match="imgsz: wanted more than 32x32"):
        train(tmp_path / "run", imgsz=32)
    assert train(tmp_path / "run", epochs=1, batch=1, eval_every=0, epoch_images=1).status == "finished"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    count, whole = iter(range(100)), trainer_module.draem_losses

    def spoilt(*given: Any) -> Any:
        l2, ssim, focal = whole(*given)
        return (l2, ssim, focal + value) if next(count) == 4 else (l2, ssim, focal)

    monkeypatch.setattr(trainer_module, "draem_losses", spoilt)
    with pytest.raises(TrainingError, match=rf"epoch 1, step 1 .*focal {value}.*--learning-rate"):
        train(tmp_path / "run")
    record = read_run(tmp_path / "run")
    assert (record.status, record.epochs_done, record.checkpoint) == ("running", 1, "ckpt_best_0.pth")


def test_a_learning_rate_far_too_high(train: Train, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"epoch [012]") as caught:
        train(tmp_path / "run", learning_rate=1e30)
    assert caught.value.exit_code == 12 and "\n" not in str(caught.value)


# Samples


class OneGrey:
    """Pictures of one level each."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return type("Good", (), {"image_hwc": np.full((64, 64, 3), 100 + index, np.uint8)})


def drawn(count: int = 400, **changes: Any) -> list[Sample]:
    told = {"data": "x", "output": "y", "imgsz": 64, "epoch_images": count, "batch": 50, **changes}
    options: DraemTrainOptions = DraemTrainOptions.checked(told, "test")
    return [sample for batch in Samples(OneGrey(), ProceduralTextures(), options)(0) for sample in batch]  # type: ignore[arg-type]


def test_shares_are_what_was_told() -> None:
    samples = drawn(turn_share=0.3, clean_share=0.5)
    clean = [sample for sample in samples if not sample.mask.any()]
    # Half, and the masks that come out empty.
    assert 0.42 * 400 < len(clean) < 0.65 * 400
    assert all(np.array_equal(sample.image_hwc, sample.augmented_hwc) for sample in clean)
    black = [sample for sample in samples if (sample.image_hwc == 0).any()]
    assert 0.2 * 400 < len(black) < 0.4 * 400, "black comes into turned pictures, on both sides of the loss"
    levels = [int(sample.image_hwc.max()) for sample in samples]
    assert min(levels.count(level) for level in (100, 101, 102)) > 90, "drawn evenly, with replacement"


@pytest.mark.parametrize(("share", "all_clean"), [(1.0, True), (0.0, False)])
def test_all_or_nothing_clean(share: float, all_clean: bool) -> None:
    samples = drawn(40, clean_share=share, turn_share=0.0)
    assert all(not sample.mask.any() for sample in samples) == all_clean
    assert not any((sample.image_hwc == 0).any() for sample in samples)


def test_outside_of_the_mask_nothing_changes() -> None:
    for sample in drawn(30, clean_share=0.0):
        assert np.array_equal(sample.image_hwc[~sample.mask], sample.augmented_hwc[~sample.mask])


def test_a_picture_is_turned_about_its_middle() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(1, 256, (40, 40, 3), np.uint8)
    assert np.array_equal(turned(picture, 0.0), picture)
    assert np.array_equal(turned(picture, 90.0), np.rot90(picture))
    assert np.array_equal(turned(picture, -90.0), np.rot90(picture, -1))
    corner = turned(np.full((40, 40, 3), 200, np.uint8), 45.0)
    assert (corner[0, 0] == 0).all() and (corner[20, 20] == 200).all()


@pytest.mark.parametrize(
    ("schedule", "epoch", "factor"),
    [
        ("steps", 79, 1.0),
        ("steps", 80, 0.2),
        ("steps", 89, 0.2),
        ("steps", 90, 0.04),
        ("constant", 99, 1.0),
        ("cosine", 0, 1.0),
        ("cosine", 50, 0.5),
    ],
)
def test_schedules(schedule: str, epoch: int, factor: float) -> None:
    told = {"data": "x", "output": "y", "epochs": 100, "schedule": schedule, "learning_rate": 0.01}
    network = torch.nn.Linear(1, 1)
    trainer = DraemTrainer(network, None, None, DraemTrainOptions.checked(told, "test"))  # type: ignore[arg-type]
    trainer._set_rate(epoch / 100)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * factor)


def test_options_of_other_families_are_none_of_its_own() -> None:
    with pytest.raises(ConfigError, match="layers"):
        model_family("draem").train({"data": "x", "output": "y", "layers": "a"}, "test", Progress())
    with pytest.raises(ConfigError, match="beta_range: wanted the smaller first"):
        DraemTrainOptions.checked({"data": "x", "output": "y", "beta_range": "0.8,0.1"}, "test")
