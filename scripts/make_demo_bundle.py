"""Makes edge_ad/demo/disc.edgead, the bundle that `edge-ad demo` judges the simulated line with.

    python scripts/make_demo_bundle.py

A demonstration model, small enough to ship: the first layers of MobileNetV2 and a head on their features, trained
together from scratch on good frames of several simulated lines and on copies of them with painted blobs. It is no
family's training: there is no noise on features, no ascent, and the backbone is not frozen. What comes out is a
checkpoint of the default family like any other, and goes through the same export. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import edge_ad
from edge_ad.bundle.specs import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from edge_ad.calibration.evaluation.thresholds import best_f1_threshold
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.image.preprocess import Preprocessor
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.network import PatchHead
from edge_ad.runtime.sources import open_source

OUTPUT = Path(__file__).resolve().parents[1] / "edge_ad" / "demo" / "disc.edgead"
CONFIG = HeadConfig("mobilenet_v2", ("features.4", "features.7"), pretrain_embed_dim=96, embed_dim=96, hidden_dim=64)
SIDE = 256
TRAINING_SEEDS = range(100, 112)
VALIDATION_SEEDS = range(200, 204)


def line_frames(seed: int, defects: float, count: int) -> list[tuple[NDArray[np.uint8], bool]]:
    """Frames of a simulated line at model size, (SIDE, SIDE, 3) uint8 RGB, and whether they are anomalous."""
    preprocess = Preprocessor(PreprocessSpec(SIDE, SIDE, resize=SIDE))
    frames = []
    with open_source(f"sim:?size=1280x720&defects={defects}&seed={seed}&frames={count}") as source:
        while (frame := source.read()) is not None:
            assert frame.image_hwc is not None and frame.truth is not None
            frames.append((preprocess(frame.image_hwc, frame.color_order).image_hwc, frame.truth.anomalous))
    return frames


def paint_blobs(image_hwc: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A copy with one to three blobs, streaks or smears of another look, and their mask, 0 or 1."""
    picture = image_hwc.astype(np.float32)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(rng.integers(1, 4)):
        shape = np.zeros((SIDE, SIDE), np.uint8)
        radius, angle = rng.uniform(0.05, 0.46) * SIDE, rng.uniform(0, 2 * np.pi)
        x, y = SIDE / 2 + radius * np.cos(angle), SIDE / 2 + radius * np.sin(angle)
        axes = (int(rng.uniform(2, 11)), int(rng.uniform(1, 7)))
        cv2.ellipse(shape, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, 1, -1)
        soft = cv2.GaussianBlur(shape.astype(np.float32), (0, 0), rng.uniform(0.4, 1.8))[..., None]
        look = rng.integers(4)
        if look == 0:
            paint = np.full((SIDE, SIDE, 3), rng.uniform(0, 60), np.float32)
        elif look == 1:
            paint = np.full((SIDE, SIDE, 3), rng.uniform(170, 255), np.float32)
        elif look == 2:
            paint = picture + rng.normal(0, 40, 3).astype(np.float32)
        else:
            paint = np.roll(picture, tuple(rng.integers(20, 120, 2)), (0, 1))
        strength = soft * rng.uniform(0.35, 1)
        picture = picture * (1 - strength) + paint * strength
        changed = np.abs(picture - image_hwc).max(axis=2) > 14
        mask |= ((soft[..., 0] > 0.3) & changed).astype(np.uint8)
    return np.clip(picture, 0, 255).astype(np.uint8), mask


def normalised(images: list[NDArray[np.uint8]]) -> Tensor:
    """(N, 3, H, W) float32 as the exported graph normalises it."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


def train(network: PatchHead, good: list[NDArray[np.uint8]], steps: int, rng: np.random.Generator) -> None:
    """Teach the network to tell painted patches from the others."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    network.train()
    for step in range(1, steps + 1):
        chosen = [good[i] for i in rng.integers(0, len(good), 8)]
        painted = [paint_blobs(image, rng) for image in chosen]
        logits = network(normalised([*chosen, *(image for image, _ in painted)]))
        masks = torch.from_numpy(np.stack([mask for _, mask in painted])).float()[:, None]
        truth = F.adaptive_max_pool2d(masks, logits.shape[1:]).squeeze(1)
        target = torch.cat([torch.zeros_like(truth), truth])
        focus = (torch.sigmoid(logits.detach()) - target).abs() ** 2
        loss = (focus * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).mean() * 20
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            click.echo(f"step {step} of {steps}: loss {loss.item():.4f}")
    network.eval()


def export(network: PatchHead, folder: Path, output: Path, threshold: float | None) -> None:
    """Save the official checkpoint and export it."""
    parts = {"discriminator": network.discriminator.state_dict(), "pre_projection": network.adaptor.state_dict()}
    torch.save(parts, folder / "ckpt_best.pth")
    torch.save(network.backbone.trunk.state_dict(), folder / "backbone.pth")
    values = {
        "checkpoint": folder / "ckpt_best.pth",
        "backbone_weights": folder / "backbone.pth",
        "output": output,
        "backbone": CONFIG.backbone,
        "layers": list(CONFIG.layers),
        "pretrain_embed_dim": CONFIG.pretrain_embed_dim,
        "imgsz": SIDE,
        "threshold": threshold,
        "force": True,
    }
    export_bundle(export_options(values, "demo"), say=click.echo)


@click.command()
@click.option("--steps", default=600, show_default=True)
@click.option("--output", default=OUTPUT, type=click.Path(path_type=Path), show_default=False)
def main(steps: int, output: Path) -> None:
    """Train, choose the threshold on other lines, export."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    good = [image for seed in TRAINING_SEEDS for image, _ in line_frames(seed, 0, 12)]
    network = PatchHead(CONFIG)
    train(network, good, steps, rng)
    with tempfile.TemporaryDirectory() as folder:
        export(network, Path(folder), Path(folder) / "trial.edgead", None)
        scores, truth = [], []
        with edge_ad.open(Path(folder) / "trial.edgead", engine_cache=folder) as detector:
            for seed in VALIDATION_SEEDS:
                for image, anomalous in line_frames(seed, 0.5, 60):
                    scores.append(detector.judge(image).score)
                    truth.append(anomalous)
        choice = best_f1_threshold(scores, truth)
        click.echo(f"threshold {choice.value:.4f}: precision {choice.precision:.3f}, recall {choice.recall:.3f}")
        export(network, Path(folder), output, round(choice.value, 4))


if __name__ == "__main__":
    main()
