"""Everything that training can be told, the same from the command line, from YAML and from a run's own record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edge_ad.bundle.specs import PreprocessSpec, ResizeMode, ScoreKind
from edge_ad.datasets import Dataset, open_dataset, plain_dataset
from edge_ad.errors import ConfigError
from edge_ad.models.backbone import backbone_faults
from edge_ad.models.family import NetworkOptions
from edge_ad.models.glass.network import GlassConfig
from edge_ad.models.glass.training.objective import Hypothesis, Objective
from edge_ad.models.option_types import Name, Names, Positive, Size
from edge_ad.models.weights import PACKAGED
from edge_ad.validation import build_rest, strict

Preset = Literal["paper", "fast"]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Ridge = Annotated[NotNegative | None, BeforeValidator(lambda value: None if value == "none" else value)]
"""A number, or `none`, which a user can say against a preset."""


@strict
@dataclass(frozen=True)
class TrainOptions:
    """Options of `edge-ad train`; the defaults are the published values.

    Attributes:
        output: folder of the run.
        data: folder in the layout of MVTec AD or VisA, or of good pictures alone.
        good, bad, masks: folders of good pictures, defective ones and their ground truth, in place of `data`.
        textures: folder of pictures that local anomalies are made of; drawn patterns when None.
        preset: where the defaults come from, see PRESETS.
        backbone, backbone_weights, layers: as for export; `packaged` weights are those of an installed package.
        imgsz, resize, resize_mode: as for export.
        pretrain_embed_dim, embed_dim, hidden_dim, discriminator_layers: see GlassConfig.
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
        batch: pictures in a step.
        epochs, epoch_images: meta-epochs, and how many pictures one has at most.
        repeat: how often one epoch goes through a small data set.
        select: which epoch's weights are kept: the `best` on labelled test pictures (by training losses where there
            is none), or the `last`.
        eval_every: epochs between two looks at the labelled test pictures; 0 never looks.
        patience: epochs without a better result after which training stops; 0 never stops early.
        score: which score labelled pictures are ranked by, and the bundle's.
        seed: of everything that is drawn.
        device: `auto` takes a CUDA device where there is one.
        amp: half precision for the backbone on CUDA.
        cache_mb: memory for decoded pictures and features, each.
    """

    output: Path
    data: Path | None = None
    good: Path | None = None
    bad: Path | None = None
    masks: Path | None = None
    textures: Path | None = None
    preset: Preset = "paper"
    backbone: Name = GlassConfig.backbone
    backbone_weights: Path | None = None
    layers: Names = GlassConfig.layers
    imgsz: Size = (288, 288)
    resize: Positive | None = None
    resize_mode: ResizeMode = "shorter_side_crop"
    pretrain_embed_dim: Positive = GlassConfig.pretrain_embed_dim
    embed_dim: Positive = GlassConfig.embed_dim
    hidden_dim: Positive = GlassConfig.hidden_dim
    discriminator_layers: Annotated[int, Field(ge=2, le=8)] = GlassConfig.discriminator_layers
    whiten: Ridge = None
    freeze_adaptor: bool = False
    hypothesis: Literal["manifold", "hypersphere", "auto"] = "auto"
    noise_std: PositiveFloat = 0.015
    noise_spread: Annotated[float, Field(ge=0, le=8)] = 0.0
    jitter_std: NotNegative = 0.0
    ascent_steps: Annotated[int, Field(ge=0)] = 20
    ascent_step_size: PositiveFloat = 0.001
    project_every: Positive = 5
    manifold_radii: tuple[NotNegative, PositiveFloat] = (0.5, 1.0)
    radius_quantile: Share = 0.75
    hard_quantile: Share = 0.5
    focal_gamma: NotNegative = 2.0
    overlay_share: Share = 1.0
    beta_mean: Share = 0.5
    beta_std: NotNegative = 0.1
    augmentations: Annotated[int, Field(ge=0, le=9)] = 3
    foreground: Literal["none", "auto", "files"] = "none"
    learning_rate: PositiveFloat = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    batch: Annotated[int, Field(gt=0, le=1024)] = 8
    epochs: Positive = 640
    epoch_images: Positive = 392
    repeat: Positive = 1
    select: Literal["best", "last"] = "best"
    eval_every: Annotated[int, Field(ge=0)] = 1
    patience: Annotated[int, Field(ge=0)] = 0
    score: ScoreKind = "map_max"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    amp: bool = True
    cache_mb: Positive = 2048

    @property
    def preprocess(self) -> PreprocessSpec:
        """How pictures become the model's input."""
        height, width = self.imgsz
        crop = self.resize_mode == "shorter_side_crop"
        resize = (self.resize or min(self.imgsz)) if crop else None
        return PreprocessSpec(height=height, width=width, resize_mode=self.resize_mode, resize=resize)

    @property
    def network(self) -> GlassConfig:
        """The network to train."""
        return GlassConfig(
            backbone=self.backbone,
            layers=self.layers,
            pretrain_embed_dim=self.pretrain_embed_dim,
            embed_dim=self.embed_dim,
            hidden_dim=self.hidden_dim,
            discriminator_layers=self.discriminator_layers,
        )

    @property
    def export(self) -> dict[str, Any]:
        """What `edge-ad export` has to know of the finished run, by option name."""
        names = [field.name for field in fields(NetworkOptions) if hasattr(self, field.name)]
        network = {name: getattr(self, name) for name in names if name != "backbone_weights"}
        placed = {"imgsz": list(self.imgsz), "resize": self.resize, "resize_mode": self.resize_mode}
        return {**network, "layers": list(self.layers), **placed, "score": self.score}

    def objective(self, hypothesis: Hypothesis) -> Objective:
        """Constants of the losses under the hypothesis that was chosen."""
        names = {field.name for field in fields(Objective)} - {"hypothesis"}
        return Objective(hypothesis=hypothesis, **{name: getattr(self, name) for name in names})

    def dataset(self) -> Dataset:
        """The pictures. Raises: SourceError when there is no good one, or a folder cannot be read."""
        if self.data is not None:
            return open_dataset(self.data)
        assert self.good is not None
        return plain_dataset(self.good, self.bad, self.masks)


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "fast": {
        "backbone": "mobilenet_v2",
        "backbone_weights": PACKAGED,
        "layers": ("features.11", "features.15"),
        "imgsz": 256,
        "pretrain_embed_dim": 160,
        "embed_dim": 320,
        "hidden_dim": 256,
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
        "select": "last",
        "eval_every": 0,
    },
}
"""Defaults by the name of a preset. `fast` was chosen on one set of photographs, see docs/training.md."""


