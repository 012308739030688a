"""Everything that `edge-ad train --teacher RUN` can be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from edge_ad.bundle.specs import Filter, ScoreKind
from edge_ad.models import model_family
from edge_ad.models.option_types import Name, Names, Positive, PositiveFloat, Share, Size, option
from edge_ad.models.packaged import PACKAGED, PACKAGES
from edge_ad.models.training.options import TrainOptions, View
from edge_ad.training_run import RunRecord
from edge_ad.validation import plain, strict

if TYPE_CHECKING:
    from edge_ad.bundle.specs import PreprocessSpec
    from edge_ad.models.family import ModelFamily

RANDOM = Path("random")
"""Stands for a file: no weights to begin with."""
OF_THE_TEACHER = ("imgsz", "resize", "resize_mode", "filter", "score")
"""Options that a student has from its teacher: with others its features would be those of other pictures."""
USUAL_OF_THE_TEACHER = ("tiles", "tile_overlap"), ("rotate", "flip", "shift", "light", "copies")
"""Options that it has from its teacher unless it is told others: of what exporting takes, and of what was told."""
NO_CHOICE: Mapping[str, Any] = {"preset": "paper", "select": "last", "eval_every": 0, "patience": 0}
"""Options of all trainings that mean nothing here, and their one value: labels choose nothing."""


@strict
@dataclass(frozen=True, kw_only=True)
class StudentTrainOptions(TrainOptions):
    """Options of a student.

    Attributes:
        teacher: folder of the run whose features are learned and whose head is kept.
        backbone, backbone_weights, layers: the small network; its weights to begin with, `packaged`, a file, `random`,
            or None for the published ones; which of its layers imitates which tap of the teacher.
        texture_share: share of the pictures of a step that are textures alone.
        smallest_crop: side of the smallest part of a picture that is learned from, enlarged, as a share of its own.
        learning_rate: of Adam, after a start of some steps; it falls to none along half a cosine.
        epochs, epoch_steps: weights are kept after each epoch of so many steps.
        family: the teacher's.
        teacher_sha256: of the teacher's checkpoint.
        teacher_export, teacher_options: what its run says, see `RunRecord`.
        taps: the student's, see `edge_ad.models.student`.
    """

    teacher: Path = option(Path(), "Finished run: a small backbone learns its features, its head is kept.", "RUN")
    backbone: Name = option("mobilenet_v2", "The student: a torchvision network, or timm:<name>.", "NAME")
    backbone_weights: Path | None = option(
        None, "Its weights to begin with: packaged (default where a package has some), a file or random.", "FILE"
    )
    layers: Names | None = option(
        None, "Its layers, one for each of the teacher's (default: known of two networks).", "A,B"
    )
    texture_share: Share = option(0.25, "Share of the pictures that are textures alone (default: 0.25).", "X")
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = option(
        0.7, "Side of the smallest crop, as a share of the picture's (default: 0.7).", "X"
    )
    learning_rate: PositiveFloat = option(1e-3, "Of Adam (default: 1e-3).", "X")
    epochs: Positive = option(4, "Epochs (default: 4).")
    epoch_steps: Positive = option(20, "Steps of an epoch (default: 20).")
    imgsz: Size = (256, 256)
    resize: Positive | None = None
    resize_mode: View = "stretch"
    filter: Filter = "pillow_bilinear"
    score: ScoreKind | None = None
    preset: Literal["paper", "fast"] = "paper"
    select: Literal["best", "last"] = "last"
    eval_every: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=0)] = 0
    family: Name = ""
    teacher_sha256: str = ""
    teacher_export: dict[str, Any] = field(default_factory=dict)
    teacher_options: dict[str, Any] = field(default_factory=dict)
    taps: Names | None = None

    @property
    def preprocess(self) -> PreprocessSpec:
        placed = super().preprocess
        sizes = {name: getattr(placed, name) for name in ("height", "width", "resize_mode", "resize", "filter")}
        return replace(model_family(self.family).preprocess, **sizes)

    @property
    def student(self) -> str:
        """Name of the student among backbones."""
        return f"student:{self.backbone}"

    @property
    def export(self) -> dict[str, Any]:
        own = {"backbone": self.student, "layers": list(self.taps or ())}
        of_head = {name: own.get(name, value) for name, value in self.teacher_export.items()}
        return {**of_head, **super().export}

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        for name, only in NO_CHOICE.items():
            if getattr(self, name) != only:
                yield f"{name}: a student learns its teacher's features, and no label chooses anything; leave it out"

    def network_faults(self, faulty: set[str]) -> list[str]:
        from edge_ad.models.backbone import backbone_faults

        return [] if faulty & {"backbone", "layers"} else backbone_faults(self.backbone, self.layers or ())


def student_options(
    values: Mapping[str, Any], where: str, family: ModelFamily, record: RunRecord
) -> StudentTrainOptions:
    """Options by name, with those that a student has from its teacher.

    Raises: ConfigError with every fault.
    """
    specs = {"input_spec": family.preprocess, "output_spec": family.postprocess, "score_ranges": family.score_ranges}
    kind = cast("type[StudentTrainOptions]", type("StudentTrainOptions", (StudentTrainOptions,), specs))
    given = {key: value for key, value in values.items() if value is not None}
    if str(given.get("backbone", StudentTrainOptions.backbone)) in PACKAGES:
        given.setdefault("backbone_weights", PACKAGED)
    told = {name: record.export.get(name) for name in OF_THE_TEACHER}
    mine = {name: given.pop(name) for name in OF_THE_TEACHER if name in given}
    tiles, varied = USUAL_OF_THE_TEACHER
    usual = {name: record.export.get(name) for name in tiles} | {name: record.options.get(name) for name in varied}
    usual = {name: value for name, value in usual.items() if value is not None}
    of_run = {"family": family.name, "teacher_export": record.export, "teacher_options": record.options}
    return kind.checked(
        {**usual, **given, **told, **of_run}, where, lambda size: _other_view(kind, mine, told, family, size)
    )


def _other_view(
    kind: type[StudentTrainOptions],
    mine: Mapping[str, Any],
    told: Mapping[str, Any],
    family: ModelFamily,
    size_hw: tuple[int, int],
) -> list[str]:
    """What the student was told of its pictures and its teacher was told otherwise."""
    from edge_ad.validation import build_rest

    if not mine:
        return family.size_faults(size_hw)
    wanted, wrong = build_rest(kind, {"output": ".", **told, **mine}, {})
    faults = [fault.line for fault in wrong]
    mistaken = {fault.key for fault in wrong}
    known = {**told, "imgsz": list(size_hw)}
    for name in mine:
        found = plain(getattr(wanted, name))
        if name not in mistaken and found != known[name]:
            faults.append(
                f"{name}: the teacher was trained with {_text(known[name])}, got {_text(found)}; leave it out, or train"
                " a teacher so"
            )
    return [*faults, *family.size_faults(size_hw)]


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
