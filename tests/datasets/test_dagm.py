"""The layout of DAGM 2007: labels decide what is defective, nothing learns from that, and its masks are coarse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_ad.datasets import open_dataset, open_labelled, read_image, read_mask
from edge_ad.datasets.dagm import COARSE
from edge_ad.errors import SourceError

SIDE = 64
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
ELLIPSE = ((COLUMNS - 40) / 15) ** 2 + ((ROWS - 20) / 8) ** 2 <= 1


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def half(folder: Path, *, good: range, defective: range) -> None:
    """Pictures of noise as published, a list of all, and a label of each defective one."""
    rng = np.random.default_rng(good.start)
    lines = ["1"]
    for number in sorted([*good, *defective]):
        save(folder / f"{number:04d}.PNG", rng.integers(0, 256, (SIDE, SIDE), np.uint8))
        label = f"{number:04d}_label.PNG" if number in defective else "0"
        lines.append(f"{number}\t{int(number in defective)}\t{number:04d}.PNG\t0\t{label}")
        if number in defective:
            save(folder / "Label" / label, ELLIPSE.astype(np.uint8) * np.uint8(255))
    (folder / "Label").mkdir(exist_ok=True)
    (folder / "Label" / "Labels.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def dagm(tmp_path: Path) -> Path:
    """One class: 6 good and 2 defective pictures to train, 3 and 3 to test."""
    half(tmp_path / "Class1" / "Train", good=range(2, 8), defective=range(8, 10))
    half(tmp_path / "Class1" / "Test", good=range(11, 14), defective=range(1, 4))
    return tmp_path / "Class1"


def test_labels_decide_what_is_defective(dagm: Path) -> None:
    (dagm / "Test" / "0002.PNG").unlink()
    (dagm / "Test" / "Label" / "0002_label.PNG").unlink()
    dataset = open_dataset(dagm)
    assert (dataset.name, dataset.layout) == ("Class1", "dagm")
    assert [sample.image.name for sample in dataset.train] == [f"{number:04d}.PNG" for number in range(2, 8)]
    assert not any(sample.anomalous for sample in dataset.train)
    assert [(sample.image.name, sample.defect, sample.mask and sample.mask.name) for sample in dataset.test] == [
        ("0011.PNG", "good", None),
        ("0012.PNG", "good", None),
        ("0013.PNG", "good", None),
        ("0001.PNG", "defect", "0001_label.PNG"),
        ("0003.PNG", "defect", "0003_label.PNG"),
    ]
    np.testing.assert_array_equal(read_mask(dataset.test[-1], (SIDE, SIDE)), ELLIPSE)
    assert read_image(dataset.test[0]).shape == (SIDE, SIDE, 3)


def test_what_is_left_out_and_what_is_coarse_is_said(dagm: Path) -> None:
    assert open_dataset(dagm).notes == ("Train: 2 of 8 are defective and left out", COARSE)


def test_without_a_mask_in_the_test_nothing_is_coarse(dagm: Path) -> None:
    for label in (dagm / "Test" / "Label").iterdir():
        label.unlink()
    assert open_dataset(dagm).notes == ("Train: 2 of 8 are defective and left out",)


def test_a_label_that_the_list_names_and_nobody_has_still_counts(dagm: Path) -> None:
    """Learning a defective picture as good because a file was not copied would be silent."""
    (dagm / "Train" / "Label" / "0008_label.PNG").unlink()
    (dagm / "Test" / "Label" / "0001_label.PNG").unlink()
    dataset = open_dataset(dagm)
    assert "0008.PNG" not in [sample.image.name for sample in dataset.train]
    assert [sample.mask is None for sample in dataset.test if sample.anomalous] == [True, False, False]
    notes = "\n".join(dataset.notes)
    assert "Train: defective: 1 of 2 pictures have no mask" in notes and "0008.PNG" in notes
    assert "Test: defective: 1 of 3 pictures have no mask" in notes and "0001.PNG" in notes


def test_a_label_without_a_picture_is_said(dagm: Path) -> None:
    (dagm / "Train" / "0009.PNG").unlink()
    assert any("1 mask(s) belong to no picture" in note and "0009_label" in note for note in open_dataset(dagm).notes)


def test_lists_are_optional_and_names_may_be_in_lower_case(dagm: Path) -> None:
    want = open_dataset(dagm)
    for folder in ("Train", "Test"):
        (dagm / folder / "Label" / "Labels.txt").unlink()
        (dagm / folder / "Label").rename(dagm / folder / "label")
        (dagm / folder).rename(dagm / folder.lower())
    got = open_dataset(dagm)
    assert [sample.image.name for sample in got.train] == [sample.image.name for sample in want.train]
    assert [sample.defect for sample in got.test] == [sample.defect for sample in want.test]


def test_only_defective_pictures_to_train_are_refused(dagm: Path) -> None:
    for number in range(2, 8):
        (dagm / "Train" / f"{number:04d}.PNG").unlink()
    with pytest.raises(SourceError, match=r"Train: none of 2 picture\(s\) is good"):
        open_dataset(dagm)


def test_without_a_half(dagm: Path) -> None:
    (dagm / "Train").rename(dagm.parent / "kept")
    with pytest.raises(SourceError, match=r"Train, which does not exist"):
        open_dataset(dagm)
    (dagm.parent / "kept").rename(dagm / "Train")
    (dagm / "Test").rename(dagm.parent / "kept")
    dataset = open_dataset(dagm)
    assert dataset.test == () and "there is no folder Test: nothing to evaluate on" in dataset.notes


def test_one_class_stands_for_the_folder_around_it_and_several_do_not(dagm: Path) -> None:
    assert open_dataset(dagm.parent) == open_dataset(dagm) == open_labelled(dagm.parent, "")
    half(dagm.parent / "Class2" / "Train", good=range(3), defective=range(3, 4))
    with pytest.raises(SourceError, match=r"2 categories: Class1, Class2; name one, such as .*Class1"):
        open_dataset(dagm.parent)


def test_one_half_alone_is_not_taken_for_good_pictures(dagm: Path) -> None:
    with pytest.raises(SourceError, match="got pictures in the folders Label"):
        open_dataset(dagm / "Train")


def test_an_unreadable_list_is_refused(dagm: Path) -> None:
    file = dagm / "Train" / "Label" / "Labels.txt"
    file.unlink()
    file.mkdir()
    with pytest.raises(SourceError, match=r"Labels\.txt cannot be read: Is a directory"):
        open_dataset(dagm)
