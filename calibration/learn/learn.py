"""A bundle and good pictures that it rejects → the bundle that knows them, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.manifest import LearnedPicture, Lesson
from edge_ad.calibration.learn.cost import hold, told, with_recall
from edge_ad.calibration.learn.graph import WEIGHT, Floats, joined, parsed, rows_of, split
from edge_ad.calibration.learn.lesson import Lens, teach
from edge_ad.calibration.learn.options import LearnOptions
from edge_ad.calibration.learn.pictures import Judged, inputs_of, refuse_the_same, scores_of, sha256_of, without_doubles
from edge_ad.calibration.learn.places import place_of
from edge_ad.calibration.learn.rehearsal import Rehearsal, Whole
from edge_ad.calibration.tools import Tools
from edge_ad.datasets import GOOD, Sample
from edge_ad.datasets.folders import good_pictures_in
from edge_ad.datasets.plain import defective_samples, refuse_overlap
from edge_ad.errors import BundleError, ConfigError, SourceError
from edge_ad.record.timestamps import utc_text

if TYPE_CHECKING:
    from onnx import ModelProto

    from edge_ad.image.preprocess import ModelInput


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
    good = [Sample(path, GOOD) for path in good_pictures_in(options.good)]
    bad = [] if options.bad is None else defective_samples(options.bad)
    model = parsed(bundle.read_graph("fp32"))
    base, constants = split(model)
    _check_books(bundle, constants)
    with tools.open_float() as judge:
        judged = scores_of(good, judge, tools, "good pictures")
        defects = scores_of(bad, judge, tools, "defective pictures")
    refuse_the_same(judged, defects)
    rejected = without_doubles([found for found in judged if found.score >= threshold], tools)
    tools.say(f"{len(rejected)} of {len(judged)} good pictures are rejected at {threshold:.6g}")
    if not rejected:
        raise SourceError(
            f"{options.good}: the float model rejects none of {len(judged)} pictures at {threshold:.6g}; nothing to"
            f" learn{_of_others(bundle)}"
        )
    seen = _of_this_line(model, rejected, bundle, threshold, tools)
    place, none = place_of(manifest, base, constants, [given for _, given in seen])
    known = rows_of(constants, none)
    rehearsal, rows = Rehearsal(base, place, none, manifest.tiles), known
    learned: list[tuple[Judged, int]] = []
    shown = tools.watch("learning")([picture.sample for picture, _ in seen])
    for (picture, given), _ in zip(seen, shown, strict=True):
        lens = Lens(given.geometry, manifest.postprocess, threshold)
        taught = teach(rehearsal, rehearsal.scene(given.image_hwc), rows, lens)
        if (doubt := taught.doubt(threshold)) is not None:
            tools.say(f"warning: {picture.name}: {doubt}")
        if taught.below:
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
    _check_books(bundle, constants)
    place, none = place_of(bundle.manifest, base, constants)
    rows = rows_of(constants, none)
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


def _check_books(bundle: Bundle, constants: Mapping[str, Floats]) -> None:
    recorded, held = sum(lesson.patches for lesson in bundle.manifest.learned), len(constants.get(WEIGHT, ()))
    if recorded != held:
        raise BundleError(
            f"bundle {bundle.path}: its manifest tells of {recorded} learned patches and its graph holds {held};"
            " export it again"
        )


def _of_others(bundle: Bundle) -> str:
    """What is to be said where the line runs another model than the one that learns."""
    runs = bundle.precision(None)
    threshold = bundle.thresholds(runs).image
    if runs == "fp32" or threshold is None:
        return ""
    return f", though the line runs {runs} at {threshold:.6g}: choose that threshold with 'edge-ad threshold'"


def _of_this_line(
    model: ModelProto, rejected: Sequence[Judged], bundle: Bundle, threshold: float, tools: Tools
) -> list[tuple[Judged, ModelInput]]:
    """The pictures that can be of the bundle's line, with what the model sees of them; the others are warned of.

    Raises: SourceError without one.
    """
    whole, seen = Whole(model), []
    for picture, given in zip(rejected, inputs_of(bundle, rejected), strict=True):
        lens = Lens(given.geometry, bundle.manifest.postprocess, threshold)
        if (reason := lens.foreign(lens.of(whole.say(given.image_hwc)))) is not None:
            tools.say(f"warning: {picture.name}: {reason}")
        else:
            seen.append((picture, given))
    if not seen:
        raise SourceError(f"none of the {len(rejected)} rejected pictures is learned; see the warnings")
    return seen


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
    inspected = () if manifest.inspection is None else manifest.inspection.files
    return Changed(changes, {file: graph}, frozenset(manifest.files) - {file, *inspected}, lines)


def _id(rows: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:8]


def _now() -> datetime:
    return datetime.now(timezone.utc)
