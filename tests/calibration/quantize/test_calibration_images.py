"""Which images calibrate and which judge, drawn the same way everywhere; and the hash of a choice."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
from calibration_files import picture, write
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_ad.calibration.quantize.images import Chosen, chosen_images, content_sha256, few_images
from edge_ad.datasets import Sample
from edge_ad.errors import SourceError


def numbered(first: int, last: int, below: str = "") -> dict[str, bytes]:
    """Files that are different, and no pictures: choosing reads no pixel."""
    return {f"{below}{index:03}.png": f"picture {index}".encode() for index in range(first, last)}


def names(samples: Iterable[Sample]) -> list[str]:
    return [sample.image.name for sample in samples]


def contents(samples: Iterable[Sample]) -> list[bytes]:
    return [sample.image.read_bytes() for sample in samples]


def choose(data: Path, val: Path | None = None, *, count: int = 512, seed: int = 0) -> Chosen:
    return chosen_images(data, val, count=count, seed=seed)


def in_lowest_fifth(content: bytes) -> bool:
    """The rule once more, in floating point over the whole hash."""
    return int(hashlib.sha256(content).hexdigest(), 16) / 2.0**256 < 0.2


# What is held out, and what is drawn


def test_about_a_fifth_is_held_out_by_content(tmp_path: Path) -> None:
    files = numbered(0, 400)
    chosen = choose(write(tmp_path, files))
    assert names(chosen.held_out) == [name for name, content in files.items() if in_lowest_fifth(content)]
    assert len(chosen.held_out) == pytest.approx(80, abs=4 * math.sqrt(400 * 0.2 * 0.8))
    assert sorted(names((*chosen.calibration, *chosen.held_out))) == sorted(files)
    assert not chosen.labelled
    assert any(f"{len(chosen.held_out)} of 400 good images are held out" in note for note in chosen.notes)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=6), min_size=2, max_size=30),
    st.integers(1, 40),
    st.integers(-(2**40), 2**40),
    st.randoms(use_true_random=False),
)
def test_the_choice_hangs_on_content_and_seed_alone(files: list[bytes], count: int, seed: int, random: Random) -> None:
    different = set(files)
    shuffled = random.sample(files, len(files))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        first = write(Path(one), {f"{index}.png": content for index, content in enumerate(files)})
        second = write(Path(two), {f"other/b{index}.jpg": content for index, content in enumerate(shuffled)}) / "other"
        if len(different) == 1:
            with pytest.raises(SourceError, match="at least 2 different good images"):
                choose(first, count=count, seed=seed)
            return
        chosen, again = (choose(folder, count=count, seed=seed) for folder in (first, second))
        calibration, held_out = contents(chosen.calibration), contents(chosen.held_out)
        assert contents(again.calibration) == calibration
        assert sorted(contents(again.held_out)) == sorted(held_out)
        assert not set(calibration) & set(held_out)
        assert len(set(calibration)) == len(calibration) and len(set(held_out)) == len(held_out)
        assert set(calibration) | set(held_out) <= different
        assert len(calibration) == min(count, len(different) - len(held_out)) >= 1
        assert 1 <= len(held_out) < len(different)
        fewer = choose(first, count=max(count // 2, 1), seed=seed)
        assert contents(fewer.calibration) == calibration[: max(count // 2, 1)]


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.binary(min_size=1, max_size=6), min_size=8, max_size=30),
    st.sets(st.binary(min_size=1, max_size=6), min_size=1, max_size=10),
)
def test_more_images_move_none_that_are_there(files: set[bytes], more: set[bytes]) -> None:
    # Were one side empty, one image would stand in for it until there is another.
    assume({in_lowest_fifth(content) for content in files} == {True, False})
    sides = []
    for present in (files, files | more):
        with tempfile.TemporaryDirectory() as folder:
            chosen = choose(write(Path(folder), {f"{content.hex()}.png": content for content in present}))
            sides.append((set(contents(chosen.calibration)), set(contents(chosen.held_out))))
    (calibration, held_out), (more_calibration, more_held_out) = sides
    assert calibration <= more_calibration
    assert held_out <= more_held_out


def test_another_seed_draws_other_images_of_the_same(tmp_path: Path) -> None:
    write(tmp_path, numbered(0, 400))
    draws = [choose(tmp_path, count=50, seed=seed) for seed in (0, 1)]
    assert draws[0].held_out == draws[1].held_out
    first, second = (set(names(chosen.calibration)) for chosen in draws)
    # Two draws of 50 of about 320 share 7.8 on average (hypergeometric, standard deviation 2.4).
    assert len(first & second) < 20
    assert draws[1].drawn.startswith("50 of") and draws[1].drawn.endswith("seed 1")


def test_every_image_is_drawn_equally_often(tmp_path: Path) -> None:
    write(tmp_path, numbered(0, 20))
    drawn = [name for seed in range(200) for name in names(choose(tmp_path, count=4, seed=seed).calibration)]
    free = len(set(drawn))
    assert free == 20 - len(choose(tmp_path).held_out)
    wanted = 200 * 4 / free
    deviation = math.sqrt(200 * 4 / free * (1 - 4 / free))
    assert all(abs(drawn.count(name) - wanted) < 4.5 * deviation for name in set(drawn))


@pytest.mark.parametrize("images", [2, 3, 4])
def test_few_images_hold_out_one(tmp_path: Path, images: int) -> None:
    """Even where none of them is in the lowest fifth."""
    files = {name: content for name, content in numbered(0, 100).items() if not in_lowest_fifth(content)}
    chosen = choose(write(tmp_path, dict(list(files.items())[:images])))
    assert (len(chosen.calibration), len(chosen.held_out)) == (images - 1, 1)


def test_not_all_images_are_held_out(tmp_path: Path) -> None:
    lowest = [content for content in numbered(0, 100).values() if in_lowest_fifth(content)][:3]
    chosen = choose(write(tmp_path, {f"{index}.png": content for index, content in enumerate(lowest)}))
    assert (len(chosen.calibration), len(chosen.held_out)) == (1, 2)


def test_one_image_alone_is_refused_with_advice(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": b"same", "b.png": b"same"})
    with pytest.raises(SourceError, match=r"at least 2 different good images.*got 1.*add images.*--val"):
        choose(tmp_path)
    other = write(tmp_path / "other", {"c.png": b"another"})
    chosen = choose(write(tmp_path / "one", {"a.png": b"same"}), other)
    assert (names(chosen.calibration), names(chosen.held_out)) == (["a.png"], ["c.png"])


def test_copies_count_once(tmp_path: Path) -> None:
    files = numbered(0, 40)
    copies = {f"copy of {name}": content for name, content in files.items()}
    chosen = choose(write(tmp_path, {**files, **copies}))
    assert sorted(names((*chosen.calibration, *chosen.held_out))) == sorted(files)
    assert any(note.startswith("40 of 80 images") and "copy of 000.png" in note for note in chosen.notes)
    assert not any("copies" in note for note in choose(write(tmp_path / "x", files)).notes)  # control


def test_nothing_to_draw_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        choose(tmp_path, count=0)


@pytest.mark.parametrize("what", ["empty folder", "no folder", "file"])
def test_a_place_without_images_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty folder").mkdir()
    with pytest.raises(SourceError):
        choose(tmp_path / what)
    sound = write(tmp_path / "sound", numbered(0, 10))
    with pytest.raises(SourceError):
        choose(sound, tmp_path / what)


# Data sets and --val

MVTEC = {
    **numbered(0, 10, "train/good/"),
    **numbered(10, 14, "test/good/"),
    **numbered(14, 17, "test/dent/"),
    "ground_truth/dent/014_mask.png": b"a mask",
}


def test_a_test_half_alone_judges(tmp_path: Path) -> None:
    """`good/` beside kinds of defects, as many keep it: nothing of it trains, all of it is held out."""
    whole = write(tmp_path / "set", MVTEC)
    chosen = choose(write(tmp_path / "data", numbered(100, 110)), whole / "test")
    assert chosen.labelled and len(chosen.calibration) == 10
    assert {sample.image.parent.parent for sample in chosen.held_out} == {whole / "test"}
    assert contents(chosen.held_out) == contents(choose(tmp_path / "data", whole).held_out)


@pytest.mark.parametrize("option", ["--data", "--val"])
def test_a_folder_of_no_layout_is_told_of_options_that_there_are(tmp_path: Path, option: str) -> None:
    good = write(tmp_path / "good", numbered(0, 4))
    odd = write(tmp_path / "odd", {"a/0.png": b"a", "b/0.png": b"b"})
    with pytest.raises(SourceError, match=f"pictures in the folders a, b; name a data set.*with {option}") as caught:
        choose(odd) if option == "--data" else choose(good, odd)
    assert "--good" not in str(caught.value) and "--bad" not in str(caught.value)


def test_test_images_never_calibrate(tmp_path: Path) -> None:
    chosen = choose(write(tmp_path, MVTEC))
    assert {sample.image.parent for sample in (*chosen.calibration, *chosen.held_out)} == {tmp_path / "train" / "good"}
    assert len(chosen.calibration) + len(chosen.held_out) == 10
    assert not chosen.labelled
    assert any("--val" in note for note in chosen.notes)


@pytest.mark.parametrize("apart", [True, False])
def test_labelled_test_images_are_held_out(tmp_path: Path, apart: bool) -> None:
    val = write(tmp_path / "data", MVTEC)
    data = write(tmp_path / "other", numbered(0, 10)) if apart else val
    chosen = choose(data, val)
    assert sorted(names(chosen.calibration)) == sorted(numbered(0, 10))
    assert len(chosen.held_out) == 7
    assert [sample.image.name for sample in chosen.held_out if sample.anomalous] == ["014.png", "015.png", "016.png"]
    assert [sample.mask is not None for sample in chosen.held_out if sample.anomalous] == [True, False, False]
    assert chosen.labelled
    assert not any("AUROC" in note for note in chosen.notes)
    assert sum("have no mask" in note for note in chosen.notes) == 1


@pytest.mark.parametrize("files", [numbered(20, 25), numbered(20, 25, "train/good/")])
def test_good_images_are_held_out_where_there_is_no_test(tmp_path: Path, files: dict[str, bytes]) -> None:
    chosen = choose(write(tmp_path / "data", numbered(0, 10)), write(tmp_path / "val", files))
    assert len(chosen.calibration) == 10
    assert names(chosen.held_out) == [f"{index:03}.png" for index in range(20, 25)]
    assert not chosen.labelled
    assert any("no defective image" in note for note in chosen.notes)


def test_a_test_of_defective_images_only_is_not_labelled(tmp_path: Path) -> None:
    val = write(tmp_path / "val", {name: content for name, content in MVTEC.items() if "test/good" not in name})
    chosen = choose(write(tmp_path / "data", numbered(30, 40)), val)
    assert all(sample.anomalous for sample in chosen.held_out)
    assert not chosen.labelled
    assert any("no good image" in note for note in chosen.notes)


def test_images_in_both_do_not_calibrate(tmp_path: Path) -> None:
    renamed = {f"test/good/x{name}": content for name, content in numbered(0, 4).items()}
    val = write(tmp_path / "val", {**MVTEC, **renamed})
    chosen = choose(write(tmp_path / "data", numbered(0, 8)), val)
    assert sorted(names(chosen.calibration)) == ["004.png", "005.png", "006.png", "007.png"]
    assert len(chosen.held_out) == 11
    assert not set(contents(chosen.calibration)) & set(contents(chosen.held_out))
    (note,) = (note for note in chosen.notes if "too and do not calibrate" in note)
    assert note.startswith("4 images") and note.endswith("...")
    assert "000.png" in note and "003.png" not in note


def test_the_same_folder_twice_is_refused_with_advice(tmp_path: Path) -> None:
    write(tmp_path, numbered(0, 8))
    with pytest.raises(SourceError, match=r"all 8 are in both; name other images with --val, or leave it out"):
        choose(tmp_path, tmp_path)


# The warning


def test_fewer_than_300_images_are_warned_of() -> None:
    line = few_images(299, 50)
    assert line is not None and "\n" not in line
    for part in ("only 299 images", "300 or more", "clipped", "50 images", "2.0%"):
        assert part in line
    assert few_images(300, 50) is None


# The hash


def test_a_dangling_choice_does_not_crash_the_hash(tmp_path: Path) -> None:
    gone = Sample(tmp_path / "gone.png", "good")
    before = content_sha256([gone])
    picture(gone.image)
    assert content_sha256([gone]) != before


def test_the_hash_is_that_of_the_contents(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": b"one", "b.png": b"two", "x/c.png": b"one"})
    a, b, c = (Sample(tmp_path / name, "good") for name in ("a.png", "b.png", "x/c.png"))
    one, two = hashlib.sha256(b"one").digest(), hashlib.sha256(b"two").digest()
    assert content_sha256([a, b]) == hashlib.sha256(b"".join(sorted([one, two]))).hexdigest()
    assert content_sha256([b, c]) == content_sha256([a, b])
    assert content_sha256([a]) == content_sha256([c])
    assert len({content_sha256(some) for some in ([], [a], [b], [a, b], [a, c], [a, b, c])}) == 6
    before = content_sha256([a, b])
    a.image.write_bytes(b"One")
    assert content_sha256([a, b]) != before
