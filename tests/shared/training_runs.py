"""What tests of trainings share: small data sets, runs to compare, and a user who interrupts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from edge_ad.models.progress import Progress
from edge_ad.training_run import RunRecord

Drawing = tuple[Any, Any]
"""A picture, (H, W) grey or (H, W, 3) RGB as numbers from 0 to 255; and the (H, W) mask of its defect, or None."""


def write_data_set(root: Path, defect: str, counts: Mapping[str, int], draw: Callable[[bool], Drawing]) -> Path:
    """A data set in the layout of MVTec.

    Args:
        counts: pictures of `train/good`, `test/good` and `test/<defect>`, in the order in which they are drawn.
        draw: whether a picture is to be defective → what is written.
    """
    (root / "ground_truth" / defect).mkdir(parents=True)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for index in range(count):
            picture, mask = draw(folder == f"test/{defect}")
            pixels = np.clip(picture, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).convert("RGB").save(root / folder / f"{index:02}.png")
            if mask is not None:
                white = np.where(mask, 255, 0).astype(np.uint8)
                Image.fromarray(white).save(root / "ground_truth" / defect / f"{index:02}_mask.png")
    return root


def write_blots(root: Path, counts: Mapping[str, int], side: int = 64) -> Path:
    """A data set in the layout of MVTec: grey waves, on the defective ones a bright blot with its mask."""
    rng = np.random.default_rng(11)
    x = np.arange(side)

    def draw(defective: bool) -> Drawing:
        grey = 90 + 30 * np.sin(x / 5 + rng.uniform(0, 6)) + rng.normal(0, 4, (side, side))
        if not defective:
            return grey, None
        picture, mask = np.repeat(grey[:, :, None], 3, axis=2), np.zeros((side, side), bool)
        top, left = (int(edge) for edge in rng.integers(8, side // 2, 2))
        picture[top : top + 24, left : left + 24] = (250, 40, 10)
        mask[top : top + 24, left : left + 24] = True
        return picture, mask

    return write_data_set(root, "blot", counts, draw)


def tensors_in(value: Any, where: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of nested mappings and lists, by its path."""
    if isinstance(value, torch.Tensor):
        return {where: value}
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {name: found for key, part in entries for name, found in tensors_in(part, f"{where}/{key}").items()}


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    """Weights of the checkpoints and all of the state that training changes, by file and name."""
    files = [*sorted(run.glob("ckpt*.pth")), run / "state.pt"]
    return {
        name: tensor
        for path in files
        for name, tensor in tensors_in(torch.load(path, weights_only=True), path.name).items()
    }


def assert_same_run(first: Path, second: Path, *, tensors: int) -> None:
    """Bit for bit. Args: tensors: how many there are at least, so that nothing is compared in vain."""
    one, other = tensors_of(first), tensors_of(second)
    assert one.keys() == other.keys() and len(one) > tensors
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()


def interrupted_in(step: int) -> Progress:
    """A user who ends the training when it tells of its step `step`, counted from 1."""
    losses = 0

    def told(text: str) -> None:
        nonlocal losses
        losses += "loss" in text
        if losses == step:
            raise KeyboardInterrupt

    return Progress(step=told)


def trained(family: str, values: Mapping[str, Any], *, progress: Progress | None = None, **how: bool) -> RunRecord:
    """Train by name, with options by name."""
    from edge_ad.models import model_family

    return model_family(family).train(values, "test", progress or Progress(), **how)


def trainer(family: str, **usual: Any) -> Callable[..., RunRecord]:
    """Trains into a folder, as usual but for what is told otherwise."""

    def train(output: Path, *, progress: Progress | None = None, **changes: Any) -> RunRecord:
        how = {name: changes.pop(name) for name in ("resume", "force") if name in changes}
        return trained(family, {**usual, "output": output, **changes}, progress=progress, **how)

    return train
