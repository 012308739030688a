"""What each part of the fast preset is worth: the preset with one thing changed, on your own pictures.

    python benchmarks/ablation.py DATA [DATA ...] [--seeds 3] [--textures DIR] [--only NAME]...

Every variant is trained from the start with every seed, for the same number of steps, without looking at labels; the
labelled test pictures are looked at once, after the last epoch. Prints mean and smallest image AUROC, mean pixel AUROC
(where there are masks) and seconds, as the rows of a Markdown table.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch

from edge_ad.models import model_family
from edge_ad.models.backbone import network_state
from edge_ad.models.progress import Progress

RANDOM = "random backbone (control)"
VARIANTS: dict[str, dict[str, Any]] = {
    "fast": {},
    RANDOM: {},
    "adaptor trained too": {"freeze_adaptor": False},
    "whitening ridge 1": {"whiten": 1.0},
    "whitening ridge 0.1": {"whiten": 0.1},
    "no whitening (adaptor trained)": {"whiten": "none", "freeze_adaptor": False},
    "no jitter": {"jitter_std": 0.0},
    "half the noise": {"noise_std": 0.3, "jitter_std": 0.15},
    "twice the noise": {"noise_std": 1.2, "jitter_std": 0.6},
    "textures on all": {"overlay_share": 1.0},
    "textures on the object of all": {"overlay_share": 1.0, "foreground": "auto"},
    "drawn patterns on all": {"overlay_share": 1.0, "textures": None},
    "20 ascent steps": {"ascent_steps": 20},
    "hypersphere with 20 ascent steps": {"ascent_steps": 20, "hypothesis": "hypersphere"},
    "layers 6 and 13 with 192 values": {
        "layers": "features.6,features.13",
        "pretrain_embed_dim": 96,
        "embed_dim": 192,
    },
    "512 values": {"pretrain_embed_dim": 512, "embed_dim": 512},
    "1024 hidden": {"hidden_dim": 1024},
    "constant rate 1e-4": {"learning_rate": 1e-4, "schedule": "constant"},
}


def trial(data: Path, changes: dict[str, Any], seed: int, folder: Path) -> tuple[float, float | None, float]:
    """Image AUROC, pixel AUROC and seconds of one training."""
    values: dict[str, Any] = {
        "data": data,
        "output": folder / "run",
        "preset": "fast",
        "resize_mode": "shorter_side_crop",
        "backbone_weights": "packaged",
        "seed": seed,
        "eval_every": 10**6,  # the last epoch is always looked at
        **changes,
    }
    began = time.perf_counter()
    best = model_family("glass").train(values, "ablation", Progress(), force=True).best
    assert best is not None and best.image_auroc is not None, f"{data} has no labelled test pictures"
    return best.image_auroc, best.pixel_auroc, time.perf_counter() - began


def random_weights(backbone: str, path: Path) -> Path:
    """Untrained weights in a file."""
    torch.manual_seed(0)
    torch.save(network_state(backbone), path)
    return path


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--seeds", default=3)
@click.option("--textures", type=click.Path(path_type=Path))
@click.option("--only", multiple=True, type=click.Choice(list(VARIANTS)), default=list(VARIANTS))
def main(data: tuple[Path, ...], seeds: int, textures: Path | None, only: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variant in only:
            changes = {"textures": textures, **VARIANTS[variant]}
            if variant == RANDOM:
                changes["backbone_weights"] = random_weights("mobilenet_v2", folder / "random.pth")
            for each in data:
                results = [trial(each, changes, seed, folder) for seed in range(seeds)]
                image, pixel, seconds = zip(*results, strict=True)
                pixels = [value for value in pixel if value is not None]
                shown = f"{statistics.mean(pixels):.3f}" if pixels else "–"
                click.echo(
                    f"| {variant} | {each.name} | {statistics.mean(image):.3f} | {min(image):.3f} | {shown}"
                    f" | {statistics.mean(seconds):.0f} s |"
                )


if __name__ == "__main__":
    main()
