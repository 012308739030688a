"""DiffusionAD trained on a CUDA device: it learns, and what it leaves behind is read on any machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_ad.models.diffusionad.checkpoint import load_diffusionad, settings_of
from edge_ad.models.diffusionad.fold import FoldedDiffusionAd, PublishedDiffusionAd
from edge_ad.models.diffusionad.options import DiffusionAdOptions
from edge_ad.training_run import read_run

TF32_TOLERANCE = 5e-3  # of a probability; convolutions on the device may round to ten bits


@pytest.mark.gpu
def test_a_training_on_the_device(train: Callable[..., Any], tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")
    train(tmp_path / "run", device="cuda", clean_share=1.0, epochs=4, epoch_images=12, eval_every=2)
    record = read_run(tmp_path / "run")
    assert record.status == "finished" and record.facts["device"] == "cuda"
    loaded = load_diffusionad(tmp_path / "run" / str(record.checkpoint), DiffusionAdOptions())
    image, settings = torch.rand(2, 3, 32, 64), settings_of(loaded.config)
    with torch.no_grad():
        wanted = torch.sigmoid(PublishedDiffusionAd(loaded.network, settings, (32, 64))(image))
        folded = FoldedDiffusionAd(loaded.network, settings, (32, 64)).cuda()
        found = torch.sigmoid(folded(image.cuda())).cpu()
    assert float((found - wanted).abs().max()) <= TF32_TOLERANCE
