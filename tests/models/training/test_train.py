"""Training as a whole on a small data set: what a run holds, which epoch is kept, what the seed decides."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.models.glass.checkpoint import load_glass
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training import trainer as trainer_module
from edge_ad.models.glass.training.objective import StepLosses
from edge_ad.models.glass.training.step import fast_step
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.options import HeadOptions
from edge_ad.models.progress import Progress
from edge_ad.models.training.labelled import LabelledPictures, Standing
from edge_ad.training_run import RunRecord, read_run

Train = Callable[..., RunRecord]
Fingerprint = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def run(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs. Do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder)
    return folder


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_complete(run: Path) -> None:
    record = read_run(run)
    assert record.status == "finished"
    assert record.epochs_done == 3
    assert record.best is not None and record.checkpoint == f"ckpt_best_{record.best.epoch}.pth"
    folders = {"tensorboard", "samples"}
    files = {"run.yaml", "backbone.pth", "state.pt", "metrics.csv", record.checkpoint}
    assert {entry.name for entry in run.iterdir()} == folders | files
    assert record.facts["dataset"] == {"name": "disc", "layout": "mvtec", "good": 7, "test": 6}
    assert record.facts["hypothesis"] == "manifold"
    assert "drawn patterns" in record.facts["textures"]
    assert record.facts["backbone_weights"].startswith("file, SHA-256 ")
    assert torch.__version__.startswith(record.tools["torch"])


def test_metrics_say_what_the_record_says(run: Path) -> None:
    record, table = read_run(run), rows(run)
    assert [row["epoch"] for row in table] == ["0", "1", "2"]
    for row in table:
        values = {name: float(value) for name, value in row.items()}
        assert values["loss"] == pytest.approx(sum(values[f"loss_{part}"] for part in ("normal", "gas", "las")))
        assert all(0 <= values[name] <= 1 for name in ("normal_right", "anomalous_right", "image_auroc", "pixel_auroc"))
    best = record.best
    assert best is not None
    sums = [float(row["image_auroc"]) + float(row["pixel_auroc"]) for row in table]
    assert best.epoch == int(np.argmax(sums))
    kept = table[best.epoch]
    assert (best.loss, best.image_auroc) == (float(kept["loss"]), float(kept["image_auroc"]))
    assert "AUROC" in best.rule


def test_tensorboard_holds_the_same_numbers(run: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    (file,) = (run / "tensorboard").iterdir()
    data, found = file.read_bytes(), {}
    while data:  # length (8 bytes), its checksum (4), an event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    assert len(found) == 3 * 8
    for row in rows(run):
        for name in row.keys() - {"epoch"}:
            assert found[name, int(row["epoch"])] == pytest.approx(float(row[name]), rel=1e-6)


def test_samples_show_good_overlaid_and_mask(run: Path) -> None:
    files = sorted((run / "samples").iterdir())
    assert [file.name for file in files] == [f"{number}.jpg" for number in range(7)]
    for file in files:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        good, overlaid, mask = np.split(pixels, 3, axis=1)
        assert good.shape == (64, 64, 3)
        white = mask.mean(axis=2) > 128
        assert white.any()
        apart = np.abs(good - overlaid).mean(axis=2)
        if (~white).any():
            assert apart[white].mean() > apart[~white].mean(), "the overlay lies where the mask is white"


def test_the_checkpoint_is_in_the_official_format(run: Path) -> None:
    data = torch.load(run / str(read_run(run).checkpoint), weights_only=True)
    assert set(data) == {"discriminator", "pre_projection"}
    assert {name: tuple(value.shape) for name, value in data["pre_projection"].items()} == {
        "layers.0fc.weight": (48, 48),
        "layers.0fc.bias": (48,),
    }
    assert {name: tuple(value.shape) for name, value in data["discriminator"].items()} == {
        "body.block1.0.weight": (32, 48),
        "body.block1.0.bias": (32,),
        "body.block1.1.weight": (32,),
        "body.block1.1.bias": (32,),
        "body.block1.1.running_mean": (32,),
        "body.block1.1.running_var": (32,),
        "body.block1.1.num_batches_tracked": (),
        "tail.0.weight": (1, 32),
    }
    loaded = load_glass(
        run / str(read_run(run).checkpoint),
        HeadOptions(
            backbone="resnet18",
            backbone_weights=run / "backbone.pth",
            layers=("layer1", "layer2"),
            pretrain_embed_dim=48,
        ),
    )
    assert loaded.notes == ()


def test_a_deeper_discriminator_is_exported_too(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "run", discriminator_layers=3, whiten=0.1, epochs=1, eval_every=0)
    data = torch.load(tmp_path / "run" / "ckpt_best_0.pth", weights_only=True)
    assert "body.block2.1.running_var" in data["discriminator"]
    export_bundle(export_options({"checkpoint": tmp_path / "run", "output": tmp_path / "b"}, "test"))


def test_export_needs_no_other_option(run: Path, parts: Path, tmp_path: Path, engine_cache: Path) -> None:
    exported = export_bundle(export_options({"checkpoint": run, "output": tmp_path / "b.edgead"}, "test"))
    manifest = Bundle.read(tmp_path / "b.edgead").manifest
    assert manifest.preprocess.size_hw == (64, 64)
    assert manifest.model.config["layers"] == ["layer1", "layer2"]
    assert exported.path == tmp_path / "b.edgead"
    with edge_ad.open(tmp_path / "b.edgead", engine_cache=engine_cache) as detector:
        scores = {
            kind: [
                detector.judge(np.asarray(Image.open(file))).score for file in sorted((parts / "test" / kind).iterdir())
            ]
            for kind in ("good", "blot")
        }
    best = read_run(run).best
    assert best is not None
    pairs = [(bad > good) + (bad == good) / 2 for bad in scores["blot"] for good in scores["good"]]
    assert np.mean(pairs) == pytest.approx(best.image_auroc), "the bundle ranks as training said"


def test_the_command_line_may_differ_from_the_run(run: Path, tmp_path: Path) -> None:
    options = export_options({"checkpoint": run, "output": tmp_path / "b"}, "test", {"score": "patch_max", "opset": 13})
    assert (options.score, options.opset, options.imgsz) == ("patch_max", 13, (64, 64))
    assert options.network.backbone_weights == run / "backbone.pth"


# Which epoch


class Scripted:
    """Stands for labelled pictures and the step: results by epoch as written down."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, standings: list[Any], losses: list[float] | None = None
    ) -> None:
        self.looked: list[int] = []
        self.standings = iter(standings)
        self.epoch = -1

        def step(*_: Any, **given: Any) -> StepLosses:
            return StepLosses(losses[self.epoch] if losses else 1.0, 0.0, 0.0, 1.0, 1.0)

        def look(*_: Any) -> Standing:
            self.looked.append(self.epoch)
            return Standing(*next(self.standings))

        order = trainer_module.Batches.__call__

        def count(batches: Any, epoch: int) -> Any:
            self.epoch = epoch
            return order(batches, epoch)

        monkeypatch.setattr(trainer_module, "fast_step", step)
        monkeypatch.setattr(LabelledPictures, "ranked", look)
        monkeypatch.setattr(trainer_module.Batches, "__call__", count)


