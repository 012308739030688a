"""`edge-ad train --family efficientad`: what it brings to a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edge_ad.models.efficientad.checkpoint import Teacher, load_teacher
from edge_ad.models.efficientad.config import EfficientAdConfig
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.efficientad.statistics import measure_teacher
from edge_ad.models.efficientad.training.options import EfficientAdTrainOptions
from edge_ad.models.efficientad.training.samples import Samples, split
from edge_ad.models.efficientad.training.trainer import EfficientAdTrainer
from edge_ad.models.progress import Progress
from edge_ad.models.synthesis.textures import FolderTextures
from edge_ad.models.training.pictures import Foreground
from edge_ad.models.training.session import Material
from edge_ad.models.weights import sha256_of
from edge_ad.training_run import TEACHER_FILE


class EfficientAdRecipe:
    """A student and an autoencoder from good pictures and a teacher."""

    family = "efficientad"

    def network(self, options: EfficientAdTrainOptions, progress: Progress, begun: Path | None) -> EfficientAd:
        """The teacher of a file, the other two drawn from the seed."""
        assert options.teacher is not None
        teacher: Teacher = load_teacher(options.teacher if begun is None else begun / TEACHER_FILE)
        torch.manual_seed(options.seed)
        config = EfficientAdConfig(teacher.size, teacher.width, teacher.channels, options.autoencoder_width)
        network = EfficientAd(config)
        network.teacher.load_state_dict(teacher.tensors)
        network.teacher.requires_grad_(False)
        return network

    def frozen(self, network: EfficientAd) -> dict[str, Any]:
        return {TEACHER_FILE: network.teacher.state_dict()}

    def overlays(self, options: EfficientAdTrainOptions) -> bool:
        return False

    def foreground(self, options: EfficientAdTrainOptions) -> Foreground:
        return "none"

    def trainer(
        self, network: EfficientAd, material: Material[EfficientAdTrainOptions]
    ) -> tuple[EfficientAdTrainer, dict[str, Any]]:
        options, pictures, progress = material.options, material.pictures, material.progress
        assert options.teacher is not None
        others = None if options.penalty is None else FolderTextures(options.penalty)
        penalty = "none" if others is None else others.description
        apart = split(len(pictures.samples), options.held_out, options.seed)
        learned, held_out = (pictures.of_samples(part) for part in apart)
        progress.say(f"an EfficientAD-{network.config.size[0].upper()} by its teacher, on {material.device}")
        progress.say(f"penalty: {penalty}")
        progress.say(
            f"{options.epochs * options.epoch_steps} steps of {options.batch} of {len(learned)} good pictures (paper:"
            f" 70,000 of 1); {len(held_out)} others give the quantiles"
            if len(pictures.samples) > 1
            else "warning: one good picture is learned from and gives the quantiles, which come out low"
        )
        network.to(material.device).to(memory_format=torch.channels_last)
        progress.begin("teacher on good pictures", len(learned))
        measure_teacher(network, (pictures[index].image_hwc for index in learned), lambda: progress.step(""))
        samples = Samples(pictures, learned, others, options)
        images = [pictures[index].image_hwc for index in held_out]
        facts = {
            "teacher": f"{options.teacher.name}, SHA-256 {sha256_of(options.teacher)}",
            "size": network.config.size,
            "penalty": penalty,
            "held_out": [str(pictures.samples[number].image.name) for number in apart[1]],
        }
        return EfficientAdTrainer(network, samples, images, material.labelled, options), facts
