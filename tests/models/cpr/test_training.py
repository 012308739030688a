"""Training CPR as a whole on a small data set: what is drawn, the run and its bundle, interruptions, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.cli.main import main
from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.models.cpr.checkpoint import load_cpr
from edge_ad.models.cpr.options import CprOptions
from edge_ad.models.cpr.training.options import CprTrainOptions
from edge_ad.models.cpr.training.points import batched, draw_points, least_distance, likelihood
from edge_ad.models.cpr.training.samples import nearest_others
from edge_ad.models.cpr.training.synthesis import defect_mask, defective, noisy, other_lightness, salt_and_pepper
from edge_ad.models.progress import Progress
from edge_ad.models.references import References
from edge_ad.models.synthesis.textures import ProceduralTextures
from edge_ad.training_run import RunRecord, read_run

Train = Callable[..., RunRecord]
SIDE = 112
SPEC = PreprocessSpec(SIDE, SIDE, resize_mode="stretch", filter="opencv_bilinear")


@pytest.fixture(scope="module")
def run(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("*.pth")
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["lrb"]
    return state


def test_a_run_is_self_contained(run: Path) -> None:
    record = read_run(run)
    assert record.status == "finished" and record.checkpoint == "ckpt_best_1.pth"
    assert record.facts["references"] == 6 and record.facts["foreground"] is True
    assert not (run / "backbone.pth").exists() and list((run / "samples").iterdir())
    loaded = load_cpr(run / "ckpt_best_1.pth", CprOptions(), References(None, SPEC))
    assert loaded.network.config.nearest == 3 and loaded.network.foreground is not None
    assert loaded.network.names == tuple(f"{number}.png" for number in range(6))


def test_the_same_seed_trains_the_same_weights(train: Train, run: Path, tmp_path: Path) -> None:
    train(tmp_path / "again")
    first, again = weights(run), weights(tmp_path / "again")
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(train: Train, run: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    steps = 0

    def counted(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == 10:  # 6 pictures, 1 for features, 3 of 4 steps: in the second epoch
            raise StopError

    with pytest.raises(StopError):
        train(tmp_path / "run", progress=Progress(step=counted))
    assert read_run(tmp_path / "run").epochs_done == 1
    train(tmp_path / "run", resume=True)
    first, again = weights(run), weights(tmp_path / "run")
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_other_weights_of_the_backbone_are_another_run(train: Train, backbone_weights: Path, tmp_path: Path) -> None:
    state = torch.load(backbone_weights, weights_only=True)
    torch.save(state, tmp_path / "mine.pth")
    told = {"backbone_weights": tmp_path / "mine.pth", "epochs": 1, "epoch_steps": 1}
    train(tmp_path / "run", **told)
    state["features.0.0.weight"] = state["features.0.0.weight"] + 1
    torch.save(state, tmp_path / "mine.pth")
    with pytest.raises(CheckpointError, match="other weights of the backbone"):
        train(tmp_path / "run", resume=True, **told)


def test_from_pictures_to_figures(
    train: Train, parts: Path, tmp_path: Path, engine_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a metric network nothing is trained, and blots are found all the same."""
    record = train(tmp_path / "run", metric=False, eval_every=1)
    assert record.epochs_done == 1 and record.best is not None
    assert record.best.image_auroc == 1.0 and (record.best.pixel_auroc or 0) > 0.95
    assert weights(tmp_path / "run") == {}
    bundle = tmp_path / "disc.edgead"
    assert main(["export", str(tmp_path / "run"), "-o", str(bundle), "--bank", "float16"]) == 0
    told = capsys.readouterr().err
    assert "off by" not in told
    manifest = Bundle.read(bundle).manifest
    assert manifest.model.config["bank"] == "float16" and manifest.model.config["foreground"] is True
    assert manifest.postprocess.frame_map == "anomaly_map" and manifest.postprocess.top_pixels == 512
    figures = tmp_path / "eval"
    assert main(["eval", str(bundle), str(parts), "-o", str(figures), "--engine-cache", str(engine_cache)]) == 0
    assert json.loads((figures / "results.json").read_text())["image"]["auroc"] == 1.0


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"layers": "features.3"}, "layers: wanted two, the finer one first, got features.3"),
        ({"backbone": "vgg11"}, "layers: none are known for 'vgg11'"),
        ({"search_windows": "2,1"}, "search_windows: wanted odd numbers"),
        ({"search_windows": "3"}, "search_windows"),
        ({"layers": "features.3,features.99"}, "'features.99' is no layer of 'mobilenet_v2'"),
        ({"retrieval_share": 0}, "retrieval_share: wanted a number above 0"),
        ({"foreground": "files"}, "foreground: wanted 'auto', 'on' or 'off'"),
    ],
)
def test_options_that_are_refused(told: dict[str, Any], fault: str, train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train(tmp_path / "run", **told)
    assert fault in str(caught.value) and not (tmp_path / "run").exists()


def test_more_neighbours_than_references(train: Train, tmp_path: Path) -> None:
    said: list[str] = []
    train(tmp_path / "run", nearest=None, epochs=1, epoch_steps=1, progress=Progress(say=said.append))
    assert any("6 references are all that there are to compare with; 10 are usual" in line for line in said)
    with pytest.raises(ConfigError, match="nearest: wanted at most 2, the number of references, got 5"):
        train(tmp_path / "other", nearest=5, reference_count=2)


def test_one_picture_is_compared_with_itself() -> None:
    histogram = torch.softmax(torch.randn(4, 25, 13), dim=2)
    config = CprTrainOptions(output=Path("run"), nearest=2).network
    assert nearest_others(histogram[:1], config).tolist() == [[0]]
    others = nearest_others(torch.cat([histogram, histogram[:1]]), config)
    assert others.shape == (5, 2) and all(number not in row for number, row in enumerate(others.tolist()))
    assert others[0, 0] == 4 and others[4, 0] == 0, "a duplicate is another picture"


def test_defects_lie_on_the_object_and_are_not_small() -> None:
    foreground = np.zeros((96, 96), np.float32)
    foreground[30:60, 20:70] = 0.9
    touching = 0
    for seed in range(20):
        mask = defect_mask((96, 96), foreground, np.random.default_rng(seed))
        if not mask.any():
            continue
        import cv2

        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        assert stats[1:, cv2.CC_STAT_AREA].min() >= 0.001 * mask.size
        assert all((labels == number)[foreground > 0.5].any() for number in range(1, count))
        touching += count > 1
    assert touching >= 15
    nowhere = defect_mask((64, 64), np.zeros((64, 64), np.float32), np.random.default_rng(0))
    assert not nowhere.any(), "on no object no defect fits, and that ends"


def test_a_defect_changes_nothing_beside_it() -> None:
    image = np.random.default_rng(0).integers(90, 110, (96, 96, 3), dtype=np.uint8)
    for seed, foreground in ((1, None), (2, np.ones((96, 96), np.float32)), (3, np.ones((96, 96), np.float32))):
        changed, mask = defective(image, foreground, ProceduralTextures(), np.random.default_rng(seed))
        assert mask.any() and (changed[~mask] == image[~mask]).all() and (changed[mask] != image[mask]).any()


def test_noise() -> None:
    image = np.full((100, 100, 3), 120, np.uint8)
    rng = np.random.default_rng(0)
    spotted = salt_and_pepper(image, 0.9, rng)
    for level in (0, 255):
        assert 0.03 < (spotted == level).all(axis=2).mean() < 0.07
    assert ((spotted == 120) | (spotted == 0) | (spotted == 255)).all()
    assert abs(int(other_lightness(image, 1.1).mean()) - 132) <= 1
    assert noisy(image, 0.0, rng) is image
    assert noisy(image, 1.0, rng) is not image


def test_points_are_where_they_are_meant_to_be() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 40), np.bool_)
    mask[10:20, 5:30] = True
    weight = np.full((60, 40), 1e-6, np.float32)
    weight[30:50, 10:30] = 1
    found = draw_points(mask, weight, 50, 5.66, rng)
    assert len(found.positive) == len(found.anomalous) == 50
    assert all(not mask[y, x] and weight[y, x] == 1 for x, y in found.positive)
    assert all(mask[y, x] for x, y in found.anomalous)
    assert (np.linalg.norm(found.negative - found.retrieved_negative, axis=1) > 5.66).all()
    assert all(weight[y, x] == 1 for x, y in found.retrieved_negative)
    of_texture = draw_points(mask, None, 50, 5.66, rng)
    assert len(of_texture.negative) == 0 and len(of_texture.positive) == 50
    points = batched([found, of_texture, draw_points(~mask & False, None, 50, 1, rng)], 50, (60, 40))
    assert points.negative_weight.sum(1).tolist() == [len(found.negative), 0, 0] and len(found.negative) > 40
    assert points.anomalous_weight.sum(1).tolist() == [50, 50, 0]
    corner = points.positive[0] * torch.tensor([39, 59]) / 2 + torch.tensor([39, 59]) / 2
    np.testing.assert_allclose(corner.numpy(), found.positive, atol=1e-4)