def best_of(record: RunRecord) -> tuple[int, Any, Any]:
    assert record.best is not None
    assert record.checkpoint == f"ckpt_best_{record.best.epoch}.pth"
    return record.best.epoch, record.best.image_auroc, record.best.pixel_auroc


def test_the_best_epoch_by_labels_is_kept(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch, [(0.6, 0.5), (0.8, 0.6), (0.7, 0.7), (0.5, 0.8)])
    assert best_of(train(tmp_path / "run", epochs=4)) == (1, 0.8, 0.6)  # the first of equal sums
    assert [path.name for path in (tmp_path / "run").glob("*.pth") if "best" in path.name] == ["ckpt_best_1.pth"]


def test_labels_without_masks_choose_by_images(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch, [(0.6, None), (0.5, None), (0.8, None)])
    assert best_of(train(tmp_path / "run")) == (2, 0.8, None)


def test_without_labels_the_smallest_loss(
    train: Train, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch, [], [3.0, 1.0, 2.0])
    record = train(tmp_path / "run", data=None, good=parts / "train" / "good")
    assert best_of(record) == (1, None, None)
    assert record.best is not None and record.best.loss == 1.0 and "loss" in record.best.rule


def test_select_last(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch, [(0.9, 0.9), (0.5, 0.5), (0.4, 0.3)])
    record = train(tmp_path / "run", select="last")
    assert best_of(record) == (2, 0.4, 0.3)
    assert record.best is not None and record.best.rule == "the last epoch"
    assert len(list((tmp_path / "run").glob("ckpt_best_*"))) == 1


