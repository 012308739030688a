"""What defines a network of this kind apart from its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class EmbeddingSizes(Protocol):
    """Sizes of a patch embedding, see `HeadConfig`."""

    @property
    def pretrain_embed_dim(self) -> int: ...
    @property
    def embed_dim(self) -> int: ...


@dataclass(frozen=True)
class HeadConfig:
    """Backbone, patch embedding, adaptor and discriminator; the defaults are those of both authors.

    Attributes:
        backbone: torchvision name, or `timm:<name>`.
        layers: taps; the first one sets the resolution of the patch map.
        pretrain_embed_dim: length of the pooled vector of one tap.
        embed_dim: length of the patch embedding (`target_embed_dimension` of the authors).
        hidden_dim: width of the discriminator's hidden layers.
        adaptor_layers: linear layers of the adaptor; 0 means that there is none.
        discriminator_layers: layers of the discriminator, its output layer included; the authors use 2.
    """

    backbone: str = "wide_resnet50_2"
    layers: tuple[str, ...] = ("layer2", "layer3")
    pretrain_embed_dim: int = 1536
    embed_dim: int = 1536
    hidden_dim: int = 1024
    adaptor_layers: int = 1
    discriminator_layers: int = 2
