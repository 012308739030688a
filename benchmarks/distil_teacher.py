"""A stand-in for EfficientAD's teacher: a patch description network that imitates the packaged MobileNetV2.

    python benchmarks/distil_teacher.py DIR -o teacher.pth [--size small] [--width 32] [--steps 400]

The published teachers imitate WideResNet-101 on all of ImageNet; this one learns from the pictures below DIR, so the
more of them there are, and the more kinds, the better. What is imitated are the features of two layers, each channel
with mean 0 and variance 1, where the network's own cells lie (the paper's section 3.1). With the default width it has a
sixteenth of the work of the published ones.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from edge_ad.models.backbone import Backbone
from edge_ad.models.efficientad.config import PADDED_CELLS, EfficientAdConfig
from edge_ad.models.efficientad.network import pdn
from edge_ad.models.efficientad.statistics import normalised
from edge_ad.models.packaged import PACKAGED
from edge_ad.models.synthesis.textures import FolderTextures
from edge_ad.models.weights import backbone_state

BACKBONE, TAPS = "mobilenet_v2", ("features.6", "features.13")
SIDE = 256
MEASURED = 64  # pictures that give mean and deviation of the features


def features(backbone: Backbone, images: Tensor) -> Tensor:
    """(N, 3, 256, 256) → (N, channels, 56, 56): what the backbone says, where our cells lie."""
    cells = [interpolate(tap, size=(SIDE // 4, SIDE // 4), mode="bilinear") for tap in backbone(images)]
    inside = slice(PADDED_CELLS, -PADDED_CELLS)
    return torch.cat(cells, dim=1)[:, :, inside, inside]


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--size", type=click.Choice(["small", "medium"]), default="small")
@click.option("--width", default=32)
@click.option("--steps", default=400)
@click.option("--batch", default=4)
def main(pictures: Path, output: Path, size: str, width: int, steps: int, batch: int) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pool = FolderTextures(pictures)
    backbone = Backbone(BACKBONE, TAPS).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    backbone.load_weights(backbone_state(BACKBONE, PACKAGED).tensors, "the packaged weights")

    def drawn(count: int) -> Tensor:
        """Crops, half of them mirrored, a tenth of them grey (the paper's share)."""
        images = []
        for _ in range(count):
            image = pool.sample(rng, (SIDE, SIDE))[:, :: int(rng.choice((-1, 1)))]
            images.append(image.mean(2, keepdims=True).astype(np.uint8).repeat(3, 2) if rng.random() < 0.1 else image)
        return normalised(images)

    with torch.no_grad():
        measured = torch.cat([features(backbone, drawn(batch)) for _ in range(-(-MEASURED // batch))])
    mean, std = (value[:, None, None] for value in (measured.mean((0, 2, 3)), measured.std((0, 2, 3))))
    config = EfficientAdConfig("medium" if size == "medium" else "small", width, len(mean))
    network = pdn(config, config.channels).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    with click.progressbar(length=steps, label="distilling") as bar:
        for step in range(steps):
            images = drawn(batch)
            with torch.no_grad():
                wanted = (features(backbone, images) - mean) / std
            loss = (network(images) - wanted).square().mean()
            optimizer.zero_grad()
            torch.autograd.backward([loss])
            optimizer.step()
            schedule.step()
            bar.update(1)
            if step % 50 == 49:
                click.echo(f" step {step + 1}: {loss.item():.3f} of the features' variance is not explained", err=True)
    torch.save(network.state_dict(), output)
    click.echo(str(output))


if __name__ == "__main__":
    main()
