"""`edge-ad train --teacher RUN`: from a teacher's run to a student's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.models import model_family
from edge_ad.models.backbone import Backbone
from edge_ad.models.distillation.layers import student_taps
from edge_ad.models.distillation.options import RANDOM, StudentTrainOptions, student_options
from edge_ad.models.distillation.trainer import StudentTrainer
from edge_ad.models.family import LoadedNetwork, ModelFamily, option_names
from edge_ad.models.progress import Progress
from edge_ad.models.references import References
from edge_ad.models.state import check_shapes, load_tensors, missing_tensors
from edge_ad.models.training.pictures import Foreground
from edge_ad.models.training.session import Material, train
from edge_ad.models.weights import backbone_state
from edge_ad.training_run import RunRecord, export_values, read_run
from edge_ad.validation import build


def train_student(
    values: Mapping[str, Any], where: str, progress: Progress, *, resume: bool = False, force: bool = False
) -> RunRecord:
    """Train a student and write its run, of the teacher's family.

    Args:
        values: options by name, `teacher` among them; None is the same as not given.
        where, resume, force: see `ModelFamily.train`.

    Raises: EdgeAdError; what was written before is still there.
    """
    run = Path(str(values["teacher"]))
    record = read_run(run)
    family = model_family(record.family)
    if not family.takes_students:
        raise ConfigError(
            where, [f"teacher: {run} is a run of {family.name}, whose head does not go with another backbone"]
        )
    if record.status != "finished":
        raise CheckpointError(f"run {run}: not finished; go on with 'edge-ad train --resume', then teach")
    options = student_options(values, where, family, record)
    if options.output.resolve() == run.resolve():
        raise ConfigError(where, [f"output: {run} is the teacher's own run; choose another folder"])
    loaded = _teacher(run, family, options)
    shapes = loaded.network.backbone.shapes(*options.imgsz)
    taps = student_taps(options.backbone, options.layers, shapes, options.imgsz)
    options = replace(options, taps=taps, teacher_sha256=loaded.checkpoint_sha256)
    return train(StudentRecipe(family, loaded), options, progress, resume=resume, force=force)


def _teacher(run: Path, family: ModelFamily, options: StudentTrainOptions) -> LoadedNetwork[Any]:
    told = export_values(run)
    names = option_names(family.network_options)
    of_network = build(family.network_options, {name: told[name] for name in names if name in told}, f"run {run}")
    tile = replace(options, tiles="off").preprocess
    return family.load(Path(told["checkpoint"]), of_network, References(None, tile))


@dataclass(frozen=True)
class Pupil:
    """Who learns of whom.

    Attributes:
        network: of the family, on the student's backbone.
        teacher: the backbone that it had.
        origin: of the student's weights.
    """

    network: Any
    teacher: Backbone
    origin: str


class StudentRecipe:
    """A backbone is trained to give what another gives, and the head stays. Args: loaded: the teacher."""

    def __init__(self, family: ModelFamily, loaded: LoadedNetwork[Any]) -> None:
        self.family = family.name
        self._of_family, self._loaded = family, loaded

    def network(self, options: StudentTrainOptions, progress: Progress, begun: Path | None) -> Pupil:
        torch.manual_seed(options.seed)
        student = Backbone(options.student, options.taps or ())
        origin = _begin(student, options, progress)
        teacher: Backbone = self._loaded.network.backbone
        return Pupil(self._of_family.on_backbone(self._loaded.network, student), teacher, origin)

    def frozen(self, network: Pupil) -> dict[str, Any]:
        """Nothing: the backbone is what learns."""
        return {}

    def overlays(self, options: StudentTrainOptions) -> bool:
        return options.texture_share > 0

    def foreground(self, options: StudentTrainOptions) -> Foreground:
        return "none"

    def trainer(self, network: Pupil, material: Material[StudentTrainOptions]) -> tuple[StudentTrainer, dict[str, Any]]:
        options, say = material.options, material.progress.say
        say(f"teacher {options.teacher}: {self.family} on {network.teacher.name}, {', '.join(network.teacher.taps)}")
        say(f"student {options.student}: {', '.join(options.taps or ())}, on {material.device}")
        say(f"weights to begin with: {network.origin}")
        network.network.to(material.device)
        trainer = StudentTrainer(self._of_family, network.network, network.teacher.to(material.device), material)
        facts = {
            "teacher": {
                "run": str(options.teacher),
                "checkpoint_sha256": options.teacher_sha256,
                "backbone": network.teacher.name,
                "layers": list(network.teacher.taps),
            },
            "backbone_weights": network.origin,
        }
        return trainer, facts


def _begin(student: Backbone, options: StudentTrainOptions, progress: Progress) -> str:
    """Give the student's own network its weights. Returns: where they came from."""
    if options.backbone_weights == RANDOM:
        return f"random, seed {options.seed}"
    weights = backbone_state(options.backbone, options.backbone_weights)
    for note in weights.notes:
        progress.say(f"note: {note}")
    own = student.trunk.get_submodule("network")
    missing = missing_tensors(own.state_dict(), weights.tensors)
    if missing:
        raise CheckpointError(
            f"{weights.origin}: tensor {missing[0]!r} of {options.backbone!r} is missing; give the weights of"
            f" {options.backbone!r}"
        )
    wanted = own.state_dict()
    given = {key: tensor for key, tensor in weights.tensors.items() if key in wanted}
    check_shapes(given, {key: wanted[key] for key in given}, weights.origin, f"backbone {options.backbone!r}")
    load_tensors(own, weights.tensors)
    return weights.origin
