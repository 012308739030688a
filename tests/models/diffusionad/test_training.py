"""Training DiffusionAD as a whole on a small data set: the run, what interrupts it, its samples, what it refuses."""

from __future__ import annotations

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
from edge_ad.errors import ConfigError
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.metrics.ranking import auroc
from edge_ad.models.diffusionad.config import DiffusionAdConfig
from edge_ad.models.diffusionad.losses import noise_loss
from edge_ad.models.diffusionad.network import DiffusionAd, initialise
from edge_ad.models.diffusionad.schedule import linear_schedule
from edge_ad.models.diffusionad.training.options import DiffusionAdTrainOptions
from edge_ad.models.diffusionad.training.samples import Samples
from edge_ad.models.progress import Progress
from edge_ad.models.synthesis.textures import ProceduralTextures
from edge_ad.models.synthesis.tiles import shuffled_grid
from edge_ad.models.training.overlaid import OverlaidSample
from edge_ad.training_run import RunRecord, read_run

Train = Callable[..., RunRecord]
TENSORS = 1000  # of two networks and the moments of two Adams


@pytest.fixture(scope="module")
def run(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs. Do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder)
    return folder


def test_a_run_is_complete(run: Path) -> None:
    record = read_run(run)
    assert (record.status, record.family, record.epochs_done) == ("finished", "diffusionad", 2)
    assert record.best is not None and "AUROC" in record.best.rule
    data = torch.load(run / str(record.checkpoint), weights_only=True)
    assert set(data) == {"n_epoch", "unet_model_state_dict", "seg_model_state_dict", "args"}
    assert data["n_epoch"] == record.best.epoch + 1
    assert (data["args"]["img_size"], data["args"]["groups"]) == (64, 4)


def test_an_interrupted_run_ends_as_if_it_had_not_been(train: Train, run: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", progress=interrupted_in(3))
    assert (read_run(tmp_path / "run").status, read_run(tmp_path / "run").epochs_done) == ("running", 1)
    train(tmp_path / "run", resume=True)
    assert_same_run(run, tmp_path / "run", tensors=TENSORS)


def test_export_needs_nothing_else_and_ranks_as_training_said(
    run: Path, parts: Path, tmp_path: Path, engine_cache: Path
) -> None:
    said: list[str] = []
    export_bundle(export_options({"checkpoint": run, "output": tmp_path / "b.edgead"}, "test"), said.append)
    assert [line for line in said if line.startswith("note")] == []
    manifest = Bundle.read(tmp_path / "b.edgead").manifest
    assert manifest.model.family == "diffusionad" and manifest.model.config["groups"] == 4
    assert (manifest.postprocess.score, manifest.postprocess.top_pixels) == ("top_mean", 50)
    scores, samples = [], open_dataset(parts).test
    with edge_ad.open(tmp_path / "b.edgead", engine_cache=engine_cache) as detector:
        for sample in samples:
            with Image.open(sample.image) as picture:
                scores.append(detector.judge(np.asarray(picture.convert("RGB"))).score)
    best = read_run(run).best
    assert best is not None
    assert auroc(scores, [sample.anomalous for sample in samples]) == best.image_auroc


def test_noise_is_learned(train: Train, tmp_path: Path) -> None:
    """Predicting none has a loss of 2, to 0.01 over so many numbers; 16 steps bring it well below (measured: 1.70)."""
    train(tmp_path / "run", clean_share=1.0, epochs=4, epoch_images=12, eval_every=0, select="last")
    last = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1].split(",")
    head = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert float(last[head.index("loss_noise")]) < 1.9
    assert float(last[head.index("loss_focal")]) < 0.5


def test_a_width_that_forgets_the_time_step_is_warned_of(train: Train, tmp_path: Path) -> None:
    said: list[str] = []
    told = {"epochs": 1, "eval_every": 0, "epoch_images": 3}
    train(tmp_path / "run", progress=Progress(say=said.append), groups=8, **told)
    assert any(line.startswith("warning: ") and "time step" in line and "--groups" in line for line in said)
    train(tmp_path / "run", progress=Progress(say=said.append), force=True, groups=4, **told)
    assert sum("time step" in line for line in said) == 1


@pytest.mark.parametrize("groups", [8, 4])
def test_that_warning_is_true(groups: int) -> None:
    """With one channel a group, the embedding of a block has no gradient; with two it has."""
    torch.manual_seed(0)
    network = DiffusionAd(DiffusionAdConfig(8, (1, 2), (2,), 4, groups=groups)).double()
    assert network.config.blind == (groups == 8)
    noisy, steps = torch.rand(2, 3, 32, 32).double(), torch.tensor([100, 700])
    network.unet(noisy, steps).square().mean().backward()
    gradient = network.unet.down[1][0].embed_layers[1].weight.grad  # type: ignore[index]
    assert (float(gradient.abs().max()) < 1e-12) == (groups == 8)