def train_options(values: dict[str, Any], where: str) -> TrainOptions:
    """Check options by name; None is the same as not given. Raises: ConfigError with every fault."""
    given = {key.replace("-", "_"): value for key, value in values.items() if value is not None}
    preset = PRESETS.get(str(given.get("preset", "paper")), {})
    if given.get("backbone", preset.get("backbone")) != preset.get("backbone"):
        preset = {key: value for key, value in preset.items() if key != "backbone_weights"}  # those of another network
    options, wrong = build_rest(TrainOptions, {**preset, **given}, {"output": Path()})
    faults = [fault.line for fault in wrong]
    faults += _contradictions(options)
    if not {fault.key for fault in wrong} & {"backbone", "layers"}:
        faults += backbone_faults(options.backbone, options.layers)
    if faults:
        raise ConfigError(where, faults)
    return options


def _contradictions(options: TrainOptions) -> list[str]:
    faults = []
    if (options.data is None) == (options.good is None):
        faults.append("data: give either a data set or --good DIR" + (", not both" if options.data else ""))
    alone = [name for name in ("bad", "masks") if getattr(options, name) is not None and options.good is None]
    faults += [f"{name}: belongs to --good DIR; a data set has its own" for name in alone]
    if options.masks is not None and options.bad is None:
        faults.append("masks: are those of --bad DIR, which is not given")
    if options.resize is not None and options.resize_mode != "shorter_side_crop":
        faults.append(f"resize: belongs to resize_mode shorter_side_crop, not to {options.resize_mode}; leave it out")
    if options.select == "best" and 0 < options.patience < options.eval_every:
        faults.append(
            f"patience: {options.patience} epochs would pass without a look at the labels; wanted eval_every or more"
        )
    if options.select == "last" and options.patience:
        faults.append("patience: with select last nothing is better or worse; give --select best, or leave it out")
    if options.freeze_adaptor and options.whiten is None:
        faults.append("freeze_adaptor: without --whiten RIDGE the adaptor would stay as random as it starts")
    if options.manifold_radii[0] > options.manifold_radii[1]:
        faults.append(f"manifold_radii: wanted the nearer first, got {list(options.manifold_radii)}")
    if len(set(options.layers)) != len(options.layers):
        faults.append(f"layers: {', '.join(options.layers)} names a layer twice")
    return faults
