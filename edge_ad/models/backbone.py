"""Frozen feature extractors: any torchvision or timm network, cut at named taps.

A backbone is named as torchvision names it (`wide_resnet50_2`) or as `timm:<name>`; a tap is the dotted name of
a module inside it (`layer2`, `features.13`). Only the layers up to the last tap are kept.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from edge_ad.errors import CheckpointError, ConfigError, EdgeAdError, MissingExtraError, one_line
from edge_ad.models.state import check_shapes, load_tensors, missing_tensors

TIMM_PREFIX = "timm:"


class Backbone(nn.Module):
    """Network cut at its taps: (N, 3, H, W) float32 normalised RGB → one (N, C_i, h_i, w_i) float32 per tap."""

    def __init__(self, name: str, taps: Sequence[str]) -> None:
        super().__init__()
        self.name = name
        self.taps = tuple(taps)
        self.trunk = _cut(_network(name), name, self.taps)

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
    try:
        _check_taps(_layers(name), name, taps)
    except ConfigError as exc:
        return [f"{exc.where}: {fault}" for fault in exc.faults]
    except MissingExtraError:
        return []  # loading the network says so
    return []


def network_state(name: str) -> dict[str, Tensor]:
    """Untrained state dict of a whole network, in its own order."""
    return _network(name).state_dict()


@lru_cache(maxsize=32)
def _layers(name: str) -> tuple[str, ...]:
    """Dotted names of all modules of a network, which is built without memory for its weights where that works."""
    try:
        with torch.device("meta"):
            network = _network(name)
    except EdgeAdError:
        raise
    except Exception:  # some networks compute with tensors while they are built
        network = _network(name)
    return tuple(layer for layer, _ in network.named_modules())


def _network(name: str) -> nn.Module:
    if name.startswith(TIMM_PREFIX):
        return _timm_network(name.removeprefix(TIMM_PREFIX))
    try:
        import torchvision
    except ImportError as exc:
        raise MissingExtraError(f"backbone {name!r}", "torchvision", "export") from exc
    known: Sequence[str] = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            "backbone",
            [
                f"{name!r} is no torchvision classifier{_did_you_mean(name, known)};"
                " timm networks are written timm:<name>"
            ],
        )
    builder: Callable[..., nn.Module] = torchvision.models.get_model_builder(name)
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return builder(weights=None, **extra)


def _timm_network(name: str) -> nn.Module:
    try:
        import timm
    except ImportError as exc:
        raise MissingExtraError(f"backbone 'timm:{name}'", "timm", "timm") from exc
    if name not in timm.list_models():
        raise ConfigError("backbone", [f"{name!r} is no timm network{_did_you_mean(name, timm.list_models())}"])
    network: nn.Module = timm.create_model(name, pretrained=False)
    return network


def _cut(network: nn.Module, name: str, taps: tuple[str, ...]) -> nn.Module:
    try:
        from torchvision.models.feature_extraction import create_feature_extractor
    except ImportError as exc:
        extra = "timm" if name.startswith(TIMM_PREFIX) else "export"
        raise MissingExtraError(f"backbone {name!r}", "torchvision", extra) from exc
    _check_taps([layer for layer, _ in network.named_modules()], name, taps)
    network.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that train mode has further nodes; a frozen network has no train mode
            trunk: nn.Module = create_feature_extractor(network, return_nodes={tap: tap for tap in taps})
    except Exception as exc:
        raise ConfigError("backbone", [f"{name!r} cannot be cut at {', '.join(taps)}: {one_line(exc)}"]) from exc
    return trunk


def _check_taps(layers: Sequence[str], name: str, taps: Sequence[str]) -> None:
    unknown = [tap for tap in taps if tap not in layers or not tap]
    if unknown:
        raise ConfigError("layers", [f"{tap!r} is no layer of {name!r}{_did_you_mean(tap, layers)}" for tap in unknown])


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    return f", did you mean {' or '.join(close)}?" if close else ""
