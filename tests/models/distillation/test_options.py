"""What a student is told by its teacher's run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_ad.models import model_family
from edge_ad.models.distillation.options import StudentTrainOptions, student_options
from edge_ad.training_run import SCHEMA_VERSION, RunRecord

EXPORT = {"imgsz": [64, 64], "resize": None, "resize_mode": "stretch", "filter": "pillow_bilinear", "score": None}


def _student(tmp_path: Path, export: Mapping[str, Any], told: Mapping[str, Any], **mine: Any) -> StudentTrainOptions:
    record = RunRecord(SCHEMA_VERSION, "finished", "patchcore", dict(told), {**EXPORT, **export}, {})
    values = {"teacher": tmp_path, "output": tmp_path / "run", "data": tmp_path, **mine}
    return student_options(values, "options", model_family("patchcore"), record)


def test_tiles_and_variations_are_the_teachers_unless_others_are_given(tmp_path: Path) -> None:
    export = {"tiles": [1, 3], "tile_overlap": 32}
    told = {"rotate": "any", "flip": "both", "shift": 0.1, "light": 0.0, "copies": None}
    options = _student(tmp_path, export, told)
    assert (options.tiles, options.tile_overlap) == ((1, 3), 32)
    assert (options.rotate, options.flip, options.shift, options.copies) == ("any", "both", 0.1, None)
    assert _student(tmp_path, export, told, rotate="none").rotate == "none"


@pytest.mark.parametrize("told", [{}, {"rotate": "none"}])
def test_of_a_teacher_without_any_there_are_none(tmp_path: Path, told: dict[str, Any]) -> None:
    options = _student(tmp_path, {}, told)
    assert (options.tiles, options.rotate, options.imgsz) == ("off", "none", (64, 64))
