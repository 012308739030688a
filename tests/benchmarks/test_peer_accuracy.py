"""`benchmarks/peers/accuracy.py`: pictures, pixels and differences are the same for every peer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.calibration.evaluation.evaluate import judge_images
from edge_ad.image.geometry import place
from edge_ad.metrics.localization import group_metrics

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STRETCHED = PreprocessSpec(8, 8, resize_mode="stretch")


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    import accuracy

    return accuracy


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two good pictures, one defective with a mask of its left half, and one without."""
    rng = np.random.default_rng(0)
    names = ("train/good/1", "test/good/1", "test/good/2", "test/split/1", "test/torn/1")
    for name in names:
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(path)
    mask = np.zeros((16, 24), np.uint8)
    mask[:, :12] = 255
    (tmp_path / "ground_truth/split").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "ground_truth/split/1_mask.png")
    return tmp_path


def test_pixels_count_as_in_an_evaluation(accuracy: Any, data: Path, tmp_path: Path) -> None:
    from types import SimpleNamespace

    pictures = accuracy.labelled(data, STRETCHED)
    assert pictures.truth == [False, False, True, True] and pictures.frame_hw() == (16, 24)
    maps = np.random.default_rng(1).normal(size=(4, 8, 8)).astype(np.float32)
    maps[2, :, :4] += 1
    np.save(tmp_path / "maps.npy", maps)
    left = iter(maps)

    def judge(_: Any) -> Any:
        shown = place(STRETCHED, (16, 24))
        return SimpleNamespace(
            status="ok", score=1.0, maps=SimpleNamespace(anomaly_map=next(left), geometry=shown), reason=None
        )

    judged = judge_images(pictures.samples, judge, STRETCHED)
    wanted = group_metrics(list(judged.pixels.values())).auroc
    assert wanted is not None and 0.6 < wanted < 1
    assert pictures.pixel_auroc(tmp_path / "maps.npy") == wanted
    bare = accuracy.Pictures(tuple(each for each in pictures.samples if each.mask is None), STRETCHED)
    np.save(tmp_path / "bare.npy", maps[[0, 1, 3]])
    assert bare.pixel_auroc(tmp_path / "bare.npy") is None


def test_pictures_at_model_size_are_what_the_models_see(accuracy: Any, data: Path, tmp_path: Path) -> None:
    pictures = accuracy.labelled(data, STRETCHED)
    written = pictures.seen(tmp_path / "seen")
    assert len(written) == 4
    with Image.open(pictures.paths[2]) as whole, Image.open(written[2]) as seen:
        resized = whole.resize((8, 8), Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(resized), np.asarray(seen))
    Image.fromarray(np.zeros((24, 16, 3), np.uint8)).save(pictures.paths[0])
    with pytest.raises(ValueError, match=r"one size.*\(16, 24\), \(24, 16\)"):
        pictures.frame_hw()


def test_differences_are_shares_of_the_reference(accuracy: Any) -> None:
    found = accuracy.difference([1.1, 2.0, 2.0], [1.0, 2.0, -4.0])
    assert found.at == (2, 2.0, -4.0) and found.largest == 1.5
    assert found.median == pytest.approx(0.1, rel=1e-12)  # 1.1 - 1.0 is rounded
    for scores, reference in (([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])):
        with pytest.raises(ValueError, match="wanted a score"):
            accuracy.difference(scores, reference)
    (line,) = accuracy.told({"ours": found}, "theirs", "the pictures")
    assert line == (
        "ours: scores of the pictures differ from theirs by 10 % at the median and 150 % at most (2 and -4, picture 2)"
    )
