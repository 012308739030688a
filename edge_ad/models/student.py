"""Students: small networks that learned to give the features of a larger one.

A student is named `student:<network>`, and each of its taps says what it imitates: `features.6@256/8` is the layer
`features.6` of the network, taken by a 1×1 convolution to 256 channels on a grid of an eighth of the picture's sides.
So the name and the taps say all that its shape depends on, as those of every backbone do. `edge_ad.models.distillation`
trains them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.errors import ConfigError, MissingExtraError, one_line
from edge_ad.models.networks import check_taps, cut, layers_of, network

STUDENT_PREFIX = "student:"
MOST_TAPS = 8
MOST_CHANNELS = 1 << 14  # what no tap of a network has; a file may claim any number
_TAP = re.compile(r"(?P<layer>[^@]+)@(?P<channels>\d{1,5})/(?P<stride>\d{1,4})")
_PROBE = 224


@dataclass(frozen=True)
class StudentTap:
    """What one tap of a student gives.

    Attributes:
        layer: of the student's own network.
        channels: of the imitated tap.
        stride: pixels of the picture that one row, and one column, of the imitated tap stands for.
    """

    layer: str
    channels: int
    stride: int

    @property
    def name(self) -> str:
        return f"{self.layer}@{self.channels}/{self.stride}"

    def grid(self, image_hw: Sequence[int]) -> tuple[int, int]:
        """Rows and columns for a picture of (height, width) pixels."""
        return -(-image_hw[0] // self.stride), -(-image_hw[1] // self.stride)


def student_tap(name: str) -> StudentTap:
    """The inverse of `StudentTap.name`. Raises: ConfigError."""
    found = _TAP.fullmatch(name)
    if found is None or not 0 < int(found["channels"]) <= MOST_CHANNELS or not int(found["stride"]):
        wanted = "a student's taps are written LAYER@CHANNELS/STRIDE, such as features.6@256/8"
        raise ConfigError("layers", [f"{name!r}: {wanted}"])
    return StudentTap(found["layer"], int(found["channels"]), int(found["stride"]))


def student_faults(name: str, taps: Sequence[str]) -> list[str]:
    """What is wrong with a student's name and taps, each with its option, as far as the installed packages can tell."""
    own = name.removeprefix(STUDENT_PREFIX)
    try:
        check_taps(layers_of(own), own, [student_tap(tap).layer for tap in taps])
    except ConfigError as exc:
        return [f"{exc.where}: {fault}" for fault in exc.faults]
    except MissingExtraError:
        return []
    return []


class StudentTrunk(nn.Module):
    """(N, 3, H, W) float32 normalised RGB → (N, channels, H/stride, W/stride) float32 by the name of the tap.

    Args:
        name: with its prefix.
        taps: as they are written.

    Raises: ConfigError, MissingExtraError.
    """

    def __init__(self, name: str, taps: Sequence[str]) -> None:
        super().__init__()
        own = name.removeprefix(STUDENT_PREFIX)
        self.taps = tuple(student_tap(tap) for tap in taps)
        if len(taps) > MOST_TAPS:  # each has a convolution, before any weight of a file is looked at
            raise ConfigError("layers", [f"wanted at most {MOST_TAPS} of a student, got {len(taps)}"])
        layers = tuple(dict.fromkeys(tap.layer for tap in self.taps))
        self.network = cut(network(own), own, layers)
        with torch.no_grad():
            try:
                found = self.network(torch.zeros(1, 3, _PROBE, _PROBE))
            except (RuntimeError, AssertionError) as exc:
                reason = f"{own} takes no picture of {_PROBE}x{_PROBE}: {one_line(exc)}; wanted one of any size"
                raise ConfigError("backbone", [reason]) from exc
        for layer in layers:
            shape = tuple(found[layer].shape)
            if len(shape) != 4:
                raise ConfigError("layers", [f"{layer} of {own} gives {list(shape)}, wanted a map (N, C, h, w)"])
        widths = [int(found[tap.layer].shape[1]) for tap in self.taps]
        self.projections = nn.ModuleList(
            nn.Conv2d(width, tap.channels, 1) for width, tap in zip(widths, self.taps, strict=True)
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.own_features(image)
        given = zip(self.taps, self.projections, features, strict=True)
        return {tap.name: projection(feature) for tap, projection, feature in given}

    def own_features(self, image: Tensor) -> list[Tensor]:
        """What the 1×1 convolutions get: layers of the network on the grids of the imitated taps."""
        found = self.network(image)
        image_hw = (int(image.shape[2]), int(image.shape[3]))
        return [_resized(found[tap.layer], tap.grid(image_hw)) for tap in self.taps]


class NarrowTaps(nn.Module):
    """A student's taps turned so that as few numbers as possible hold all of them; distances stay what they are.

    A tap of C channels that comes out of K by a 1×1 convolution [W b] lies in a space of at most K + 1 dimensions. With
    [W b] = Q R and orthonormal columns in Q, R alone gives the tap in the basis Q; nothing is lost, at the borders
    neither, where what is linear over positions mixes the tap with zeros.

    `forward`: (N, 3, H, W) float32 normalised RGB → one (N, min(C, K + 1), h, w) float32 for each tap.

    Attributes:
        bases: Q of every tap, (C, min(C, K + 1)) float64.
    """

    def __init__(self, trunk: StudentTrunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.bases: list[Tensor] = []
        self.turned = nn.ModuleList()
        for projection in cast("list[nn.Conv2d]", list(trunk.projections)):
            assert projection.bias is not None
            joint = torch.cat([projection.weight.flatten(1), projection.bias[:, None]], dim=1).detach().double()
            basis, rest = torch.linalg.qr(joint)
            layer = nn.Conv2d(projection.in_channels, len(rest), 1)
            layer.weight = nn.Parameter(rest[:, :-1, None, None].float().contiguous(), requires_grad=False)
            layer.bias = nn.Parameter(rest[:, -1].float().contiguous(), requires_grad=False)
            self.bases.append(basis)
            self.turned.append(layer)

    def forward(self, image: Tensor) -> list[Tensor]:
        return [layer(own) for layer, own in zip(self.turned, self.trunk.own_features(image), strict=True)]


def _resized(feature: Tensor, size_hw: tuple[int, int]) -> Tensor:
    if (int(feature.shape[2]), int(feature.shape[3])) == size_hw:
        return feature
    return F.interpolate(feature, size=size_hw, mode="bilinear", align_corners=False)