def test_networks_begin_with_no_noise_at_all() -> None:
    network = DiffusionAd(DiffusionAdConfig(8, (1, 2), (2,), 4, groups=4))
    initialise(network)
    image, steps = torch.rand(2, 3, 32, 32), (torch.tensor([1, 2]), torch.tensor([300, 400]))
    noises = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    found = network.denoised(image, noises, steps, linear_schedule(), 1.0)
    assert not found.normal.any() and not found.noisier.any()
    normal = torch.tensor([True, False])
    wanted = float((noises[0][0] ** 2).mean() + (noises[1][0] ** 2).mean())
    assert noise_loss(found, noises, normal).item() == pytest.approx(wanted, rel=1e-6)
    assert noise_loss(found, noises, torch.tensor([False, False])).item() == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"groups": 3}, "base_channels: wanted a multiple of the 3 groups"),
        ({"base_channels": 9, "groups": 3, "num_heads": 3}, "base_channels: wanted an even number"),
        ({"num_heads": 3}, "num_heads: wanted a divisor"),
        ({"normal_t": 500}, "normal_t: wanted a time step before noisier_t"),
        ({"imgsz": 32}, "imgsz: wanted more than 32x32"),
        ({"imgsz": 48}, "multiples of 32"),
        ({"beta_range": "0.8,0.2"}, "beta_range: wanted the smaller first"),
    ],
)
def test_what_is_refused(train: Train, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


# Samples


class OneObject:
    """A picture of two halves, of which the right one is the object."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        picture = np.random.default_rng(0).integers(60, 90, (64, 64, 3)).astype(np.uint8)
        foreground = np.zeros((64, 64), np.bool_)
        foreground[:, 32:] = True
        return type("Good", (), {"image_hwc": picture, "foreground": foreground})


def drawn(count: int = 200, **changes: Any) -> list[OverlaidSample]:
    told = {"data": "x", "output": "y", "imgsz": 64, "epoch_images": count, "batch": 50, **changes}
    options: DiffusionAdTrainOptions = DiffusionAdTrainOptions.checked(told, "test")
    samples = Samples(OneObject(), ProceduralTextures(), options)  # type: ignore[arg-type]
    return [sample for batch in samples(0) for sample in batch]


def test_something_is_laid_over_inside_of_the_object_alone() -> None:
    samples = drawn(clean_share=0.5)
    masks = np.array([sample.mask for sample in samples])
    assert 0.4 * 200 < masks.any((1, 2)).sum() < 0.6 * 200, "a mask that comes out empty is drawn again"
    assert not masks[:, :, :32].any()
    for sample in samples:
        assert np.array_equal(sample.image_hwc[~sample.mask], sample.augmented_hwc[~sample.mask])


def test_what_is_laid_over_an_object_is_half_the_time_its_own_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    whole = ProceduralTextures.sample

    def sample(self: ProceduralTextures, *given: Any) -> Any:
        asked.append("texture")
        return whole(self, *given)

    monkeypatch.setattr(ProceduralTextures, "sample", sample)
    drawn(100, clean_share=0.0, surface="object")
    assert 30 < len(asked) < 70
    asked.clear()
    drawn(100, clean_share=0.0, surface="texture")
    assert len(asked) == 100


def test_a_last_batch_that_is_not_full_is_left_out_but_where_it_is_the_only_one() -> None:
    assert len(drawn(120)) == 100 and len(drawn(20)) == 20


def test_a_shuffled_grid_moves_whole_rows_and_columns() -> None:
    size = 24
    y, x = np.mgrid[:size, :size]
    picture = np.stack([y, x, 0 * y], axis=2).astype(np.uint8)
    moved = shuffled_grid(picture, np.random.default_rng(1))
    rows, columns = moved[:, 0, 0].astype(int), moved[0, :, 1].astype(int)
    assert np.array_equal(moved, picture[rows][:, columns])
    assert sorted(rows) == sorted(columns) == list(range(size)) and not np.array_equal(rows, np.arange(size))
    cells = columns[::3] // 3
    assert set(cells[::2]) == {0, 2, 4, 6} and not np.array_equal(cells, np.arange(8))
    assert shuffled_grid(picture[:23, :21], np.random.default_rng(1)).shape == (23, 21, 3)
