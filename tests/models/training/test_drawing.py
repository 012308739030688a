"""What is drawn and chosen before a step: batches, noise, the hypothesis, the pictures themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.datasets import Sample, open_dataset, plain_dataset
from edge_ad.errors import ConfigError, ImageError, SourceError
from edge_ad.models.glass.training.batches import Batch, Batches
from edge_ad.models.glass.training.hypothesis import DENSE, choose_hypothesis, spectrum_density
from edge_ad.models.glass.training.noise import draw_noise
from edge_ad.models.glass.training.options import GlassTrainOptions as TrainOptions
from edge_ad.models.synthesis.textures import ProceduralTextures
from edge_ad.models.training.labelled import LabelledPictures, Standing
from edge_ad.models.training.pictures import GoodPictures

SPEC = PreprocessSpec(64, 64, resize=64)
OPTIONS = TrainOptions(output=Path("run"), batch=3, imgsz=(64, 64))
PATCHES = (16, 16)
PLENTY = 1 << 30


def good_pictures(parts: Path, cache_bytes: int = PLENTY) -> GoodPictures:
    return GoodPictures(open_dataset(parts).train, SPEC, "none", cache_bytes)


# Batches


def batches(parts: Path, **changes: Any) -> Batches:
    return Batches(good_pictures(parts), ProceduralTextures(), replace(OPTIONS, **changes), PATCHES)


def augmented(batch: Batch) -> list[Any]:
    return [each.anomaly.image_hwc for each in batch.overlaid]


def same(a: Batch, b: Batch) -> bool:
    masks = [[each.anomaly.mask.pixel for each in batch.overlaid] for batch in (a, b)]
    pixels = zip([*augmented(a), *masks[0]], [*augmented(b), *masks[1]], strict=True)
    return (a.step, a.indices) == (b.step, b.indices) and all(np.array_equal(*pair) for pair in pixels)


def test_an_epoch_is_the_same_whatever_came_before(parts: Path) -> None:
    fresh = list(batches(parts)(2))
    used = batches(parts)
    for epoch in (0, 1):
        list(used(epoch))
    next(used(5))  # left in the middle
    again = list(used(2))
    assert len(fresh) == len(again) == used.steps() == 3
    assert all(same(a, b) for a, b in zip(fresh, again, strict=True))
    others = [*used(3)], [*batches(parts, seed=1)(2)]
    for other in others:
        assert not any(np.array_equal(augmented(a)[0], augmented(b)[0]) for a, b in zip(fresh, other, strict=True))


def test_every_picture_once_in_an_epoch(parts: Path) -> None:
    drawn = batches(parts)
    orders = [drawn.order(epoch) for epoch in range(4)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    shown = [batch.indices for batch in drawn(1)]
    assert [len(indices) for indices in shown] == [3, 3, 1]
    assert [index for indices in shown for index in indices] == orders[1]


def test_repeats_and_bounds_of_an_epoch(parts: Path) -> None:
    twice = batches(parts, repeat=2)
    assert sorted(twice.order(0)) == sorted(2 * list(range(7)))
    assert sorted(twice.order(0)[:7]) == list(range(7))
    assert twice.order(0)[:7] != twice.order(0)[7:]
    few = batches(parts, epoch_images=4)
    assert len(few.order(0)) == 4 and few.steps() == 2
    seen = {index for epoch in range(8) for index in few.order(epoch)}
    assert seen == set(range(7)), "pictures beyond the bound are never looked at"
    assert len(batches(parts, repeat=3, epoch_images=10).order(0)) == 10


def test_repeats_of_one_picture_have_different_anomalies(parts: Path) -> None:
    shown = list(batches(parts, repeat=2)(0))
    pictures: dict[int, list[Any]] = {}
    for batch in shown:
        for index, overlaid in zip(batch.indices, augmented(batch), strict=True):
            pictures.setdefault(index, []).append(overlaid)
    assert all(len(pair) == 2 and not np.array_equal(*pair) for pair in pictures.values())


def test_a_batch_agrees_with_itself(parts: Path) -> None:
    pictures = good_pictures(parts)
    for batch in batches(parts)(0):
        assert [each.place for each in batch.overlaid] == list(range(len(batch.indices)))
        anomalous = batch.anomalous(PATCHES)
        assert anomalous.shape == (len(batch.indices), *PATCHES) and anomalous.dtype == np.bool_
        for each in batch.overlaid:
            good, pixels = pictures[batch.indices[each.place]].image_hwc, each.anomaly.mask.pixel
            changed = (each.anomaly.image_hwc != good).any(axis=2)
            assert not changed[~pixels].any(), "changed outside of its mask"
            assert np.array_equal(anomalous[each.place], pixels.reshape(16, 4, 16, 4).any(axis=(1, 3)))


def test_a_share_of_the_pictures_gets_a_texture(parts: Path) -> None:
    drawn = batches(parts, overlay_share=0.5, repeat=30)
    shares = []
    for batch in drawn(0):
        overlaid = {each.place for each in batch.overlaid}
        shares.append(len(overlaid) / len(batch.indices))
        with_texture = {place for place, mask in enumerate(batch.anomalous(PATCHES)) if mask.any()}
        assert with_texture == overlaid
    assert 0.35 < np.mean(shares) < 0.65  # 210 draws: within 4 standard errors
    assert not any(batch.overlaid for batch in batches(parts, overlay_share=0.0)(0))


def test_what_goes_wrong_in_the_thread_is_raised(parts: Path) -> None:
    class Broken(ProceduralTextures):
        def sample(self, rng: np.random.Generator, shape_hw: tuple[int, int]) -> Any:
            raise SourceError("no texture")

    broken = Batches(good_pictures(parts), Broken(), OPTIONS, PATCHES)
    with pytest.raises(SourceError, match="no texture"):
        list(broken(0))


# Noise


def noise(epoch: int = 0, step: int = 0, shape: tuple[int, int] = (2000, 64), **changes: Any) -> Any:
    return draw_noise(replace(OPTIONS, **changes), epoch, step, shape, torch.device("cpu")).ascent.numpy()


def test_noise_is_normal_of_the_given_size() -> None:
    drawn = noise(noise_std=0.02)
    assert drawn.dtype == np.float32
    # 128 000 numbers: the mean is within 5 of its standard errors, the standard deviation likewise.
    assert abs(drawn.mean()) < 5 * 0.02 / np.sqrt(drawn.size)
    assert drawn.std() == pytest.approx(0.02, rel=5 / np.sqrt(2 * drawn.size))
    assert np.mean(np.abs(drawn) < 0.02) == pytest.approx(0.6827, abs=0.01)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.12


def test_noise_is_the_same_whenever_it_is_drawn() -> None:
    torch.manual_seed(1)
    first = noise(3, 2, (5, 4))
    torch.manual_seed(2)
    assert np.array_equal(first, noise(3, 2, (5, 4)))
    others = [noise(3, 1, (5, 4)), noise(2, 2, (5, 4)), noise(3, 2, (5, 4), seed=1)]
    assert not any(np.array_equal(first, other) for other in others)


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    noise(shape=(5, 4))
    assert torch.equal(torch.rand(3), wanted)


def test_spread_noise_differs_from_patch_to_patch() -> None:
    drawn = noise(noise_std=0.02, noise_spread=2.0)
    octaves = np.log2(drawn.std(axis=1) / 0.02)
    # 64 numbers estimate a standard deviation to about 9 %, an eighth of an octave.
    assert -2.7 < octaves.min() < -1.7 and 1.7 < octaves.max() < 2.7
    assert np.mean(octaves) == pytest.approx(0, abs=0.1)
    assert np.std(octaves) == pytest.approx(4 / np.sqrt(12), abs=0.1)  # of a uniform distribution
    even = np.log2(noise(noise_std=0.02).std(axis=1) / 0.02)
    assert np.abs(even).max() < 0.7, "without a spread all patches have about the same"


def test_jitter_is_drawn_apart_from_the_noise() -> None:
    options = replace(OPTIONS, noise_std=0.02)
    plain = draw_noise(options, 1, 2, (2000, 64), torch.device("cpu"))
    assert plain.jitter is None
    both = draw_noise(replace(options, jitter_std=0.3), 1, 2, (2000, 64), torch.device("cpu"))
    assert both.jitter is not None and torch.equal(both.ascent, plain.ascent)
    jitter = both.jitter.numpy()
    assert jitter.std() == pytest.approx(0.3, rel=5 / np.sqrt(2 * jitter.size))
    assert abs(np.corrcoef(jitter.ravel(), both.ascent.numpy().ravel())[0, 1]) < 0.02


# Hypothesis


def stripes(shift: Callable[[int], int]) -> list[Any]:
    """Pictures of a grid of bright fields with sharp edges, shifted from picture to picture."""
    y, x = np.mgrid[:288, :288]
    rng = np.random.default_rng(0)
    field = rng.integers(0, 256, (36, 36))
    pictures = []
    for number in range(24):
        rows, columns = (y + shift(2 * number)) // 8 % 36, (x + shift(2 * number + 1)) // 8 % 36
        pictures.append(np.repeat(field[rows, columns][:, :, None], 3, axis=2).astype(np.uint8))
    return pictures


def test_aligned_parts_are_a_hypersphere_and_shifted_ones_a_manifold() -> None:
    rng = np.random.default_rng(1)
    aligned, shifted = choose_hypothesis(stripes(lambda _: 0)), choose_hypothesis(stripes(lambda _: rng.integers(288)))
    assert aligned.hypothesis == "hypersphere" and shifted.hypothesis == "manifold"
    assert aligned.density >= DENSE > shifted.density
    assert "hypersphere" in str(aligned) and f"{aligned.density:.3f}" in str(aligned) and "at least" in str(aligned)
    assert "manifold" in str(shifted) and "below" in str(shifted)


def test_density_of_known_spectra() -> None:
    assert spectrum_density(np.full((100, 80), 128.0)) == 0.0
    assert spectrum_density(np.zeros((50, 50))) == 0.0
    assert spectrum_density(np.random.default_rng(0).uniform(0, 255, (288, 288))) == 1.0  # white: all frequencies


def test_a_hypothesis_needs_a_picture() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        choose_hypothesis([])


# Pictures


def test_pictures_beyond_the_memory_are_read_again(parts: Path) -> None:
    everything, few = good_pictures(parts), good_pictures(parts, 2 * 64 * 64 * 3)
    assert len(everything) == len(few) == 7
    for a, b in zip(everything, few, strict=True):
        assert np.array_equal(a.image_hwc, b.image_hwc)
        assert a.image_hwc.shape == (64, 64, 3) and a.image_hwc.dtype == np.uint8
        assert a.foreground is None
    assert few[1] is few[1], "what fits is kept"
    assert few[2] is not few[2], "what does not is read anew"


def test_unreadable_pictures_are_counted_and_named(own_parts: Path) -> None:
    for index in range(5):
        (own_parts / "train" / "good" / f"{index}.png").write_bytes(b"no picture")
    pictures = good_pictures(own_parts)
    assert len(pictures) == 2
    (note,) = pictures.notes
    assert note.startswith("5 pictures left out: ")
    assert all(f"{index}.png" in note for index in range(3)) and note.endswith("and 2 more")
    for path in (own_parts / "train" / "good").iterdir():
        path.write_bytes(b"")
    with pytest.raises(SourceError, match="no good picture can be read"):
        good_pictures(own_parts)


def test_padding_is_no_foreground(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    Image.fromarray(np.full((32, 64, 3), 99, np.uint8)).save(tmp_path / "good" / "a.png")
    spec = PreprocessSpec(64, 64, resize_mode="letterbox")
    (picture,) = GoodPictures(plain_dataset(tmp_path / "good").train, spec, "none", PLENTY)
    assert picture.foreground is not None
    assert picture.foreground.sum() == 32 * 64 and picture.foreground[16:48].all()


def foreground_files(parts: Path, names: list[str], size: int = 64) -> None:
    folder = parts / "fg_mask" / "train" / "good"
    folder.mkdir(parents=True)
    for name in names:
        mask = np.zeros((size, size), np.uint8)
        mask[10:30, 20:40] = 255
        Image.fromarray(mask).save(folder / name)


def test_foreground_files(own_parts: Path) -> None:
    foreground_files(own_parts, [f"{index}.png" for index in range(7)])
    samples = open_dataset(own_parts).train
    assert all(sample.foreground for sample in samples), "the layout's folder of foregrounds has another name"
    for picture in GoodPictures(samples, SPEC, "files", PLENTY):
        assert picture.foreground is not None
        assert picture.foreground.sum() == 400 and picture.foreground[10:30, 20:40].all()


def test_foreground_files_that_lack(own_parts: Path) -> None:
    foreground_files(own_parts, ["0.png", "1.png"])
    with pytest.raises(ConfigError, match=r"5 of 7 good pictures have none \(2\.png, 3\.png, 4\.png\)"):
        GoodPictures(open_dataset(own_parts).train, SPEC, "files", PLENTY)


def test_a_foreground_file_that_is_black_is_named(own_parts: Path) -> None:
    foreground_files(own_parts, [f"{index}.png" for index in range(7)])
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(own_parts / "fg_mask" / "train" / "good" / "4.png")
    with pytest.raises(ConfigError, match=r"4\.png is black where the model looks"):
        GoodPictures(open_dataset(own_parts).train, SPEC, "files", PLENTY)


def discs(folder: Path, plain: int) -> tuple[Sample, ...]:
    """Ten pictures: bright discs on a dark ground, but for `plain` ones that are all ground."""
    folder.mkdir()
    y, x = np.mgrid[:64, :64]
    disc = (x - 32) ** 2 + (y - 32) ** 2 < 22**2
    for index in range(10):
        grey = np.where(disc & (index >= plain), 200, 40).astype(np.uint8)
        Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(folder / f"{index}.png")
    return plain_dataset(folder).train


def test_foreground_found_automatically(tmp_path: Path) -> None:
    pictures = GoodPictures(discs(tmp_path / "good", 1), SPEC, "auto", PLENTY)
    assert pictures.found == 9 and pictures.agreed
    assert pictures[0].foreground is None
    for picture in list(pictures)[1:]:
        assert picture.foreground is not None
        disc = picture.image_hwc[:, :, 0] > 100
        assert (picture.foreground & disc).sum() > 0.95 * disc.sum()
        assert (picture.foreground & ~disc).sum() < 0.25 * disc.sum(), "it is slightly widened"


@pytest.mark.parametrize("cache_bytes", [0, PLENTY])
def test_a_foreground_found_in_few_pictures_is_not_believed(tmp_path: Path, cache_bytes: int) -> None:
    pictures = GoodPictures(discs(tmp_path / "good", 4), SPEC, "auto", cache_bytes)
    assert pictures.found == 6 and not pictures.agreed
    assert [picture.foreground for picture in pictures] == [None] * 10


def test_padding_is_no_object_that_was_found(tmp_path: Path) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    Image.fromarray(np.full((32, 64, 3), 99, np.uint8)).save(folder / "a.png")
    spec = PreprocessSpec(64, 64, resize_mode="letterbox")
    pictures = GoodPictures(plain_dataset(folder).train, spec, "auto", PLENTY)
    assert pictures.found == 0
    assert pictures[0].foreground is not None, "textures stay off the padding all the same"


# Labelled pictures


def test_labelled_pictures_that_choose_nothing(parts: Path) -> None:
    test = open_dataset(parts).test
    assert LabelledPictures(test, SPEC, PostprocessSpec()).usable
    assert not LabelledPictures([s for s in test if s.anomalous], SPEC, PostprocessSpec()).usable
    assert not LabelledPictures([s for s in test if not s.anomalous], SPEC, PostprocessSpec()).usable
    assert not LabelledPictures([], SPEC, PostprocessSpec()).usable


def test_labelled_pictures_that_cannot_be_read(own_parts: Path) -> None:
    (own_parts / "test" / "blot" / "1.png").write_bytes(b"")
    labelled = LabelledPictures(open_dataset(own_parts).test, SPEC, PostprocessSpec())
    assert len(labelled) == 5
    assert len(labelled.unreadable) == 1 and "1.png" in labelled.unreadable[0]


def test_a_mask_of_another_size(own_parts: Path) -> None:
    Image.fromarray(np.zeros((32, 64), np.uint8)).save(own_parts / "ground_truth" / "blot" / "1_mask.png")
    with pytest.raises(ImageError, match=r"1_mask\.png is 64×32, its picture .* is 64×64 pixels"):
        LabelledPictures(open_dataset(own_parts).test, SPEC, PostprocessSpec())


def ranked(maps: Any, samples: list[Sample], kind: Any = "map_max") -> Standing:
    return LabelledPictures(samples, SPEC, PostprocessSpec(score=kind)).ranked(maps)


def test_figures_of_known_maps(parts: Path) -> None:
    from sklearn.metrics import roc_auc_score

    from edge_ad.image.operators import ResizeSmooth

    samples = list(open_dataset(parts).test)
    truth = [sample.anomalous for sample in samples]
    rng = np.random.default_rng(5)
    maps = list(rng.uniform(0, 1, (6, 16, 16)).astype(np.float32))
    smooth = [ResizeSmooth((16, 16), (64, 64))(each) for each in maps]
    masks = [
        np.zeros((64, 64), bool) if sample.mask is None else np.asarray(Image.open(sample.mask)) > 0
        for sample in samples
    ]
    pixel = roc_auc_score(np.stack(masks).ravel(), np.stack(smooth).ravel())
    for kind, scored in (("map_max", smooth), ("patch_max", maps)):
        standing = ranked(maps, samples, kind)
        assert standing.image_auroc == pytest.approx(roc_auc_score(truth, [each.max() for each in scored]), abs=1e-9)
        assert standing.pixel_auroc == pytest.approx(pixel, abs=1e-9)
        assert standing.sum == pytest.approx(standing.image_auroc + pixel)
    bare = [replace(sample, mask=None) for sample in samples]
    without = ranked(maps, bare)
    assert without.pixel_auroc is None and without.sum == without.image_auroc
