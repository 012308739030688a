"""Images that calibrate, read as model inputs; what cannot be used is named, and ends nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from calibration_files import flat, picture, write

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.calibration.quantize.images import CalibrationImages, chosen_images
from edge_ad.datasets import Sample, read_image
from edge_ad.errors import SourceError
from edge_ad.image.preprocess import Preprocessor

SPEC = PreprocessSpec(32, 32, resize=36)
LETTERBOX = PreprocessSpec(32, 32, "letterbox", pad_rgb=(114, 114, 114))


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Good, empty, good, truncated, text, black, good (below), white, gone."""
    paths = [picture(tmp_path / "0.png", seed=1)]
    paths.append(tmp_path / "1.png")
    paths[-1].write_bytes(b"")
    paths.append(picture(tmp_path / "2.jpg", 150, seed=2))
    paths.append(picture(tmp_path / "3.png", seed=3))
    paths[-1].write_bytes(paths[-1].read_bytes()[:2000])
    paths.append(tmp_path / "4.png")
    paths[-1].write_text("no picture")
    paths.append(flat(tmp_path / "5.png", 0))
    paths.append(picture(tmp_path / "below" / "6.png", 30, seed=4, hw=(200, 100)))
    paths.append(flat(tmp_path / "7.png", 255))
    paths.append(tmp_path / "8.png")
    return [Sample(path, "good") for path in paths]


def test_inputs_are_those_of_the_preprocessing(samples: list[Sample]) -> None:
    images = CalibrationImages(samples, SPEC)
    found = list(images)
    assert [sample for sample, _ in found] == [samples[0], samples[2], samples[6]]
    preprocess = Preprocessor(SPEC, threads=1)
    for sample, model_input in found:
        assert model_input.dtype == np.uint8 and model_input.shape == (32, 32, 3)
        np.testing.assert_array_equal(model_input, preprocess(read_image(sample)).image_hwc)


def test_one_bad_image_ends_nothing_and_each_is_named_once(samples: list[Sample]) -> None:
    images = CalibrationImages(samples, SPEC)
    assert (images.used, images.unreadable, images.unusable, images.notes) == (0, (), (), ())
    passes = [[(sample, model_input.tobytes()) for sample, model_input in images] for _ in range(3)]
    assert passes[0] == passes[1] == passes[2]
    assert images.used == 3
    assert [name for name, _ in images.unreadable] == ["1.png", "3.png", "4.png", "8.png"]
    reasons = dict(images.unreadable)
    assert reasons["1.png"] == "the file is empty"
    assert reasons["8.png"] == "the file is gone"
    assert [name for name, _ in images.unusable] == ["5.png", "7.png"]
    assert ["black" in images.unusable[0][1], "saturated" in images.unusable[1][1]] == [True, True]
    unreadable, unusable = images.notes
    assert unreadable.startswith("4 of 9 images cannot be read") and "1.png (the file is empty)" in unreadable
    assert unreadable.endswith(", ...")
    assert unusable.startswith("2 of 9 images show nothing") and "7.png" in unusable


def test_two_passes_at_once_do_not_disturb_each_other(samples: list[Sample]) -> None:
    images = CalibrationImages(samples, SPEC)
    for (one, left), (other, right) in zip(images, images, strict=True):
        assert one is other
        np.testing.assert_array_equal(left, right)
    assert images.used == 3
    assert len(images.unreadable) == 4


def test_every_sample_is_watched_in_each_pass(samples: list[Sample]) -> None:
    seen: list[Sample] = []

    def watch(watched: Iterable[Sample]) -> Iterable[Sample]:
        for sample in watched:
            seen.append(sample)
            yield sample

    images = CalibrationImages(samples, SPEC, watch)
    list(images)
    list(images)
    assert seen == samples * 2


def test_an_unfinished_pass_can_be_followed_by_a_whole_one(samples: list[Sample]) -> None:
    images = CalibrationImages(samples, SPEC)
    next(iter(images))
    assert images.used == 0
    assert len(list(images)) == images.used == 3


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "black": (lambda path: flat(path, 0), r"2 of 2 images show nothing.*0\.png \(the frame is black"),
    "white": (lambda path: flat(path, 255), r"2 of 2 images show nothing.*saturated"),
    "one colour": (lambda path: flat(path, 90), r"2 of 2 images show nothing.*one colour"),
    "empty": (lambda path: path.write_bytes(b""), r"2 of 2 images cannot be read.*the file is empty"),
    "no picture": (lambda path: path.write_text("x"), r"2 of 2 images cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("spec", [SPEC, LETTERBOX], ids=["crop", "letterbox"])
def test_no_usable_image_at_all_is_an_error_each_time(tmp_path: Path, name: str, spec: PreprocessSpec) -> None:
    """In a letterbox a white frame has grey bars, which are no part of it."""
    make, message = BAD[name]
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for path in paths:
        make(path)
    images = CalibrationImages([Sample(path, "good") for path in paths], spec)
    for _ in range(2):
        with pytest.raises(SourceError, match=rf"got none that can be used of 2: {message}.*name a folder"):
            list(images)
    picture(paths[1])  # control
    assert len(list(CalibrationImages(images.samples, spec))) == 1


def test_no_image_at_all_is_an_error() -> None:
    with pytest.raises(SourceError, match="none that can be used of 0: no image was given"):
        list(CalibrationImages([], SPEC))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a file that may not be read")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "0.png", seed=0), picture(tmp_path / "1.png", seed=1)]
    paths[0].chmod(0)
    images = CalibrationImages([Sample(path, "good") for path in paths], SPEC)
    assert len(list(images)) == 1
    assert images.unreadable == (("0.png", "permission denied; make the file readable"),)


def test_empty_and_unreadable_files_are_chosen_so_that_reading_reports_each(tmp_path: Path) -> None:
    files = {f"{index}.png": b"" for index in range(10)}
    chosen = chosen_images(write(tmp_path, files), None, count=512, seed=0)
    assert len(chosen.calibration) + len(chosen.held_out) == 10
    assert not any("copies" in note for note in chosen.notes)
    images = CalibrationImages(chosen.calibration, SPEC)
    with pytest.raises(SourceError, match="the file is empty"):
        list(images)
    assert len(images.unreadable) == len(chosen.calibration)
