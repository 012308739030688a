"""What a user says about a DiffusionAD network that was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from edge_ad.models.diffusionad.schedule import STEPS
from edge_ad.models.option_types import NotNegative, Positive, option
from edge_ad.validation import strict

NORMAL_STEP, NOISIER_STEP, GUIDANCE = 200, 400, 1.0
"""The authors' settings where a checkpoint holds none."""
TimeStep = Annotated[int, Field(ge=0, lt=STEPS)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


@strict
@dataclass(frozen=True, kw_only=True)
class DiffusionAdOptions:
    """Options of `edge-ad export` for DiffusionAD; None is read from the checkpoint.

    Attributes:
        normal_t, noisier_t: time steps of the two passes, of 1000.
        condition_w: how much the noisier pass guides the other.
        noise_seed: of the noise that becomes part of the graph; None for the usual draw. A threshold belongs to it.
        num_heads: of the attention, which no tensor tells.
        passes: 2 as published, or 1, which leaves the guidance out, and about half of the work.
    """

    normal_t: TimeStep | None = option(None, "Time step of the first pass (default: the checkpoint's, else 200).")
    noisier_t: TimeStep | None = option(None, "Time step of the guiding pass (default: the checkpoint's, else 400).")
    condition_w: NotNegative | None = option(
        None, "How much the second pass guides (default: the checkpoint's, else 1).", "X"
    )
    noise_seed: Seed | None = option(None, "Another draw of the noise in the graph; a threshold belongs to its draw.")
    num_heads: Positive | None = option(None, "Heads of the attention (default: the checkpoint's, else 4).")
    passes: Literal[1, 2] = option(2, "2 (published), or 1: without guidance, about half of the work.")
