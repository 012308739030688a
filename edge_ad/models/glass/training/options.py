"""Everything that training GLASS can be told, the same from the command line, from YAML and from a run's own record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from edge_ad.models.glass.config import Hypothesis, Objective
from edge_ad.models.option_types import NotNegative, Positive, PositiveFloat, Share, option
from edge_ad.models.patch_head.training.options import FAST, HeadTrainOptions
from edge_ad.validation import strict

Ridge = Annotated[NotNegative | None, BeforeValidator(lambda value: None if value == "none" else value)]
"""A number, or `none`, which a user can say against a preset."""


def _pair(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


@strict
@dataclass(frozen=True, kw_only=True)
class GlassTrainOptions(HeadTrainOptions):
    """Options of `edge-ad train --family glass`; the defaults are the published values.

    Attributes:
        whiten: start the adaptor as the whitening of the normal features, their covariance's eigenvalues raised by
            this share of their mean; None starts it at random.
        freeze_adaptor: leave the adaptor as whitening made it; not in the paper.
        hypothesis: `manifold`, `hypersphere`, or `auto` to choose by the spectrum of the mean picture.
        noise_std, noise_spread: standard deviation of the Gaussian noise; it is multiplied, patch by patch, by up to
            2 to the power of plus or minus `noise_spread`.
        jitter_std: standard deviation of Gaussian noise on the normal features themselves: their surroundings count
            as normal, which a handful of pictures does not show; not in the paper.
        ascent_steps, ascent_step_size, project_every, manifold_radii, radius_quantile, hard_quantile, focal_gamma:
            see Objective.
        overlay_share: share of the pictures that get a texture; the local branch learns from the others that all of
            them is normal. The paper overlays all.
        beta_mean, beta_std: share of the good picture that shines through a texture.
        augmentations: how many of nine changes a texture undergoes.
        foreground: where textures may lie: everywhere (`none`), where an object is found (`auto`), or where the
            data set's foreground pictures say (`files`).
        learning_rate: the adaptor's; the discriminator's is twice that.
        schedule: `constant`, or `cosine` from the full rate to none over all epochs.
        epochs, epoch_images: meta-epochs, and how many pictures one has at most.
        repeat: how often one epoch goes through a small data set.
        amp: half precision for the backbone on CUDA.
    """

    whiten: Ridge = option(None, "Start the adaptor as a whitening of normal features (paper: none, random).", "RIDGE")
    freeze_adaptor: bool = option(False, "Leave it so (paper: it is trained).", off="train-adaptor")
    hypothesis: Literal["manifold", "hypersphere", "auto"] = option(
        "auto", "manifold, hypersphere or auto (default).", "NAME"
    )
    noise_std: PositiveFloat = option(0.015, "Gaussian noise on normal features (paper: 0.015).", "X")
    noise_spread: Annotated[float, Field(ge=0, le=8)] = option(
        0.0, "Vary it from patch to patch (paper: 0).", "OCTAVES"
    )
    jitter_std: NotNegative = option(0.0, "Noise on what counts as normal (paper: 0).", "X")
    ascent_steps: Annotated[int, Field(ge=0)] = option(20, "Steps of gradient ascent; 0 for none (paper: 20).")
    ascent_step_size: PositiveFloat = option(0.001, "Length of one (paper: 0.001).", "X")
    project_every: Positive = option(5, "Ascent steps between projections (paper: 5).")
    manifold_radii: Annotated[tuple[NotNegative, PositiveFloat], BeforeValidator(_pair)] = option(
        (0.5, 1.0), "Bounds of the manifold projection (paper: 0.5,1).", "A,B"
    )
    radius_quantile: Share = option(0.75, "Quantile that makes the hypersphere's radius (paper: 0.75).", "Q")
    hard_quantile: Share = option(0.5, "Patches easier than this share are left out (paper: 0.5).", "Q")
    focal_gamma: NotNegative = option(2.0, "Exponent of the focal loss (paper: 2).", "X")
    overlay_share: Share = option(1.0, "Share of the pictures that get a texture (paper: 1).", "X")
    beta_mean: Share = option(0.5, "Share of the good picture under a texture (paper: 0.5).", "X")
    beta_std: NotNegative = option(0.1, "Its standard deviation (paper: 0.1).", "X")
    augmentations: Annotated[int, Field(ge=0, le=9)] = option(3, "Changes of a texture, of nine (paper: 3).")
    foreground: Literal["none", "auto", "files"] = option(
        "none", "Where textures lie: none (everywhere, default), auto or files.", "RULE"
    )
    learning_rate: PositiveFloat = option(1e-4, "Adaptor's; the discriminator's is twice that (paper: 1e-4).", "X")
    schedule: Literal["constant", "cosine"] = option("constant", "constant (paper) or cosine.", "NAME")
    epochs: Positive = option(640, "Meta-epochs (paper: 640).")
    epoch_images: Positive = option(392, "Pictures in a meta-epoch at most (paper: 392).")
    repeat: Positive = option(1, "Times that an epoch goes through the pictures (default: 1).")
    amp: bool = option(True, "Half precision for the backbone on CUDA (default: yes).", off="no-amp")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {
            **FAST,
            "whiten": 10.0,
            "freeze_adaptor": True,
            "hypothesis": "manifold",
            "noise_std": 0.6,
            "jitter_std": 0.3,
            "ascent_steps": 0,
            "overlay_share": 0.0,
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "epochs": 100,
            "epoch_images": 32,
            "repeat": 32,
        },
    }
    """`fast` was chosen on one set of photographs, see docs/training.md."""

    def objective(self, hypothesis: Hypothesis) -> Objective:
        """Constants of the losses under the hypothesis that was chosen."""
        names = {field.name for field in fields(Objective)} - {"hypothesis"}
        return Objective(hypothesis=hypothesis, **{name: getattr(self, name) for name in names})

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if self.freeze_adaptor and self.whiten is None:
            yield "freeze_adaptor: without --whiten RIDGE the adaptor would stay as random as it starts"
        if self.manifold_radii[0] > self.manifold_radii[1]:
            yield f"manifold_radii: wanted the nearer first, got {list(self.manifold_radii)}"
