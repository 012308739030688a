"""One training step: ours against the paper's, written out plainly (the oracle of the tests), both on the CPU.

    python benchmarks/training_step.py [--setting mobilenet|paper] [--batch 8] [--rounds 7]

Equal settings, equal results up to rounding. The plain step runs both pictures through the backbone and every ascent
step through the whole discriminator and back; ours knows the features of the good pictures already, as in any epoch but
the first. Synthesis of the anomalies is in neither. Random weights and pictures: time does not depend on them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import click
import torch
from interleaved import medians_ms, print_table

from edge_ad.models.glass.config import Hypothesis, Objective
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.optimizers import optimizers_of
from edge_ad.models.glass.training.reference import published_step
from edge_ad.models.glass.training.step import fast_step
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.embedding import PooledEmbedding

SETTINGS = {
    "mobilenet": (HeadConfig("mobilenet_v2", ("features.6", "features.13"), 512, 512, 256), 256),
    "paper": (HeadConfig(), 288),
}
"""Network and side in pixels: that of the cookies checkpoint, and the published one."""


@click.command()
@click.option("--setting", type=click.Choice(list(SETTINGS)), default="mobilenet")
@click.option("--batch", default=8)
@click.option("--rounds", default=7)
def main(setting: str, batch: int, rounds: int) -> None:
    config, side = SETTINGS[setting]
    torch.manual_seed(0)
    network = Glass(config).eval()
    network.backbone.requires_grad_(False)
    image = torch.randn(batch, 3, side, side)
    augmented = image + 0.3 * torch.randn_like(image)
    with torch.no_grad():
        normal_taps = network.backbone(image)
    embedding = PooledEmbedding(config, [tap.shape[1] for tap in normal_taps])
    positions = normal_taps[0].shape[2] * normal_taps[0].shape[3]
    anomalous = torch.rand(batch * positions) < 0.1
    noise = 0.015 * torch.randn(batch * positions, config.embed_dim)
    with torch.no_grad():
        center = network.adaptor(embedding(normal_taps)).view(batch, positions, -1).mean(0)
    hypotheses: tuple[Hypothesis, ...] = ("manifold", "hypersphere")
    for hypothesis in hypotheses:
        compare(hypothesis, network, Pictures(image, augmented, anomalous, noise, center), embedding, rounds)


@dataclass(frozen=True)
class Pictures:
    """What both steps are given: pictures (N, 3, H, W), mask (P,), noise (P, D), centres (positions, D)."""

    image: torch.Tensor
    augmented: torch.Tensor
    anomalous: torch.Tensor
    noise: torch.Tensor
    center: torch.Tensor


def compare(hypothesis: Hypothesis, network: Glass, given: Pictures, embedding: PooledEmbedding, rounds: int) -> None:
    """Time both steps in turns and print the medians."""
    objective = Objective(hypothesis=hypothesis)
    plain, ours = copy.deepcopy(network), copy.deepcopy(network)
    ours.backbone.eval()  # a traced network forgets it when it is copied
    plain_optimizers, our_optimizers = optimizers_of(plain, 1e-4), optimizers_of(ours, 1e-4)
    with torch.no_grad():
        normal_taps = ours.backbone(given.image)

    def plain_step() -> None:
        published_step(plain, objective, plain_optimizers, **vars(given))

    def our_step() -> None:
        with torch.no_grad():
            augmented_taps = ours.backbone(given.augmented)
        fast_step(
            ours,
            objective,
            our_optimizers,
            normal_embedding=embedding(normal_taps),
            local_embedding=embedding(augmented_taps),
            anomalous=given.anomalous,
            noise=given.noise,
            center=given.center,
        )

    names = {"plain": f"the paper's step, {hypothesis}", "ours": f"ours, {hypothesis}"}
    print_table(medians_ms({names["plain"]: plain_step, names["ours"]: our_step}, rounds=rounds), names["plain"])


if __name__ == "__main__":
    main()
