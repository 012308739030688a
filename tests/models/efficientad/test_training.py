"""Training EfficientAD as a whole with a tiny teacher: the run, its weights, what interrupts it, what it refuses."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import Drawing, assert_same_run, trained, write_data_set

from edge_ad.bundle.bundle import Bundle
from edge_ad.errors import CheckpointError, ConfigError, SourceError, TrainingError
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.models.efficientad.config import EfficientAdConfig
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.efficientad.training import trainer as trainer_module
from edge_ad.models.efficientad.training.objective import greatest, objective
from edge_ad.models.efficientad.training.options import EfficientAdTrainOptions
from edge_ad.models.efficientad.training.samples import jittered, split
from edge_ad.models.efficientad.training.trainer import EfficientAdTrainer
from edge_ad.models.progress import Progress
from edge_ad.training_run import RunRecord, read_run

Train = Callable[..., RunRecord]
TINY = {
    "autoencoder_width": 3,
    "epochs": 2,
    "epoch_steps": 3,
    "batch": 2,
    "learning_rate": 1e-3,
    "eval_every": 1,
    "device": "cpu",
    "cache_mb": 64,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout: waves, on the defective ones a bright blot with its mask. Do not change it."""
    rng, x = np.random.default_rng(8), np.arange(64)

    def draw(defective: bool) -> Drawing:
        wave = 120 + 90 * np.sin(x / 6 + rng.uniform(0, 6)) + rng.normal(0, 1, (64, 64))
        picture, mask = np.repeat(wave[:, :, None], 3, axis=2), np.zeros((64, 64), np.bool_)
        mask[20:44, 20:44] = True
        picture[mask & defective] = (250, 40, 10)
        return picture, mask if defective else None

    counts = {"train/good": 5, "test/good": 2, "test/blot": 2}
    return write_data_set(tmp_path_factory.mktemp("parts") / "disc", "blot", counts, draw)


