"""A bundle learns good pictures that it rejects: they fall below, nothing rises, and undo gives back the same bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import Thresholds
from edge_ad.calibration.learn.graph import WEIGHT, parsed, split
from edge_ad.calibration.learn.learn import Changed, learn, unlearn
from edge_ad.calibration.learn.options import LearnOptions
from edge_ad.calibration.learn.places import place_of
from edge_ad.calibration.learn.rehearsal import Rehearsal
from edge_ad.errors import BundleError, ConfigError, GateError, SourceError
from edge_ad.image.pictures import read_picture
from edge_ad.runtime.judge.loader import open_detector

FAMILIES = {
    "patchcore": {},
    "patchcore, patches": {"score": "patch_max"},
    "patchcore, reweighted": {"score": "reweighted"},
    "patchcore, three nearest": {"nearest": 3},
    "patchcore, padded": {"resize_mode": "letterbox"},
    "simplenet, padded": {"resize_mode": "letterbox"},
    "glass": {},
    "simplenet": {},
    "draem": {},
    "efficientad": {},
}
MOMENT = datetime(2026, 12, 1, 6, 30, tzinfo=timezone.utc)
ROUNDED = 1e-6
"""Of a score, relative: a learned graph may be computed in another order, such as with other fused nodes."""
LARGEST_RISE = 9 / 8
"""The score that looks around the nearest of 9 entries is a distance times 8/9 to 1, and what lies around may change;
distances alone cannot rise."""


@pytest.fixture
def teach(tools: Any, tmp_path: Path) -> Callable[..., Bundle]:
    """Learn from a folder and write the bundle."""
    written = 0

    def run(bundle: Bundle, folder: Path, said: list[str] | None = None, **options: Any) -> Bundle:
        nonlocal written
        written += 1
        told = LearnOptions(bundle=bundle.path, output=tmp_path / f"{written}.edgead", good=folder, **options)
        heard: list[str] = [] if said is None else said
        made = learn(bundle, told, tools(bundle, heard), lambda: MOMENT)
        heard += made.lines
        return write(bundle, made, told)

    return run


def write(bundle: Bundle, made: Changed, told: LearnOptions) -> Bundle:
    return write_changed(bundle, told.destination, made.changes, files=made.files, without=made.without)


def forgotten(bundle: Bundle, number: int, output: Path) -> Bundle:
    told = LearnOptions(bundle=bundle.path, output=output, undo=bundle.manifest.learned[number].id)
    return write(bundle, unlearn(bundle, told), told)


def graph_of(bundle: Bundle) -> bytes:
    return bundle.read_file(bundle.model_file("fp32"))


def copied(source: Path, target: Path, names: list[str]) -> Path:
    target.mkdir()
    for name in names:
        shutil.copy(source / name, target / name)
    return target


@pytest.mark.parametrize("name", FAMILIES)
def test_rejected_pictures_pass_and_nothing_rises(
    name: str, ready: Any, good: Path, bad: Path, scores: Any, teach: Any, tmp_path: Path
) -> None:
    bundle = ready(name.split(",")[0], **FAMILIES[name])
    threshold = bundle.thresholds("fp32").image
    before = {**scores(bundle, good), **{f"bad/{key}": value for key, value in scores(bundle, bad).items()}}
    rejected = {key for key, value in before.items() if value >= threshold and "/" not in key}
    assert len(rejected) == 3
    learned = teach(bundle, good)
    after = {**scores(learned, good), **{f"bad/{key}": value for key, value in scores(learned, bad).items()}}
    (lesson,) = learned.manifest.learned
    assert {picture.name for picture in lesson.pictures} == rejected
    assert all(after[key] < threshold for key in rejected)
    size = max(map(abs, before.values()))
    for key, score in before.items():
        assert after[key] <= (score * LARGEST_RISE if "reweighted" in name else score) + ROUNDED * size, key
    assert {picture.name: picture.score_before for picture in lesson.pictures} == pytest.approx(
        {key: before[key] for key in rejected}, abs=ROUNDED * size
    )
    assert sum(picture.patches for picture in lesson.pictures) == lesson.patches > 0
    assert lesson.time == "2026-12-01T06:30:00.000Z" and lesson.threshold == threshold
    undone = forgotten(learned, 0, tmp_path / "undone.edgead")
    assert graph_of(undone) == graph_of(bundle) and undone.manifest.learned == ()


@pytest.mark.parametrize("name", ["patchcore", "patchcore, reweighted", "glass"])
def test_lessons_add_up_and_each_can_be_taken_back(
    name: str, ready: Any, good: Path, scores: Any, teach: Any, tmp_path: Path
) -> None:
    bundle = ready(name.split(",")[0], **FAMILIES[name])
    threshold = bundle.thresholds("fp32").image
    rejected = [key for key, value in scores(bundle, good).items() if value >= threshold]
    first = teach(bundle, copied(good, tmp_path / "one", rejected[:1]))
    second = teach(first, copied(good, tmp_path / "two", rejected[1:]))
    assert [len(lesson.pictures) for lesson in second.manifest.learned] == [1, 2]
    assert all(scores(second, good)[key] < threshold for key in rejected)
    without_second = forgotten(second, 1, tmp_path / "first.edgead")
    assert graph_of(without_second) == graph_of(first)
    without_first = forgotten(second, 0, tmp_path / "second.edgead")
    (kept,) = without_first.manifest.learned
    rows = split(parsed(graph_of(without_first)))[1][WEIGHT]
    both = split(parsed(graph_of(second)))[1][WEIGHT]
    assert len(rows) == kept.patches and np.array_equal(rows, both[-kept.patches :])
    assert scores(without_first, good)[rejected[0]] >= threshold
    neither = forgotten(without_first, 0, tmp_path / "neither.edgead")
    assert graph_of(neither) == graph_of(bundle)


def test_padding_is_never_learned(ready: Any, good: Path, teach: Any) -> None:
    """Wide pictures on a square canvas: what is above and below them has one look, which no row has."""
    learned = teach(ready("patchcore", resize_mode="letterbox"), good)
    rows = split(parsed(graph_of(learned)))[1][WEIGHT][:, :, 0, 0]
    with open_detector(learned, precision="fp32") as detector:
        verdict = detector.judge(read_picture(str(good / "00.png")))
    assert verdict.maps is not None and not verdict.maps.geometry.is_filled
    base, _ = split(parsed(graph_of(learned)))
    place, none = place_of(learned.manifest, base, {})
    picture = np.zeros((64, 64, 3), np.uint8)
    padding = Rehearsal(base, place, none).scene(picture).patches.reshape(len(rows[0]), -1).T
    distances = np.linalg.norm(rows[:, None] - padding[None], axis=2)
    assert distances.min() > 1e-3


def test_pictures_that_are_the_same_count_once(ready: Any, good: Path, teach: Any, tmp_path: Path) -> None:
    names = [path.name for path in sorted(good.iterdir())]
    twice = copied(good, tmp_path / "twice", names)
    for name in names:
        Image.open(good / name).save(twice / f"z-{name}.bmp")
    said: list[str] = []
    learned = teach(ready("glass"), twice, said)
    assert sum("is the same picture as" in line for line in said) == 3
    assert graph_of(learned) == graph_of(teach(ready("glass"), good))


def test_a_model_of_lower_precision_is_left_out_and_said(ready: Any, good: Path, teach: Any) -> None:
    bundle, said = ready("draem"), []
    assert set(bundle.manifest.models) == {"fp32", "int8"}
    learned = teach(bundle, good, said)
    assert learned.manifest.models == {"fp32": "model.onnx"} and set(learned.manifest.files) == {"model.onnx"}
    assert any("int8 was proven on the float model as it was" in line for line in said)


def test_recall_is_measured_and_bounded(ready: Any, good: Path, bad: Path, scores: Any, teach: Any) -> None:
    bundle = ready("patchcore")
    threshold = bundle.thresholds("fp32").image
    learned = teach(bundle, good, bad=bad, max_recall_drop=1.0)
    (lesson,) = learned.manifest.learned
    for found, side in ((lesson.recall_before, bundle), (lesson.recall_after, learned)):
        ranked = scores(side, bad).values()
        assert found == sum(score >= threshold for score in ranked) / len(ranked)
    assert lesson.defective == 8


def test_what_costs_too_much_recall_is_refused(
    ready: Any, good: Path, bad: Path, scores: Any, teach: Any, tmp_path: Path
) -> None:
    """Control of the whole: defective pictures taught as good ones make their like pass."""
    bundle = ready("patchcore")
    names = [path.name for path in sorted(bad.iterdir())]
    wrong = copied(bad, tmp_path / "wrong", names[::2])
    others = copied(bad, tmp_path / "others", names[1::2])
    between = (max(scores(bundle, good).values()) + min(scores(bundle, bad).values())) / 2
    sound = write_changed(bundle, tmp_path / "sound.edgead", {"thresholds": Thresholds(between)})
    said: list[str] = []
    free = teach(sound, wrong, said, bad=others, max_recall_drop=1.0)
    (lesson,) = free.manifest.learned
    assert (lesson.recall_before, lesson.recall_after) == (1.0, 0.0)
    assert sum("look once more whether the part is good" in line for line in said) >= 1
    with pytest.raises(GateError, match=r"would fall from 1\.000 to 0\.000, allowed is a drop of 0\.02; lost: .*"):
        teach(sound, wrong, bad=others)


def test_a_picture_of_another_line_is_warned_of_and_not_learned(
    ready: Any, good: Path, teach: Any, tmp_path: Path
) -> None:
    bundle = ready("patchcore")
    (tmp_path / "foreign").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "foreign" / "noise.png")
    said: list[str] = []
    with pytest.raises(SourceError, match="none of the 1 rejected pictures is learned"):
        teach(bundle, tmp_path / "foreign", said)
    assert any("noise.png: not learned" in line and "another line" in line for line in said)


def test_what_cannot_be_learned_is_refused(ready: Any, good: Path, bad: Path, teach: Any, tmp_path: Path) -> None:
    bundle = ready("glass")
    with pytest.raises(ConfigError, match="has no threshold"):
        teach(write_changed(bundle, tmp_path / "a.edgead", {"thresholds": Thresholds()}), good)
    high = write_changed(bundle, tmp_path / "b.edgead", {"thresholds": Thresholds(0.999)})
    with pytest.raises(SourceError, match=r"the float model rejects none of 10 pictures at 0\.999"):
        teach(high, good)
    same = copied(good, tmp_path / "same", ["00.png"])
    with pytest.raises(SourceError, match="the same picture, defective"):
        teach(bundle, good, bad=same)
    other = replace(bundle.manifest.model, family="cpr")
    with pytest.raises(ConfigError, match="family 'cpr' has nothing that tells good patches apart"):
        teach(write_changed(bundle, tmp_path / "c.edgead", {"model": other}), good)
    other = replace(bundle.manifest.model, family="patchcore")
    with pytest.raises(BundleError, match="searches no bank"):
        teach(write_changed(bundle, tmp_path / "d.edgead", {"model": other}), good)
    other = replace(bundle.manifest.model, family="unheard-of")
    with pytest.raises(ConfigError, match="unknown"):
        teach(write_changed(bundle, tmp_path / "e.edgead", {"model": other}), good)


def test_a_lesson_that_is_not_there(ready: Any, good: Path, teach: Any, tmp_path: Path) -> None:
    bundle = ready("glass")
    told = LearnOptions(bundle=bundle.path, output=tmp_path / "x", undo="0badcafe")
    with pytest.raises(ConfigError, match="holds no lesson '0badcafe'; it has learned nothing"):
        unlearn(bundle, told)
    learned = teach(bundle, good)
    with pytest.raises(ConfigError, match=f"it holds {learned.manifest.learned[0].id}"):
        unlearn(learned, told)


@pytest.mark.parametrize("family", ["patchcore", "glass"])
def test_a_manifest_that_tells_of_other_lessons_than_its_graph_holds(
    family: str, ready: Any, good: Path, teach: Any, tmp_path: Path
) -> None:
    learned = teach(ready(family), good)
    (lesson,) = learned.manifest.learned
    false = write_changed(
        learned, tmp_path / "false.edgead", {"learned": (replace(lesson, patches=lesson.patches + 1),)}
    )
    told = LearnOptions(bundle=false.path, output=tmp_path / "x", undo=lesson.id)
    with pytest.raises(BundleError, match="its manifest tells of"):
        unlearn(false, told)
    bare = write_changed(ready(family), tmp_path / "bare.edgead", {"learned": (lesson,)})
    with pytest.raises(BundleError, match="its graph holds 0"):
        unlearn(bare, LearnOptions(bundle=bare.path, output=tmp_path / "y", undo=lesson.id))


def test_what_is_not_learned_sets_nothing(ready: Any, good: Path, teach: Any, tmp_path: Path) -> None:
    """A picture of another line beside good ones: the radius and all rows are those without it."""
    bundle = ready("glass")
    names = [path.name for path in sorted(good.iterdir())]
    mixed = copied(good, tmp_path / "mixed", names)
    checks = np.where(np.add.outer(np.arange(70) // 3, np.arange(90) // 3) % 2, 20, 235).astype(np.uint8)
    Image.fromarray(checks).convert("RGB").save(mixed / "zz.png")
    said: list[str] = []
    assert graph_of(teach(bundle, mixed, said)) == graph_of(teach(bundle, good))
    assert any("zz.png: not learned" in line for line in said)


def test_a_picture_that_needs_too_much_is_not_learned(
    ready: Any, good: Path, teach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_ad.calibration.learn.lesson.MOST_PATCHES", 1)
    said: list[str] = []
    with pytest.raises(SourceError, match="none of the 3 rejected pictures is learned"):
        teach(ready("efficientad"), good, said)
    assert any("1 of its" in line and "choose another threshold" in line for line in said)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_a_name_that_is_no_text_goes_into_the_record(ready: Any, good: Path, teach: Any, tmp_path: Path) -> None:
    folder = copied(good, tmp_path / "bytes", [])
    for path in good.iterdir():
        shutil.copy(path, os.fsencode(folder) + b"/pr\xfcf-" + os.fsencode(path.name))
    (lesson,) = teach(ready("glass"), folder).manifest.learned
    assert all(picture.name.startswith("pr\\udcfcf-") for picture in lesson.pictures)
