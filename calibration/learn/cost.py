"""What a lesson costs on labelled defects, whether that is allowed, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_ad.bundle.manifest import Lesson
from edge_ad.calibration.learn.options import LearnOptions
from edge_ad.calibration.learn.pictures import Judged
from edge_ad.errors import GateError

SHOWN = 5


def with_recall(lesson: Lesson, before: Sequence[Judged], after: Sequence[Judged]) -> Lesson:
    if not before:
        return lesson
    was, now = (sum(found.score >= lesson.threshold for found in side) / len(before) for side in (before, after))
    return replace(lesson, defective=len(before), recall_before=was, recall_after=now)


def hold(lesson: Lesson, before: Sequence[Judged], after: Sequence[Judged], options: LearnOptions) -> None:
    """Raises: GateError where a picture is not below the threshold after all, or too many defects are."""
    rejected = [picture for picture in lesson.pictures if picture.score_after >= lesson.threshold]
    if rejected:
        named = ", ".join(f"{picture.name} ({picture.score_after:.6g})" for picture in rejected[:SHOWN])
        raise GateError(
            f"after the lesson {options.engine} still rejects {named} at {lesson.threshold:.6g}, which it should not by"
            " ONNX Runtime; leave the pictures out"
        )
    if lesson.recall_before is None or lesson.recall_after is None:
        return
    drop = lesson.recall_before - lesson.recall_after
    if drop > options.max_recall_drop + 1e-12:
        scores = {found.name: found.score for found in after}
        lost = [
            f"{found.name} ({found.score:.6g} to {scores[found.name]:.6g})"
            for found in before
            if found.score >= lesson.threshold > scores[found.name]
        ]
        shown = ", ".join(lost[:SHOWN]) + (f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else "")
        raise GateError(
            f"recall on {lesson.defective} defective pictures would fall from {lesson.recall_before:.3f} to"
            f" {lesson.recall_after:.3f}, allowed is a drop of {options.max_recall_drop:g}; lost: {shown}; leave out"
            " the good pictures that look like them, or give --max-recall-drop"
        )


def told(lesson: Lesson) -> list[str]:
    lines = [
        f"{picture.name}: {picture.score_before:.6g} to {picture.score_after:.6g}, {picture.patches} patches learned"
        for picture in lesson.pictures
    ]
    if lesson.recall_before is None or lesson.recall_after is None:
        lines.append("note: nobody knows what this costs; --bad DIR measures it on defective pictures")
    else:
        lines.append(
            f"recall on {lesson.defective} defective pictures: {lesson.recall_before:.3f} to {lesson.recall_after:.3f}"
        )
    return [*lines, f"lesson {lesson.id}; 'edge-ad learn BUNDLE --undo {lesson.id}' takes it back"]