@pytest.fixture(scope="module")
def teacher(small: EfficientAd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher_small.pth"
    torch.save(small.teacher.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def train(parts: Path, teacher: Path) -> Train:
    """Train into a folder with `TINY`, changed as told."""

    def run(output: Path, *, resume: bool = False, progress: Progress | None = None, **changes: Any) -> RunRecord:
        told = {**TINY, "data": parts, "teacher": teacher, "output": output, **changes}
        return trained("efficientad", told, progress=progress, resume=resume)

    return run


@pytest.fixture(scope="module")
def run(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoint(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / str(read_run(folder).checkpoint), weights_only=True)
    return content


# A run


def test_a_run_is_complete(run: Path, teacher: Path) -> None:
    record = read_run(run)
    assert (record.status, record.family, record.epochs_done) == ("finished", "efficientad", 2)
    files = {"run.yaml", "state.pt", "metrics.csv", "ckpt_best_1.pth", "teacher.pth", "tensorboard"}
    assert {entry.name for entry in run.iterdir()} == files
    facts = record.facts
    assert facts["teacher"].startswith("teacher_small.pth, SHA-256 ") and facts["size"] == "small"
    assert facts["penalty"] == "none" and len(facts["held_out"]) == 1
    table = rows(run)
    assert [row["epoch"] for row in table] == ["0", "1"] and "loss_penalty" not in table[0]
    for row in table:
        parts = sum(float(row[f"loss_{name}"]) for name in ("hard", "autoencoder", "student"))
        assert float(row["loss"]) == pytest.approx(parts)
        assert 0 <= float(row["image_auroc"]) <= 1 and 0 <= float(row["pixel_auroc"]) <= 1


def test_the_teacher_is_not_taught(run: Path, small: EfficientAd) -> None:
    content = checkpoint(run)
    assert all(torch.equal(content["teacher"][name], value) for name, value in small.teacher.state_dict().items())
    assert content["map_padding"] == "after" and content["imgsz"] == [256, 256]
    assert content["quantiles"][0] < content["quantiles"][1] and (content["std"] > 0).all()


def test_the_student_learns(train: Train, tmp_path: Path) -> None:
    """The student alone: in so few steps the autoencoder finds nothing."""
    network = EfficientAd(EfficientAdConfig("small", width=12, channels=6, autoencoder_width=3))
    torch.save(drawn(network.teacher.state_dict()), tmp_path / "teacher.pth")
    told = {"epochs": 3, "epoch_steps": 8, "eval_every": 0, "batch": 1, "learning_rate": 3e-3, "hard_share": 1.0}
    train(tmp_path / "run", teacher=tmp_path / "teacher.pth", **told)
    first, _, last = rows(tmp_path / "run")
    assert float(last["loss_hard"]) < 0.6 * float(first["loss_hard"])


def test_a_run_is_exported_without_options(run: Path, tmp_path: Path) -> None:
    bundle = export_bundle(export_options({"checkpoint": run, "output": tmp_path / "b.edgead"}, "test"))
    manifest = Bundle.read(bundle.path).manifest
    assert manifest.model.family == "efficientad" and manifest.postprocess.frame_map == "anomaly_map"
    assert manifest.model.config["map_padding"] == "after"
    assert manifest.parity is not None and manifest.parity.anomaly_map <= 1e-5


@pytest.mark.parametrize("step", [1, 4])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    train: Train, run: Path, tmp_path: Path, step: int, teacher: Path
) -> None:
    seen: list[str] = []

    def interrupt(text: str) -> None:
        seen.append(text)
        if text.startswith("epoch") and sum(one.startswith("epoch") for one in seen) == step + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", progress=Progress(step=interrupt))
    assert read_run(tmp_path / "run").status == "running"
    train(tmp_path / "run", resume=True)
    assert_same_run(run, tmp_path / "run", tensors=80)


def test_pictures_of_anything(train: Train, pictures: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", penalty=pictures, epochs=1, eval_every=0)
    (row,) = rows(tmp_path / "run")
    assert float(row["loss_penalty"]) > 0
    assert "3 pictures of" in read_run(tmp_path / "run").facts["penalty"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no texture"):
        train(tmp_path / "other", penalty=tmp_path / "empty", epochs=1, eval_every=0)


def test_one_good_picture(train: Train, parts: Path, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "0.png").write_bytes((parts / "train" / "good" / "00.png").read_bytes())
    said: list[str] = []
    train(tmp_path / "run", data=tmp_path / "good", epochs=1, epoch_steps=1, progress=Progress(say=said.append))
    assert any("one good picture is learned from and gives the quantiles" in line for line in said)


# What it refuses


def test_without_a_teacher(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train(tmp_path / "run", teacher=None)
    text = str(caught.value)
    assert "\n" not in text and "teacher: missing; give --teacher FILE" in text
    assert "nelson1425/EfficientAD" in text and "anomalib" in text and not (tmp_path / "run").exists()
    with pytest.raises(CheckpointError, match="no such file"):
        train(tmp_path / "run", teacher=tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"imgsz": 128}, "imgsz: efficientad wants multiples of 4, 256 or more, got 128x128"),
        ({"held_out": 1.0}, "held_out"),
        ({"hard_share": 0.0}, "hard_share"),
        ({"epoch_steps": 0}, "epoch_steps"),
    ],
)
def test_options_that_are_none(train: Train, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        train(tmp_path / "run", **changes)


def test_a_loss_that_is_not_finite(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(*arguments: Any) -> Any:
        losses = objective(*arguments)
        return losses._replace(hard=losses.hard * torch.nan)

    monkeypatch.setattr(trainer_module, "objective", spoilt)
    with pytest.raises(TrainingError, match=r"not finite in epoch 0, step 0 \(hard nan, .*learning-rate"):
        train(tmp_path / "run")
    assert read_run(tmp_path / "run").checkpoint is None


# Its parts


def test_the_objective_is_the_published_one(make: Any) -> None:
    """Losses and gradients against the same written out plainly, in float64; every half computed for all pictures."""
    network = make().double().requires_grad_(True)
    network.teacher.requires_grad_(False)
    network.eval()  # dropout draws
    source = torch.Generator().manual_seed(3)
    image, jitter, other = torch.randn(3, 2, 3, 256, 256, generator=source, dtype=torch.float64)
    taught = network.taught(image)
    found: Any = objective(network, taught, image, jitter, other, 0.001)
    torch.stack(list(found)).sum().backward()
    learned = [*network.student.parameters(), *network.autoencoder.parameters()]
    gradients = [weight.grad.clone() for weight in learned]
    network.zero_grad()

    channels = network.config.channels
    distance = (taught - network.student(image)[:, :channels]) ** 2
    hard = distance[distance >= torch.quantile(distance, 0.999)].mean()
    made, wanted = network.autoencoder(jitter), network.taught(jitter)
    parts = [hard, ((wanted - made) ** 2).mean(), ((made - network.student(jitter)[:, channels:]) ** 2).mean()]
    parts.append((network.student(other)[:, :channels] ** 2).mean())
    torch.stack(parts).sum().backward()
    for got, value in zip(found, parts, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-12, atol=0)
    for weight, got in zip(learned, gradients, strict=True):
        torch.testing.assert_close(got, weight.grad, rtol=1e-9, atol=1e-12)
    without = objective(network, taught, image, jitter, None, 0.001)
    assert without.penalty is None and torch.equal(without.hard, found.hard)


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 3000), share=st.sampled_from([0.001, 0.01, 0.3, 1.0]), seed=st.integers(0, 99))
def test_the_greatest_are_those_above_the_quantile(count: int, share: float, seed: int) -> None:
    values = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wanted = values[values >= torch.quantile(values, 1 - share) - 1e-15]
    assert greatest(values, share).sort().values.tolist() == wanted.sort().values.tolist()


@given(count=st.integers(1, 300), held_out=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_the_split(count: int, held_out: float, seed: int) -> None:
    learned, held = split(count, held_out, seed)
    assert learned and held and (learned, held) == split(count, held_out, seed)
    if count > 1:
        assert sorted([*learned, *held]) == list(range(count))
        assert len(held) in (1, count - 1, count - int((1 - held_out) * count))
    assert len(split(200, 0.1, 0)[1]) == 20


def test_one_change_of_colours_at_a_time() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(40, 200, (16, 16, 3), dtype=np.uint8)
    found = [jittered(image, np.random.default_rng(seed)) for seed in range(30)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in found)
    ratios = [one.astype(float) / image for one in found]
    darker = [ratio for ratio in ratios if np.ptp(ratio) < 0.05]
    assert 3 <= len(darker) <= 20 and all(0.79 <= ratio.mean() <= 1.21 for ratio in darker), "brightness"
    assert np.abs(np.stack(found).astype(int) - image).max() <= 60


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("steps", {0.0: 1.0, 0.949: 1.0, 0.951: 0.1}), ("cosine", {0.0: 1.0, 0.5: 0.5, 1.0: 0.0})],
)
def test_the_rate(schedule: str, rates: dict[float, float], make: Any, tmp_path: Path) -> None:
    values = {"data": tmp_path, "output": tmp_path / "run", "teacher": tmp_path, "schedule": schedule}
    options: EfficientAdTrainOptions = EfficientAdTrainOptions.checked(values, "options")
    assert options.epochs * options.epoch_steps == 70_000 and options.batch == 1
    unused: Any = None
    trainer = EfficientAdTrainer(make(), unused, [], None, options)
    for done, share in rates.items():
        trainer._set_rate(done)
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(share * 1e-4, abs=1e-12)
