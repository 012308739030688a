"""A bundle and good pictures that it rejects → the bundle that knows them, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import accumulate
from typing import Any

import numpy as np

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.manifest import LearnedPicture, Lesson
from edge_ad.calibration.learn.cost import hold, told, with_recall
from edge_ad.calibration.learn.graph import Floats, joined, parsed, rows_of, split
from edge_ad.calibration.learn.lesson import Lens, teach
from edge_ad.calibration.learn.options import LearnOptions
from edge_ad.calibration.learn.pictures import Judged, inputs_of, refuse_the_same, scores_of, sha256_of, without_doubles
from edge_ad.calibration.learn.places import place_of
from edge_ad.calibration.learn.rehearsal import Rehearsal
from edge_ad.calibration.tools import Tools
from edge_ad.datasets import GOOD, Sample
from edge_ad.datasets.folders import good_pictures_in
from edge_ad.datasets.plain import defective_samples, refuse_overlap
from edge_ad.errors import BundleError, ConfigError, SourceError
from edge_ad.record.timestamps import utc_text


@dataclass(frozen=True)
class Changed:
    """What to write.

    Attributes:
        changes: fields of the manifest.
        files: the float graph.
        without: files of the bundle that speak of the graph that was.
        lines: what the user should know, one line each.
    """

    changes: Mapping[str, Any]
    files: Mapping[str, bytes]
    without: frozenset[str]
    lines: tuple[str, ...]


def learn(bundle: Bundle, options: LearnOptions, tools: Tools, now: Callable[[], datetime] | None = None) -> Changed:
    """Learn good pictures that are rejected.

    Args:
        now: clock of the record.

    Raises: GateError where it would cost more recall than allowed; SourceError without a picture to learn; ConfigError
        for a bundle without a threshold, or a family that can learn nothing. Nothing is written.
    """
    assert options.good is not None
    manifest, threshold = bundle.manifest, _threshold(bundle)
    refuse_overlap({"good": options.good, "bad": options.bad})
    good = without_doubles([Sample(path, GOOD) for path in good_pictures_in(options.good)], tools)
    bad = [] if options.bad is None else defective_samples(options.bad)
    refuse_the_same(good, bad)
    base, constants = split(parsed(bundle.read_graph("fp32")))
    with tools.open_float() as judge:
        judged = scores_of(good, judge, tools, "good pictures")
        defects = scores_of(bad, judge, tools, "defective pictures")
    rejected = [found for found in judged if found.score >= threshold]
    tools.say(f"{len(rejected)} of {len(judged)} good pictures are rejected at {threshold:.6g}")
    if not rejected:
        raise SourceError(f"{options.good}: none of {len(good)} pictures is judged and rejected; nothing to learn")
    inputs = inputs_of(manifest.preprocess, rejected)
    place, none = place_of(manifest, base, constants, inputs)
    known = rows_of(constants, none)
    _check_books(bundle, known)
    rehearsal, rows = Rehearsal(base, place, none), known
    learned: list[tuple[Judged, int]] = []
    for picture, given in zip(rejected, inputs, strict=True):
        lens = Lens(given.geometry, manifest.postprocess, threshold)
        taught = teach(rehearsal, rehearsal.scene(given.image_hwc), rows, lens)
        if (doubt := taught.doubt(threshold)) is not None:
            tools.say(f"warning: {picture.name}: {doubt}")
        if taught.holds:
            rows = np.concatenate([rows, taught.rows])
            learned.append((picture, len(taught.rows)))
    if len(rows) == len(known):
        raise SourceError(f"{options.good}: none of the {len(rejected)} rejected pictures is learned; see the warnings")
    graph = joined(base, place, rows)
    with tools.open_graph(graph) as judge:
        after = scores_of([picture.sample for picture, _ in learned], judge, tools, "learned pictures")
        defects_after = scores_of(bad, judge, tools, "defective pictures")
    pictures = tuple(
        LearnedPicture(picture.name, sha256_of(picture.sample), patches, picture.score, again.score)
        for (picture, patches), again in zip(learned, after, strict=True)
    )
    lesson = Lesson(
        _id(rows[len(known) :]), utc_text((now or _now)()), pictures, len(rows) - len(known), threshold, place.radius
    )
    lesson = with_recall(lesson, defects, defects_after)
    hold(lesson, defects, defects_after, options)
    return _changed(bundle, graph, (*manifest.learned, lesson), tuple(told(lesson)))


def unlearn(bundle: Bundle, options: LearnOptions) -> Changed:
    """Take a lesson back. What was learned before and after it stays.

    Raises: ConfigError for a lesson that the bundle does not hold.
    """
    lessons = bundle.manifest.learned
    ids = [lesson.id for lesson in lessons]
    if options.undo not in ids:
        held = f"it holds {', '.join(ids)}" if ids else "it has learned nothing"
        raise ConfigError("undo", [f"bundle {bundle.path} holds no lesson {options.undo!r}; {held}"])
    base, constants = split(parsed(bundle.read_graph("fp32")))
    place, none = place_of(bundle.manifest, base, constants)
    rows = rows_of(constants, none)
    _check_books(bundle, rows)
    number = ids.index(options.undo)
    ends = [0, *accumulate(lesson.patches for lesson in lessons)]
    kept = np.concatenate([rows[: ends[number]], rows[ends[number + 1] :]])
    lesson = lessons[number]
    line = f"lesson {lesson.id} of {lesson.time} is taken back: {lesson.patches} patches"
    return _changed(bundle, joined(base, place, kept), (*lessons[:number], *lessons[number + 1 :]), (line,))


def _threshold(bundle: Bundle) -> float:
    if "fp32" not in bundle.manifest.models:
        raise BundleError(f"bundle {bundle.path}: holds no float model to learn with; export it again")
    threshold = bundle.thresholds("fp32").image
    if threshold is None:
        raise ConfigError(
            "bundle", [f"{bundle.path} has no threshold, so nothing is rejected; choose one with 'edge-ad threshold'"]
        )
    return threshold


def _check_books(bundle: Bundle, rows: Floats) -> None:
    recorded = sum(lesson.patches for lesson in bundle.manifest.learned)
    if recorded != len(rows):
        raise BundleError(
            f"bundle {bundle.path}: its manifest tells of {recorded} learned patches and its graph holds {len(rows)};"
            " export it again"
        )


def _changed(bundle: Bundle, graph: bytes, lessons: tuple[Lesson, ...], lines: tuple[str, ...]) -> Changed:
    """The bundle with another float graph. Lower precisions were proven on the one before, and go."""
    manifest = bundle.manifest
    file = bundle.model_file("fp32")
    lower = [precision for precision in manifest.models if precision != "fp32"]
    if lower:
        lines += (
            f"note: {', '.join(lower)} was proven on the float model as it was and is left out; 'edge-ad calibrate'"
            " makes it anew",
        )
    kept = {"fp32": manifest.precision_thresholds["fp32"]} if "fp32" in manifest.precision_thresholds else {}
    changes: dict[str, Any] = {
        "models": {"fp32": file},
        "learned": lessons,
        "quantization": {},
        "precision_thresholds": kept,
        "openvino_ir": {},
        "openvino_ir_parity": None,
    }
    return Changed(changes, {file: graph}, frozenset(manifest.files) - {file}, lines)


def _id(rows: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:8]


def _now() -> datetime:
    return datetime.now(timezone.utc)
