"""Epochs of a student; see `edge_ad.models.training.session.Trainer`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edge_ad.errors import TrainingError
from edge_ad.models.backbone import Backbone
from edge_ad.models.distillation.imitation import fit_projections, losses, measured
from edge_ad.models.distillation.lessons import Lessons, in_batches
from edge_ad.models.distillation.options import RANDOM, StudentTrainOptions
from edge_ad.models.patch_head.features import FrozenTaps
from edge_ad.models.training.epochs import EpochFigures
from edge_ad.models.training.session import Material, SamplePair
from edge_ad.training_run import BACKBONE_FILE

if TYPE_CHECKING:
    from edge_ad.models.family import ModelFamily

FIRST_LESSONS = 6
"""Batches that the 1×1 convolutions are put into place by."""
SLOW_START = 20
"""Steps in which the learning rate rises."""
AFTER_DIVERGENCE = "no weights of this epoch are kept; try a lower --learning-rate"


class StudentTrainer:
    """A network on its student's backbone, its teacher's backbone, and what the one learns of the other from.

    Args:
        network: of the family; its backbone is the student, its head the teacher's.
        teacher: the backbone that the head was made for.
    """

    state_keys = ("student", "optimizer")

    def __init__(
        self, family: ModelFamily, network: Any, teacher: Backbone, material: Material[StudentTrainOptions]
    ) -> None:
        self._family, self.network, self._material = family, network, material
        self._options = options = material.options
        self.student: Backbone = network.backbone
        self._lessons = Lessons(material.pictures, material.textures, options)
        self._teacher = FrozenTaps(teacher, options.preprocess, amp=False)
        batches = in_batches(material.pictures, options.batch)
        self._scales = measured(self._teacher(images) for images in batches)
        self._train_mode()
        taught = (self._taught(images) for images in self._lessons.first(FIRST_LESSONS))
        fit_projections(self.student, taught, self._scales)
        self._optimizer = torch.optim.Adam(self.student.parameters(), lr=options.learning_rate)

    def steps(self) -> int:
        """Steps of one epoch."""
        return self._options.epoch_steps

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """Train from epoch `first` to the last. Raises: TrainingError when a loss is not finite."""
        for epoch in range(first, self._options.epochs):
            self._train_mode()
            found = []
            for step, images in enumerate(self._lessons.epoch(epoch)):
                self._set_rate(epoch * self.steps() + step)
                found.append(self._step(epoch, step, images))
                after_step(f"loss {sum(found[-1]):.3f} (not explained of the teacher's variance, all taps)")
            self.student.eval()
            self._check_weights(epoch)
            self._family.refit(self.network, self._options.teacher_options, self._material)
            names = [f"tap{number}" for number in range(len(self._scales))]
            yield EpochFigures(epoch, dict(zip(names, np.mean(found, axis=0).tolist(), strict=True)))

    def checkpoint(self) -> dict[str, Any]:
        """The head, in the official format of the family."""
        return self._family.checkpoint(self.network)

    def files(self) -> Mapping[str, Any]:
        """The student's weights, which belong to the checkpoint."""
        return {BACKBONE_FILE: self.student.trunk.state_dict()}

    def state(self) -> dict[str, Any]:
        return {"student": self.student.trunk.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.student.trunk.load_state_dict(state["student"])
        self._optimizer.load_state_dict(state["optimizer"])

    def samples(self) -> Iterator[SamplePair]:
        """None: nothing is laid over a picture."""
        return iter(())

    def _train_mode(self) -> None:
        """Statistics of BatchNorm that came with weights stay; where there were none, they are learned."""
        self.student.requires_grad_(True)
        self.student.train(self._options.backbone_weights == RANDOM)

    def _taught(self, images: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return self._teacher.normalised(images), self._teacher(images)

    def _step(self, epoch: int, step: int, images: Any) -> list[float]:
        image, wanted = self._taught(images)
        each = losses(self.student, image, wanted, self._scales)
        values = [float(loss.detach()) for loss in each]
        if not all(map(math.isfinite, values)):
            raise TrainingError(f"loss is not finite in epoch {epoch}, step {step}; {AFTER_DIVERGENCE}")
        self._optimizer.zero_grad()
        torch.autograd.backward(each)
        self._optimizer.step()
        return values

    def _check_weights(self, epoch: int) -> None:
        for name, value in self.student.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise TrainingError(f"weights {name!r} are not finite after epoch {epoch}; {AFTER_DIVERGENCE}")

    def _set_rate(self, step: int) -> None:
        rise = min(1.0, (step + 1) / SLOW_START)
        fall = 0.5 * (1 + math.cos(math.pi * step / (self._options.epochs * self.steps())))
        for group in self._optimizer.param_groups:
            group["lr"] = self._options.learning_rate * rise * fall
