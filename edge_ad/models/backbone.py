"""Frozen feature extractors: any torchvision or timm network, cut at named taps, and what learned to imitate one.

A backbone is named as torchvision names it (`wide_resnet50_2`) or as `timm:<name>`; a tap is the dotted name of
a module inside it (`layer2`, `features.13`). Only the layers up to the last tap are kept. A third kind are students,
`student:<name of either kind>`, see `edge_ad.models.student`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edge_ad.errors import CheckpointError, ConfigError, MissingExtraError, one_line
from edge_ad.models.networks import check_taps, cut, layers_of, network
from edge_ad.models.state import check_shapes, load_tensors, missing_tensors
from edge_ad.models.student import STUDENT_PREFIX, StudentTrunk, student_faults


class Backbone(nn.Module):
    """Network cut at its taps: (N, 3, H, W) float32 normalised RGB → one (N, C_i, h_i, w_i) float32 per tap."""

    def __init__(self, name: str, taps: Sequence[str]) -> None:
        super().__init__()
        self.name = name
        self.taps = tuple(taps)
        self.trunk = _trunk(name, self.taps)

    def forward(self, image: Tensor) -> list[Tensor]:
        features = self.trunk(image)
        return [features[tap] for tap in self.taps]

    def load_weights(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load a full state dict of the network, or that of the trunk alone (layers behind the last tap may lack).

        Raises: CheckpointError naming the first tensor that is missing or has another shape.
        """
        wanted = self.trunk.state_dict()
        missing = missing_tensors(wanted, state)
        if missing:
            raise CheckpointError(
                f"{source}: tensor {missing[0]!r} of backbone {self.name!r} is not in the file"
                f" ({len(missing)} of {len(wanted)} missing); give the weights of {self.name!r}"
            )
        check_shapes({key: state[key] for key in wanted if key in state}, wanted, source, f"backbone {self.name!r}")
        load_tensors(self.trunk, state)

    def shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(channels, rows, columns) of every tap for an image of `height` × `width` pixels."""
        training = self.training
        self.eval()
        try:
            # A traced network prints its own traceback before it raises.
            with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
                features = self(torch.zeros(1, 3, height, width))
        except (AssertionError, RuntimeError) as exc:
            raise ConfigError(
                "imgsz", [f"{height}x{width} is too small or unsuited for backbone {self.name!r}: {one_line(exc)}"]
            ) from exc
        finally:
            self.train(training)
        for tap, feature in zip(self.taps, features, strict=True):
            if feature.ndim != 4 or not _same_aspect(feature, height / width):
                found = tuple(feature.shape)
                raise ConfigError(
                    "layers", [f"tap {tap!r} of {self.name!r} gives features {found}, wanted (N, channels, h, w)"]
                )
        return [(int(f.shape[1]), int(f.shape[2]), int(f.shape[3])) for f in features]


def _same_aspect(feature: Tensor, aspect: float) -> bool:
    """Whether the last two axes look like rows and columns of the image, which tells NCHW from NHWC features."""
    rows, columns = feature.shape[2:]
    return rows - 1 <= aspect * (columns + 1) and aspect * (columns - 1) <= rows + 1


def backbone_faults(name: str, taps: Sequence[str]) -> list[str]:
    """What is wrong with the name and the taps, each with its option, as far as the installed packages can tell."""
    if name.startswith(STUDENT_PREFIX):
        return student_faults(name, taps)
    try:
        check_taps(layers_of(name), name, taps)
    except ConfigError as exc:
        return [f"{exc.where}: {fault}" for fault in exc.faults]
    except MissingExtraError:
        return []  # loading the network says so
    return []


def network_state(name: str) -> dict[str, Tensor]:
    """Untrained state dict of a whole network, in its own order."""
    return network(name).state_dict()


def _trunk(name: str, taps: tuple[str, ...]) -> nn.Module:
    """(N, 3, H, W) → features by tap."""
    return StudentTrunk(name, taps) if name.startswith(STUDENT_PREFIX) else cut(network(name), name, taps)
