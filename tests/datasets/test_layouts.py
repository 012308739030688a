"""What a folder means: every layout, with the odd files that real folders hold. No pixel is read."""

from __future__ import annotations

import csv
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.datasets import Dataset, Sample, open_dataset, open_labelled, plain_dataset
from edge_ad.datasets.folders import hold_out, match_masks
from edge_ad.errors import SourceError
from edge_ad.image import pictures

Touch = Callable[..., Path]


@pytest.fixture
def touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Touch:
    """Makes empty files below `tmp_path` and returns it; whoever reads pixels while opening fails on them."""

    def refuse(path: str) -> None:
        raise AssertionError(f"{path} was decoded while opening")

    monkeypatch.setattr(pictures, "_opened", refuse)

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return tmp_path

    return make


def rows(samples: tuple[Sample, ...], root: Path) -> list[tuple[str, str, str | None]]:
    def name(path: Path | None) -> str | None:
        return None if path is None else str(path.relative_to(root))

    return [(str(sample.image.relative_to(root)), sample.defect, name(sample.mask)) for sample in samples]


MVTEC = (
    "train/good/10.png",
    "train/good/9.png",
    "test/good/0.png",
    "test/scratch/0.png",
    "test/scratch/1.jpg",
    "test/unmasked/0.png",
    "ground_truth/scratch/0_mask.png",
    "ground_truth/scratch/1_mask.bmp",
)


def test_mvtec_in_natural_order(touch: Touch) -> None:
    root = touch(*MVTEC, "train/good/.hidden.png", "train/good/notes.txt", ".git/x.png", "license.txt")
    dataset = open_dataset(root)
    assert (dataset.name, dataset.layout, dataset.notes) == (root.name, "mvtec", ())
    assert rows(dataset.train, root) == [("train/good/9.png", "good", None), ("train/good/10.png", "good", None)]
    assert rows(dataset.test, root) == [
        ("test/good/0.png", "good", None),
        ("test/scratch/0.png", "scratch", "ground_truth/scratch/0_mask.png"),
        ("test/scratch/1.jpg", "scratch", "ground_truth/scratch/1_mask.bmp"),
        ("test/unmasked/0.png", "unmasked", None),
    ]
    assert [sample.anomalous for sample in dataset.test] == [False, True, True, True]


def test_masks_of_mpdd_and_wfdd_have_the_name_of_the_picture(touch: Touch) -> None:
    root = touch("train/good/0.png", "test/hole/000.png", "ground_truth/hole/000.png")
    assert rows(open_dataset(root).test, root) == [("test/hole/000.png", "hole", "ground_truth/hole/000.png")]


def test_a_mask_with_the_suffix_is_preferred_and_the_other_one_named(touch: Touch) -> None:
    root = touch("train/good/0.png", "test/a/0.png", "ground_truth/a/0.png", "ground_truth/a/0_mask.png")
    dataset = open_dataset(root)
    assert dataset.test[0].mask == root / "ground_truth/a/0_mask.png"
    assert len(dataset.notes) == 1 and "1 mask(s) belong to no picture" in dataset.notes[0]
    assert str(root / "ground_truth/a/0.png") in dataset.notes[0]


def test_what_is_left_out_is_noted(touch: Touch) -> None:
    root = touch(*MVTEC, "ground_truth/scratch/7_mask.png", "test/scratch/3.png", "ground_truth/gone/0.png")
    touch("train/bad/0.png", "test/loose.png")
    (root / "test/nothing").mkdir()
    notes = "\n".join(open_dataset(root).notes)
    assert "1 of 3 pictures have no mask" in notes and "3.png" in notes
    assert "1 mask(s) belong to no picture" in notes and "7_mask.png" in notes
    assert "no pictures in test for gone" in notes
    assert "not bad" in notes
    assert "1 picture(s) in no folder of a type" in notes
    assert "folder 'nothing' holds no picture" in notes


def test_without_a_test_folder_the_test_is_empty(touch: Touch) -> None:
    dataset = open_dataset(touch("train/good/0.png"))
    assert dataset.test == () and "nothing to evaluate" in dataset.notes[0]


def test_ambiguous_masks_are_refused_by_name(touch: Touch) -> None:
    root = touch("train/good/0.png", "test/a/0.png", "ground_truth/a/0_mask.png", "ground_truth/a/0_mask.bmp")
    with pytest.raises(SourceError, match=r"0\.png has two masks, .*0_mask\.bmp, .*0_mask\.png; remove one"):
        open_dataset(root)
    (root / "ground_truth/a/0_mask.bmp").unlink()
    touch("test/a/0.jpg")
    with pytest.raises(SourceError, match=r"0_mask\.png fits two pictures, .*0\.jpg and .*0\.png; rename one"):
        open_dataset(root)


