"""DRAEM as published: an autoencoder without skips reconstructs, a U-Net compares the reconstruction with the picture.

Zavrtanik, Kristan, Skočaj: "DRÆM – A discriminatively trained reconstruction embedding for surface anomaly detection",
ICCV 2021 (arXiv 2108.07610), section 3. Module names are those of the authors' checkpoints. Nothing here is rearranged
for speed.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from edge_ad.models.draem.config import DraemConfig


def block(n_in: int, n_out: int, middle: int | None = None) -> nn.Sequential:
    """Two times 3×3 convolution, batch normalisation, ReLU: `n_in` → `middle` (or `n_out`) → `n_out` channels."""
    middle = n_out if middle is None else middle
    return nn.Sequential(*_convolution(n_in, middle), *_convolution(middle, n_out))


def upsampling(n_in: int, n_out: int) -> nn.Sequential:
    """Twice as large by bilinear interpolation with aligned corners, then convolution, normalisation, ReLU."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        *_convolution(n_in, n_out),
    )


def _convolution(n_in: int, n_out: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()


def _last(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1))


class ReconstructionEncoder(nn.Module):
    """(N, 3, H, W) → (N, 8w, H/16, W/16)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.block1 = block(3, width)
        self.block2 = block(width, 2 * width)
        self.block3 = block(2 * width, 4 * width)
        self.block4 = block(4 * width, 8 * width)
        self.block5 = block(8 * width, 8 * width)

    def forward(self, image: Tensor) -> Tensor:
        feature: Tensor = self.block1(image)
        for following in (self.block2, self.block3, self.block4, self.block5):
            feature = following(self.pool(feature))
        return feature


class ReconstructionDecoder(nn.Module):
    """(N, 8w, h, w) → (N, 3, 16h, 16w), unbounded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up1 = upsampling(8 * width, 8 * width)
        self.db1 = block(8 * width, 4 * width, middle=8 * width)
        self.up2 = upsampling(4 * width, 4 * width)
        self.db2 = block(4 * width, 2 * width, middle=4 * width)
        self.up3 = upsampling(2 * width, 2 * width)
        self.db3 = block(2 * width, width, middle=2 * width)
        self.up4 = upsampling(width, width)
        self.db4 = block(width, width)
        self.fin_out = _last(width, 3)

    def forward(self, feature: Tensor) -> Tensor:
        steps = (self.up1, self.db1, self.up2, self.db2, self.up3, self.db3, self.up4, self.db4, self.fin_out)
        for step in steps:
            feature = step(feature)
        return feature


class Reconstruction(nn.Module):
    """(N, 3, H, W) in [0, 1] → (N, 3, H, W), which may leave [0, 1]; in the channel order it was trained with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = ReconstructionEncoder(width)
        self.decoder = ReconstructionDecoder(width)

    def forward(self, image: Tensor) -> Tensor:
        reconstructed: Tensor = self.decoder(self.encoder(image))
        return reconstructed


class SegmentationEncoder(nn.Module):
    """(N, 6, H, W) → features of six blocks, each half as large as the one before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        widths = (6, channels, 2 * channels, 4 * channels, 8 * channels, 8 * channels, 8 * channels)
        for number, (n_in, n_out) in enumerate(pairwise(widths), start=1):
            self.add_module(f"block{number}", block(n_in, n_out))

    def forward(self, pair: Tensor) -> list[Tensor]:
        features = [self.get_submodule("block1")(pair)]
        for number in range(2, 7):
            features.append(self.get_submodule(f"block{number}")(self.pool(features[-1])))
        return features


class SegmentationDecoder(nn.Module):
    """Features of the six blocks → (N, answers, H, W) logits."""

    def __init__(self, channels: int, answers: int) -> None:
        super().__init__()
        self.up_b = upsampling(8 * channels, 8 * channels)
        self.db_b = block(16 * channels, 8 * channels)
        self.up1 = upsampling(8 * channels, 4 * channels)
        self.db1 = block(12 * channels, 4 * channels)
        self.up2 = upsampling(4 * channels, 2 * channels)
        self.db2 = block(6 * channels, 2 * channels)
        self.up3 = upsampling(2 * channels, channels)
        self.db3 = block(3 * channels, channels)
        self.up4 = upsampling(channels, channels)
        self.db4 = block(2 * channels, channels)
        self.fin_out = _last(channels, answers)

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, feature = features
        steps = (
            (self.up_b, self.db_b),
            (self.up1, self.db1),
            (self.up2, self.db2),
            (self.up3, self.db3),
            (self.up4, self.db4),
        )
        for (up, merge), skip in zip(steps, reversed(skips), strict=True):
            feature = merge(torch.cat([up(feature), skip], dim=1))
        logits: Tensor = self.fin_out(feature)
        return logits


class Segmentation(nn.Module):
    """The reconstruction and then the picture, (N, 6, H, W) → (N, 2, H, W) logits of normal and anomalous.

    DiffusionAD has it too, with the picture first and one answer.
    """

    def __init__(self, channels: int, answers: int = 2) -> None:
        super().__init__()
        self.encoder_segment = SegmentationEncoder(channels)
        self.decoder_segment = SegmentationDecoder(channels, answers)

    def forward(self, pair: Tensor) -> Tensor:
        logits: Tensor = self.decoder_segment(self.encoder_segment(pair))
        return logits


class Draem(nn.Module):
    """Both networks.

    `forward`: (N, 3, H, W) float in [0, 1], H and W multiples of 32 → (N, H, W) probability that a pixel is anomalous.
    """

    def __init__(self, config: DraemConfig) -> None:
        super().__init__()
        self.config = config
        self.reconstruction = Reconstruction(config.base_width)
        self.segmentation = Segmentation(config.base_channels)

    def both(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction (N, 3, H, W), and the logits (N, 2, H, W)."""
        reconstructed = self.reconstruction(image)
        return reconstructed, self.segmentation(torch.cat([reconstructed, image], dim=1))

    def forward(self, image: Tensor) -> Tensor:
        _, logits = self.both(image)
        return torch.softmax(logits, dim=1)[:, 1]


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights as the authors do: convolutions N(0, 0.02²), normalisations N(1, 0.02²) without shift.

    Biases of convolutions keep what PyTorch drew for them.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02, generator=generator)
            nn.init.zeros_(module.bias)
