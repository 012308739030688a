"""From a teacher's run to a student's: what stays, what is written down, what is refused; interruptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from training_runs import assert_same_run, interrupted_in

from edge_ad.bundle.bundle import Bundle
from edge_ad.cli.train import command
from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.models.weights import sha256_of
from edge_ad.training_run import RunRecord, read_run, write_run

Teach = Callable[..., RunRecord]
Teachers = Callable[[str], Path]


def checkpoint_of(run: Path) -> Any:
    return torch.load(run / str(read_run(run).checkpoint), weights_only=True)


@pytest.fixture(scope="module")
def students(teach: Teach, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("students")

    def student(family: str) -> Path:
        if not (folder / family).exists():
            teach(family, folder / family)
        return folder / family

    return student


@pytest.mark.parametrize("family", ["patchcore", "glass", "simplenet"])
def test_a_students_run_says_who_taught_it_and_exports_without_an_option(
    family: str, students: Any, teachers: Teachers, tmp_path: Path
) -> None:
    run = students(family)
    record, teacher = read_run(run), teachers(family)
    taught = record.facts["teacher"]
    assert record.status == "finished" and record.family == family and record.best is not None
    assert taught["checkpoint_sha256"] == sha256_of(teacher / str(read_run(teacher).checkpoint))
    assert (taught["backbone"], taught["layers"]) == ("resnet18", ["layer1", "layer2"])
    assert record.best.loss is not None and record.best.loss > 0
    output = tmp_path / "student.edgead"
    export_bundle(export_options({"checkpoint": run, "output": output}, "test"))  # which compares the graphs
    config = Bundle.read(output).manifest.model.config
    assert config["backbone"] == "student:mobilenet_v2"
    assert config["layers"] == ["features.3@64/4", "features.6@128/8"]


@pytest.mark.parametrize("family", ["glass", "simplenet"])
def test_the_head_is_kept_bit_for_bit(family: str, students: Any, teachers: Teachers) -> None:
    kept, own = checkpoint_of(students(family)), checkpoint_of(teachers(family))
    assert kept.keys() == own.keys()
    assert all(torch.equal(kept[part][name], value) for part in own for name, value in own[part].items())


def test_a_bank_is_one_of_the_students_features(students: Any, teachers: Teachers) -> None:
    kept, own = checkpoint_of(students("patchcore")), checkpoint_of(teachers("patchcore"))
    assert kept["memory_bank"].shape == own["memory_bank"].shape
    assert not torch.equal(kept["memory_bank"], own["memory_bank"])
    assert kept["config"]["backbone_sha256"] != own["config"]["backbone_sha256"]


def test_a_bank_of_the_students_features_knows_places(teach: Teach, placed_teacher: Path, tmp_path: Path) -> None:
    teach("patchcore", tmp_path / "run", teacher=placed_teacher, tiles="1x2", epochs=1)
    kept, own = checkpoint_of(tmp_path / "run"), checkpoint_of(placed_teacher)
    assert kept["places"].shape == own["places"].shape and float(kept["places"][:, 1].max()) > 0.75
    assert kept["config"]["spread"] != own["config"]["spread"] and kept["config"]["canvas_hw"] == [64, 64]


def test_it_learns(teach: Teach, tmp_path: Path) -> None:
    told = {"texture_share": 0.0, "smallest_crop": 1.0, "epochs": 4, "epoch_steps": 12, "learning_rate": 3e-3}
    teach("glass", tmp_path / "run", **told)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("loss")
    first, *_, last = (float(row.split(",")[place]) for row in rows[1:])
    assert last < 0.9 * first


@pytest.mark.parametrize("family", ["patchcore", "glass"])
def test_an_interrupted_student_goes_on_to_the_same_end(
    family: str, students: Any, teach: Teach, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        teach(family, tmp_path / "run", progress=interrupted_in(4))
    assert read_run(tmp_path / "run").epochs_done == 1
    teach(family, tmp_path / "run", resume=True)
    assert_same_run(students(family), tmp_path / "run", tensors=100)
    weights = [torch.load(run / "backbone.pth", weights_only=True) for run in (students(family), tmp_path / "run")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_another_seed_is_another_student(students: Any, teach: Teach, tmp_path: Path) -> None:
    teach("glass", tmp_path / "run", seed=1)
    one, other = (torch.load(run / "backbone.pth", weights_only=True) for run in (students("glass"), tmp_path / "run"))
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"imgsz": 96}, "imgsz: the teacher was trained with 64x64, got 96x96"),
        ({"resize_mode": "letterbox"}, "resize_mode: the teacher was trained with stretch, got letterbox"),
        ({"imgsz": "x"}, "imgsz: wanted pixels"),
        ({"select": "best"}, "select: a student learns"),
        ({"backbone": "mobilenet_v9"}, "backbone: 'mobilenet_v9' is no torchvision classifier"),
        ({"layers": "features.6"}, "the teacher has 2 taps"),
    ],
)
def test_a_teacher_of_another_size_and_other_contradictions_are_refused(
    told: dict[str, Any], said: str, teach: Teach, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        teach("glass", tmp_path / "run", **told)
    assert not (tmp_path / "run").exists()


def test_the_teachers_own_size_may_be_said(teach: Teach, tmp_path: Path) -> None:
    teach("patchcore", tmp_path / "run", imgsz=64, epochs=1)


def test_unfinished_and_other_teachers_are_refused(teach: Teach, teachers: Teachers, tmp_path: Path) -> None:
    record = read_run(teachers("glass"))
    for name, change, error, said in (
        ("running", {"status": "running"}, CheckpointError, "not finished"),
        ("draem", {"family": "draem"}, ConfigError, "is a run of draem"),
    ):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name, replace(record, **change))  # type: ignore[arg-type]
        with pytest.raises(error, match=said):
            teach("glass", tmp_path / "out", teacher=tmp_path / name)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--teacher", "{empty}"], "no run.yaml in it"),
        (["--teacher", "{empty}/none.pth", "--family", "glass"], "no run.yaml in it"),
        (["--teacher", "{glass}", "--family", "patchcore"], "is a run of 'glass', got 'patchcore'"),
        (["--teacher", "{glass}", "--coreset", "0.1"], "coreset: a student has no such option"),
    ],
)
def test_the_command_line_says_what_a_teacher_is(
    args: list[str], said: str, teachers: Teachers, waves: Path, tmp_path: Path
) -> None:
    places = {"empty": tmp_path, "glass": teachers("glass")}
    given = [arg.format(**places) for arg in args]
    result = CliRunner().invoke(command, [str(waves), "-o", str(tmp_path / "run"), *given])
    assert isinstance(result.exception, (ConfigError, CheckpointError)) and said in str(result.exception)


def test_a_teachers_file_still_goes_to_the_family_that_has_one(waves: Path, tmp_path: Path) -> None:
    told = [str(waves), "-o", str(tmp_path / "run"), "--family", "efficientad", "--teacher", str(tmp_path / "no.pth")]
    result = CliRunner().invoke(command, told)
    assert isinstance(result.exception, CheckpointError) and "no.pth" in str(result.exception)


def test_help_shows_a_students_options_where_a_run_is_named(teachers: Teachers) -> None:
    shown = CliRunner().invoke(command, ["--teacher", str(teachers("glass")), "--help"]).output
    assert "--texture-share" in shown and "--whiten" not in shown
    usual = CliRunner().invoke(command, ["--help"]).output
    assert "--texture-share" not in usual and "--whiten" in usual