@pytest.mark.parametrize("folder", ["fg_mask", "foreground", "fg_mask/good", "fg_mask/train/good"])
def test_foreground_masks_are_found_by_stem(touch: Touch, folder: str) -> None:
    root = touch("train/good/0.png", "train/good/1.png", f"{folder}/1.jpg", f"{folder}/9.jpg")
    if "/" in folder:  # those of test images are no second choice
        touch("fg_mask/test/good/1.jpg")
    dataset = open_dataset(root)
    assert [sample.foreground for sample in dataset.train] == [None, root / folder / "1.jpg"]
    assert any("foreground: 1 of 2 pictures have no mask" in note for note in dataset.notes)
    assert any("foreground: 1 mask(s) belong to no picture" in note for note in dataset.notes)


def test_a_folder_around_one_category_stands_for_it(touch: Touch) -> None:
    root = touch("bottle/train/good/0.png", "readme.txt", "split_csv/x.csv")
    assert open_dataset(root) == open_dataset(root / "bottle")
    assert open_dataset(root).name == "bottle"


def test_several_categories_are_refused_by_name(touch: Touch) -> None:
    root = touch("zipper/train/good/0.png", "bottle/train/good/0.png", "pcb/Data/Images/Normal/0.JPG")
    with pytest.raises(SourceError, match=r"3 categories: bottle, pcb, zipper; name one, such as .*bottle"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "got no good image"),
        (("notes.txt",), "got no good image"),
        (("good/0.png", "bad/0.png"), "pictures in the folders bad, good"),
        (("train/0.png", "test/a/0.png"), "pictures in the folders test, train"),
        (("0.png", "defects/0.png"), "pictures in the folders defects"),
        (("train/good/notes.txt",), "no good image to learn from"),
        (("Data/Images/Normal/notes.txt",), "no good image to learn from"),
    ],
)
def test_no_good_image_or_no_layout_is_refused(touch: Touch, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_dataset(touch(*names))


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent cannot be listed: No such file"):
        open_dataset(tmp_path / "absent")
    (tmp_path / "file.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"file\.png cannot be listed: Not a directory"):
        open_dataset(tmp_path / "file.png")
    with pytest.raises(SourceError, match=r"file\.png, which is a file"):
        plain_dataset(tmp_path / "file.png")
    with pytest.raises(SourceError, match=r"absent, which does not exist"):
        plain_dataset(tmp_path / "absent")


def test_links_out_of_the_tree_are_followed(touch: Touch, tmp_path: Path) -> None:
    root = touch("store/0.png", "store/1.png", "set/test/good/0.png").joinpath("set")
    (root / "train").mkdir()
    (root / "train/good").symlink_to(tmp_path / "store")
    assert len(open_dataset(root).train) == 2


VISA = (
    *(f"candle/Data/Images/Normal/{number:04d}.JPG" for number in range(30)),
    "candle/Data/Images/Anomaly/000.JPG",
    "candle/Data/Images/Anomaly/001.JPG",
    "candle/Data/Masks/Anomaly/000.png",
    "candle/Data/Masks/Anomaly/001.png",
)
COLUMNS = ["object", "split", "label", "image", "mask"]


def write_split(root: Path, lines: list[list[str]], columns: list[str] = COLUMNS) -> None:
    (root / "split_csv").mkdir(exist_ok=True)
    with (root / "split_csv/1cls.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *lines])


def test_visa_by_its_split_file(touch: Touch) -> None:
    root = touch(*VISA)
    normal = [f"candle/Data/Images/Normal/{number:04d}.JPG" for number in range(30)]
    anomalies = [
        f"candle/Data/{kind}/Anomaly/00{n}.{end}" for n in (1, 0) for kind, end in (("Images", "JPG"), ("Masks", "png"))
    ]
    lines = [["candle", "train", "normal", name, ""] for name in reversed(normal[3:])]
    lines += [["candle", "test", "anomaly", *anomalies[:2]], ["candle", "test", "anomaly", *anomalies[2:]]]
    lines += [["candle", "test", "normal", name, ""] for name in normal[:3]]
    lines += [["pcb1", "train", "normal", "pcb1/absent.JPG", ""]]
    write_split(root, lines)
    for dataset in (open_dataset(root), open_dataset(root / "candle")):
        assert (dataset.name, dataset.layout) == ("candle", "visa")
        assert rows(dataset.train, root) == [(name, "good", None) for name in normal[3:]]
        assert rows(dataset.test, root) == [(name, "good", None) for name in normal[:3]] + [
            (anomalies[2], "Anomaly", anomalies[3]),
            (anomalies[0], "Anomaly", anomalies[1]),
        ]
        assert dataset.notes == ("split: split_csv/1cls.csv",)


def test_visa_without_a_split_file_holds_a_tenth_out(touch: Touch) -> None:
    root = touch(*VISA)
    dataset = open_dataset(root)
    assert len(dataset.train) == 27
    assert [sample.defect for sample in dataset.test] == ["good"] * 3 + ["Anomaly"] * 2
    assert rows(dataset.test, root)[3][2] == "candle/Data/Masks/Anomaly/000.png"
    assert "no split_csv/1cls.csv" in dataset.notes[0] and "3 of 30 good images are held out" in dataset.notes[0]
    write_split(root, [["pcb1", "train", "normal", "pcb1/0.JPG", ""]])
    other = open_dataset(root)
    assert (other.train, other.test) == (dataset.train, dataset.test)
    assert "no rows for the object 'candle'" in other.notes[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["candle", "val", "normal", "candle/Data/Images/Normal/0000.JPG", ""], "wanted the split train or test"),
        (["candle", "test", "bad", "candle/Data/Images/Normal/0000.JPG", ""], "wanted the label normal or anomaly"),
        (["candle", "train", "anomaly", "candle/Data/Images/Anomaly/000.JPG", ""], "holds good images only"),
        (["candle", "train", "normal", "candle/Data/Images/Normal/9999.JPG", ""], "9999.JPG does not exist"),
        (["candle", "train", "normal", "", ""], "no image"),
        (["candle", "test", "normal", "candle/Data/Images/Normal/0000.JPG", ""], "no training image"),
    ],
)
def test_a_faulty_split_file_is_refused(touch: Touch, line: list[str], words: str) -> None:
    root = touch(*VISA)
    write_split(root, [line])
    with pytest.raises(SourceError, match=words) as caught:
        open_dataset(root)
    assert "1cls.csv" in str(caught.value)


def test_a_split_file_that_is_no_table_is_refused(touch: Touch) -> None:
    root = touch(*VISA)
    write_split(root, [], ["object", "image"])
    with pytest.raises(SourceError, match=r"column\(s\) split, label, mask missing"):
        open_dataset(root)
    (root / "split_csv/1cls.csv").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(SourceError, match="no table of comma-separated values"):
        open_dataset(root)


def test_a_plain_folder_is_good_images_only(touch: Touch) -> None:
    root = touch("b10.png", "b9.jpg", "notes.txt")
    dataset = open_dataset(root)
    assert dataset == plain_dataset(root)
    assert (dataset.layout, dataset.test, dataset.notes) == ("plain", (), ())
    assert rows(dataset.train, root) == [("b9.jpg", "good", None), ("b10.png", "good", None)]


def test_good_bad_and_masks(touch: Touch) -> None:
    root = touch(*(f"good/day{n % 2}/{n}.png" for n in range(20)), "bad/0.png", "bad/dent/a.png", "bad/dent/b.png")
    touch("masks/0.png", "masks/elsewhere/a_mask.png", "masks/z.png")
    dataset = plain_dataset(root / "good", root / "bad", root / "masks")
    assert len(dataset.train) == 16
    held_out, bad = dataset.test[:4], dataset.test[4:]
    assert {sample.defect for sample in dataset.train + held_out} == {"good"}
    assert {sample.image for sample in dataset.train + held_out} == set((root / "good").rglob("*.png"))
    assert rows(bad, root) == [
        ("bad/0.png", "bad", "masks/0.png"),
        ("bad/dent/a.png", "dent", "masks/elsewhere/a_mask.png"),
        ("bad/dent/b.png", "dent", None),
    ]
    assert len(dataset.notes) == 3
    assert "4 of 20 good images are held out" in dataset.notes[0]
    assert "1 of 3 pictures have no mask" in dataset.notes[1] and "1 mask(s) belong to no picture" in dataset.notes[2]


def test_of_one_good_image_none_is_held_out(touch: Touch) -> None:
    root = touch("good/0.png", "bad/0.png")
    dataset = plain_dataset(root / "good", root / "bad")
    assert len(dataset.train) == len(dataset.test) == 1 and dataset.test[0].anomalous
    assert "the only good image" in dataset.notes[0]


def test_masks_in_the_folders_of_the_pictures_go_before_those_elsewhere(touch: Touch) -> None:
    root = touch("good/0.png", "bad/x/0.png", "bad/y/0.png", "masks/x/0.png", "masks/y/0.png")
    dataset = plain_dataset(root / "good", root / "bad", root / "masks")
    assert [row[2] for row in rows(dataset.test, root)] == ["masks/x/0.png", "masks/y/0.png"]


@pytest.mark.parametrize(
    ("good", "bad", "masks", "words"),
    [
        (".", "bad", None, "good and bad lie in one another"),
        ("good", "good", None, "good and bad lie in one another"),
        ("good", "good/inner", None, "good and bad lie in one another"),
        ("good", "bad", "bad/masks", "bad and masks lie in one another"),
        ("good", "linked", None, "good and bad lie in one another"),
        ("good", "empty", None, "holds no defective image"),
        ("empty", "bad", None, "holds no good image"),
        ("good", None, "masks", "name their folder too"),
        ("good", "mixed", None, "holds pictures in .*mixed/good; move them"),
        ("good", "bad", "absent", "absent, which does not exist"),
    ],
)
def test_plain_folders_that_contradict_themselves(
    touch: Touch, good: str, bad: str | None, masks: str | None, words: str
) -> None:
    root = touch("good/0.png", "good/inner/0.png", "bad/0.png", "bad/masks/0.png", "masks/0.png", "mixed/good/0.png")
    (root / "empty").mkdir()
    (root / "linked").symlink_to(root / "good")
    with pytest.raises(SourceError, match=words):
        plain_dataset(root / good, None if bad is None else root / bad, None if masks is None else root / masks)


def test_a_bad_folder_called_good_is_still_bad(touch: Touch) -> None:
    root = touch("train/0.png", "x/good/0.png")
    assert plain_dataset(root / "train", root / "x/good").test[-1].anomalous


names = st.lists(st.text("abc09_", min_size=1, max_size=4), unique=True, min_size=2, max_size=30)


@given(names, st.randoms(use_true_random=False), st.sampled_from([Fraction(1, 5), Fraction(1, 10)]))
def test_what_is_held_out_depends_on_the_names_alone(found: list[str], random: Random, share: Fraction) -> None:
    here = [Path("here", name + ".png") for name in found]
    there = [Path("other/place", name + ".png") for name in found]
    random.shuffle(there)
    kept, held_out = hold_out(here, Path("here"), share)
    assert sorted(kept + held_out) == sorted(here)
    assert len(held_out) == max(1, int(len(here) * share))
    assert {path.name for path in hold_out(there, Path("other/place"), share)[1]} == {path.name for path in held_out}


@given(names, st.data())
def test_every_mask_goes_to_the_picture_of_its_name_or_to_none(found: list[str], data: st.DataObject) -> None:
    """Names with `_mask` in them are left out: whether `a_mask` is a picture's own name cannot be told."""
    masked = data.draw(st.lists(st.sampled_from(found), unique=True))
    suffix = data.draw(st.sampled_from(["", "_mask"]))
    images, masks = [Path("i", name + ".png") for name in found], [Path("m", name + suffix + ".bmp") for name in masked]
    matched = match_masks(images, Path("i"), [*masks, Path("m/none.bmp")], Path("m"))
    want = [Path("m", name + suffix + ".bmp") if name in masked else None for name in found]
    assert list(matched.masks) == want
    assert matched.unused == (Path("m/none.bmp"),)


def test_the_photographs(shared: Path) -> None:
    cookies: Dataset = open_dataset(shared / "data" / "cookies")
    assert (len(cookies.train), len(cookies.test), cookies.notes) == (31, 54, ())
    with_mask = [sample for sample in cookies.test if sample.mask is not None]
    assert len(with_mask) == 32 and {sample.defect for sample in with_mask} == {"cracked"}


# Spellings, halves, and files that are there twice


@pytest.mark.parametrize("good", ["Good", "GOOD"])
def test_good_in_another_case_is_good_and_said(touch: Touch, good: str) -> None:
    root = touch(f"Train/{good}/0.JPG", f"TEST/{good}/1.JPG", "TEST/Scratch/2.JPG", "Ground_Truth/scratch/2_mask.PNG")
    dataset = open_dataset(root)
    assert rows(dataset.train, root) == [(f"Train/{good}/0.JPG", "good", None)]
    assert rows(dataset.test, root) == [
        (f"TEST/{good}/1.JPG", "good", None),
        ("TEST/Scratch/2.JPG", "Scratch", "Ground_Truth/scratch/2_mask.PNG"),
    ]
    assert dataset.notes == (f"Train: {good!r} is read as 'good'", f"TEST: {good!r} is read as 'good'")


def test_two_spellings_of_one_folder_are_refused(touch: Touch) -> None:
    root = touch("train/good/0.png", "test/good/0.png", "test/Good/1.png")
    with pytest.raises(SourceError, match=r"test holds the folders .*Good, .*good, which mean the same; keep one"):
        open_dataset(root)


@pytest.mark.parametrize("name", ["ok", "OK", "Normal", "defect-free"])
def test_a_name_of_good_parts_that_counts_as_a_defect_is_said(touch: Touch, name: str) -> None:
    dataset = open_dataset(touch("train/good/0.png", f"test/{name}/0.png", "test/oken/0.png"))
    assert {sample.defect for sample in dataset.test} == {name, "oken"}
    assert dataset.notes == (f"test: {name!r} counts as a kind of defect; good pictures stand in 'good'",)


def test_defective_pictures_in_a_folder_called_good_in_another_case_are_refused(touch: Touch) -> None:
    root = touch("good/0.png", "bad/Good/0.png")
    with pytest.raises(SourceError, match=r"holds pictures in .*Good; move them"):
        plain_dataset(root / "good", root / "bad")


@pytest.mark.parametrize("truth", ["ground_truth", "half/ground_truth"])
def test_a_half_of_good_and_kinds_of_defects_is_a_test(touch: Touch, truth: str) -> None:
    root = touch("half/good/0.png", "half/dent/1.png", f"{truth}/dent/1_mask.png") / "half"
    dataset = open_labelled(root, "use --val")
    assert (dataset.name, dataset.layout, dataset.train, dataset.notes) == ("half", "mvtec", (), ())
    assert [(sample.image.name, sample.defect) for sample in dataset.test] == [("1.png", "dent"), ("0.png", "good")]
    assert [sample.mask is not None for sample in dataset.test] == [True, False]
    with pytest.raises(SourceError, match=r"pictures in the folders dent, good"):
        open_dataset(root)  # what trains does not guess


def test_what_is_no_half_is_opened_as_any_data_set(touch: Touch) -> None:
    root = touch(*MVTEC)
    assert open_labelled(root, "") == open_dataset(root)
    assert open_labelled(root / "train/good", "").layout == "plain"
    (root / "test/good/0.png").unlink()
    (root / "test/good").rmdir()
    with pytest.raises(SourceError, match="got pictures in the folders scratch, unmasked; name it with --val"):
        open_labelled(root / "test", "name it with --val")


def write_contents(root: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_test_pictures_that_are_training_pictures_are_said(tmp_path: Path) -> None:
    middle = bytes(200_000)  # the ends alone do not make two files the same
    alike = [b"a" + middle + b"x" + middle + b"z", b"a" + middle + b"y" + middle + b"z"]
    root = write_contents(
        tmp_path,
        {
            "train/good/0.png": b"twin of a good one",
            "train/good/1.png": b"twin of a bad one.",
            "train/good/2.png": alike[0],
            "train/good/3.png": b"",
            "test/good/7.bmp": b"twin of a good one",
            "test/good/8.png": alike[1],
            "test/dent/9.png": b"twin of a bad one.",
            "test/dent/3.png": b"",
        },
    )
    good, bad = open_dataset(root).notes
    assert good.startswith("1 good test picture(s) are in the training as well: figures on them are too good (")
    assert f"{root / 'test/good/7.bmp'} is {root / 'train/good/0.png'}" in good
    assert bad.startswith("1 defective test picture(s) are in the training as well: they are learned as good")
    assert f"{root / 'test/dent/9.png'} is {root / 'train/good/1.png'}" in bad


def test_very_many_twins_are_counted_and_some_named(tmp_path: Path) -> None:
    contents = {f"{half}/{n}.png": b"%d" % n for half in ("train/good", "test/good") for n in range(40)}
    (note,) = open_dataset(write_contents(tmp_path, contents)).notes
    assert note.startswith("40 good test picture(s)") and note.endswith(", ...)") and note.count(" is ") == 3


def test_twins_of_plain_folders_are_said(tmp_path: Path) -> None:
    contents = {f"good/{n}.png": b"same" for n in range(10)} | {"bad/0.png": b"same"}
    root = write_contents(tmp_path, contents)
    notes = plain_dataset(root / "good", root / "bad").notes
    assert [note.split(" are")[0] for note in notes[1:]] == ["2 good test picture(s)", "1 defective test picture(s)"]