def test_looks_every_few_epochs_and_after_the_last(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(monkeypatch, [(0.6, 0.6), (0.5, 0.5), (0.4, 0.4)], [1.0] * 7)
    assert best_of(train(tmp_path / "run", epochs=7, eval_every=3)) == (2, 0.6, 0.6)
    assert script.looked == [2, 5, 6]
    assert [row["image_auroc"] for row in rows(tmp_path / "run")] == ["", "", "0.6", "", "", "0.5", "0.4"]


def test_early_stopping(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    Scripted(monkeypatch, [(0.6, 0.6), (0.7, 0.7), (0.6, 0.6), (0.5, 0.5), (0.9, 0.9)])
    record = train(tmp_path / "run", epochs=5, patience=2, progress=Progress(say=said.append))
    assert best_of(record) == (1, 0.7, 0.7)
    assert (record.status, record.epochs_done) == ("finished", 4)
    assert "no better result for 2 epochs: stopped after epoch 3" in said


# Seeds


def test_seeds_reproduce(train: Train, run: Path, tmp_path: Path, fingerprint: Fingerprint) -> None:
    torch.manual_seed(99)
    np.random.seed(99)
    train(tmp_path / "again")
    assert fingerprint(tmp_path / "again") == fingerprint(run)
    train(tmp_path / "other", seed=1)
    assert fingerprint(tmp_path / "other")["metrics.csv"] != fingerprint(run)["metrics.csv"]


def test_training_changes_the_head_and_nothing_else(run: Path, tiny_checkpoint: tuple[Path, Path]) -> None:
    before, after = (torch.load(path, weights_only=True) for path in (tiny_checkpoint[1], run / "backbone.pth"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.manual_seed(0)
    fresh = Glass(HeadConfig("resnet18", ("layer1", "layer2"), 48, 48, 32))
    trained = torch.load(run / str(read_run(run).checkpoint), weights_only=True)
    for name, value in fresh.discriminator.named_parameters():
        assert not torch.equal(value, trained["discriminator"][name]), name


def test_the_size_of_the_caches_changes_nothing(
    train: Train, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures and features that do not fit into memory are computed again; the rest of rounding is a batch's."""
    from edge_ad.models.patch_head import frozen
    from edge_ad.models.patch_head.training import trainer as head_trainer
    from edge_ad.models.training import session

    class SmallCache(frozen.TapCache):
        def __init__(self, taps: Any, pictures: Any, batch: int, cache_bytes: int) -> None:
            super().__init__(taps, pictures, batch, 0)

    class FewPictures(session.GoodPictures):
        def __init__(self, samples: Any, spec: Any, foreground: Any, cache_bytes: int, *rest: Any) -> None:
            super().__init__(samples, spec, foreground, 0, *rest)

    monkeypatch.setattr(frozen, "TapCache", SmallCache)
    monkeypatch.setattr(head_trainer, "TapCache", SmallCache)
    monkeypatch.setattr(session, "GoodPictures", FewPictures)
    train(tmp_path / "small")
    for small, large in zip(rows(tmp_path / "small"), rows(run), strict=True):
        assert float(small["loss"]) == pytest.approx(float(large["loss"]), abs=1e-4)


def test_a_cosine_schedule_ends_slowly(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []

    def step(network: Any, objective: Any, optimizers: Any, **given: Any) -> StepLosses:
        rates.append([part.param_groups[0]["lr"] for part in optimizers.parts])
        return fast_step(network, objective, optimizers, **given)

    monkeypatch.setattr(trainer_module, "fast_step", step)
    train(tmp_path / "cosine", schedule="cosine", eval_every=0)
    wanted = 1e-3 * (1 + np.cos(np.pi * np.arange(9) / 9)) / 2
    np.testing.assert_allclose(rates, np.stack([wanted, 2 * wanted], axis=1), rtol=1e-12)
    rates.clear()
    train(tmp_path / "constant", eval_every=0)
    np.testing.assert_allclose(rates, [[1e-3, 2e-3]] * 9)


def test_the_step_gets_what_belongs_together(
    train: Train, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings in the order of the batch's pictures, patches in rows, the centre of all good pictures."""
    seen: list[dict[str, Any]] = []

    def step(network: Any, objective: Any, optimizers: Any, **given: Any) -> StepLosses:
        seen.append({"objective": objective, "adaptor": [p.clone() for p in network.adaptor.parameters()], **given})
        return StepLosses(1.0, 1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(trainer_module, "fast_step", step)
    record = train(tmp_path / "run", hypothesis="hypersphere", epochs=1, eval_every=0, whiten=0.5, radius_quantile=0.6)
    network = load_glass(
        tmp_path / "run" / str(record.checkpoint),
        HeadOptions(
            backbone="resnet18",
            backbone_weights=tmp_path / "run" / "backbone.pth",
            layers=("layer1", "layer2"),
            pretrain_embed_dim=48,
        ),
    ).network
    files = sorted((parts / "train" / "good").iterdir())
    pictures = np.stack([np.asarray(Image.open(file)) for file in files])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    image = torch.from_numpy(((pictures / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        embedding = network.embed(image)[0].view(7, 256, 48)
        center = network.adaptor(embedding.flatten(0, 1)).view(7, 256, 48).mean(0)
    shown = torch.cat([given["normal_embedding"] for given in seen]).view(7, 256, 48)
    distances = torch.cdist(shown.flatten(1), embedding.flatten(1))
    assert sorted(distances.argmin(1).tolist()) == list(range(7))
    assert float(distances.min(1).values.max()) < 1e-3 * float(embedding.flatten(1).norm(dim=1).mean())
    for given in seen:
        assert given["objective"].hypothesis == "hypersphere" and given["objective"].radius_quantile == 0.6
        torch.testing.assert_close(given["center"], center, rtol=1e-4, atol=1e-4)
        apart = (given["normal_embedding"] - given["local_embedding"]).norm(dim=1)
        anomalous = given["anomalous"]
        assert float(apart[anomalous].mean()) > float(apart[~anomalous].mean())
        assert given["noise"].shape == given["normal_embedding"].shape


@pytest.mark.parametrize("hypothesis", ["manifold", "hypersphere"])
def test_what_goes_beyond_the_paper(train: Train, tmp_path: Path, fingerprint: Fingerprint, hypothesis: str) -> None:
    """A frozen adaptor stays the whitening, pictures without textures train, and all of it can be resumed."""
    options = {
        **{"whiten": 0.1, "freeze_adaptor": True, "overlay_share": 0.0, "jitter_std": 0.1, "noise_spread": 1.0},
        **{"hypothesis": hypothesis, "eval_every": 0, "select": "last"},
    }
    left = iter(range(4))

    def stop(text: str) -> None:
        if text.startswith("epoch") and next(left, None) is None:
            raise KeyboardInterrupt

    adaptors = []
    for epochs in (1, 3):
        record = train(tmp_path / f"run{epochs}", epochs=epochs, **options)
        checkpoint = torch.load(tmp_path / f"run{epochs}" / str(record.checkpoint), weights_only=True)
        adaptors.append(checkpoint["pre_projection"])
    assert all(torch.equal(adaptors[0][name], adaptors[1][name]) for name in adaptors[0])
    assert {row["loss"] != "" and np.isfinite(float(row["loss"])) for row in rows(tmp_path / "run3")} == {True}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", progress=Progress(step=stop), **options)
    train(tmp_path / "resumed", resume=True, **options)
    assert fingerprint(tmp_path / "resumed") == fingerprint(tmp_path / "run3")


def test_auto_chooses_and_says_so(train: Train, tmp_path: Path) -> None:
    said: list[str] = []
    record = train(tmp_path / "run", hypothesis="auto", epochs=1, eval_every=0, progress=Progress(say=said.append))
    (line,) = [line for line in said if line.startswith("hypothesis: ")]
    assert record.facts["hypothesis"] in line and "density" in line


def test_a_run_may_be_evaluated_as_it_is_told(run: Path) -> None:
    """What `edge-ad eval` and `edge-ad export` read is in the record, and nothing of the training machine."""
    record = read_run(run)
    assert set(record.export) == {
        *("backbone", "layers", "pretrain_embed_dim", "embed_dim", "hidden_dim"),
        *("imgsz", "resize", "resize_mode", "filter", "score"),
    }
    assert not any("/" in str(value) for value in replace(record).export.values())
