"""The learning rate of DRAEM: as published, as the paper's text has it, and two others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_ad.models.draem.config import DraemConfig
from edge_ad.models.draem.network import Draem
from edge_ad.models.draem.training.options import DraemTrainOptions
from edge_ad.models.draem.training.trainer import DraemTrainer


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("steps", {0: 1.0, 401: 1.0, 559: 1.0, 561: 0.2, 629: 0.2, 631: 0.04, 699: 0.04}),
        ("text_steps", {0: 1.0, 399: 1.0, 401: 0.1, 599: 0.1, 601: 0.01, 699: 0.01}),
        ("cosine", {0: 1.0, 350: 0.5, 700: 0.0}),
        ("constant", {0: 1.0, 699: 1.0}),
    ],
)
def test_the_rate_of_an_epoch(schedule: str, rates: dict[int, float], tmp_path: Path) -> None:
    values = {"data": tmp_path, "output": tmp_path / "run", "schedule": schedule, "learning_rate": 1e-3}
    options: DraemTrainOptions = DraemTrainOptions.checked(values, "options")
    assert options.epochs == 700
    unused: Any = None
    trainer = DraemTrainer(Draem(DraemConfig(1, 1)), unused, None, options)
    for epoch, share in rates.items():
        trainer._set_rate(epoch / 700)
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(share * 1e-3, abs=1e-12)