def test_likelihood_is_scipys_blur_made_steeper() -> None:
    foreground = np.random.default_rng(0).random((25, 25)).astype(np.float32)
    blurred = gaussian_filter(foreground.astype(np.float64), sigma=1)
    np.testing.assert_allclose(likelihood(foreground, (25, 25)), 1 / (1 + np.exp(5 - 10 * blurred)), atol=1e-6)


def test_least_distance_is_the_authors() -> None:
    assert least_distance((320, 320), (80, 80), 3) == pytest.approx(5.6569, abs=1e-4)


def test_presets() -> None:
    fast = CprTrainOptions.preset_values({"preset": "fast"})
    assert fast["backbone"] == "mobilenet_v2"
    assert "backbone_weights" not in CprTrainOptions.preset_values({"preset": "fast", "backbone": "resnet18"})
    assert CprTrainOptions.preset_values({"metric": False})["epochs"] == 1
    paper = CprTrainOptions(output=Path("run"))
    assert paper.epochs * paper.epoch_steps == 40_000 and paper.network.layers[0] == "features.denseblock1"


def test_a_picture_that_cannot_be_read_is_left_out(train: Train, parts: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for path in (parts / "train" / "good").iterdir():
        (good / path.name).write_bytes(path.read_bytes())
    (good / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (50, 70), (124, 116, 104)).save(good / "other_size.png")
    record = train(tmp_path / "run", data=None, good=good, metric=False)
    assert record.facts["dataset"]["good"] == 7
