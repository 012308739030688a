"""Networks by name: any torchvision classifier or timm network, and how they are cut at named layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import nn

from edge_ad.errors import ConfigError, EdgeAdError, MissingExtraError, one_line

TIMM_PREFIX = "timm:"


def network(name: str) -> nn.Module:
    """An untrained network. Raises: ConfigError for an unknown name, MissingExtraError."""
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


@lru_cache(maxsize=32)
def layers_of(name: str) -> tuple[str, ...]:
    """Dotted names of all modules of a network, which is built without memory for its weights where that works."""
    try:
        with torch.device("meta"):
            built = network(name)
    except EdgeAdError:
        raise
    except Exception:  # some networks compute with tensors while they are built
        built = network(name)
    return tuple(layer for layer, _ in built.named_modules())


def _timm_network(name: str) -> nn.Module:
    try:
        import timm
    except ImportError as exc:
        raise MissingExtraError(f"backbone 'timm:{name}'", "timm", "timm") from exc
    if name not in timm.list_models():
        raise ConfigError("backbone", [f"{name!r} is no timm network{_did_you_mean(name, timm.list_models())}"])
    built: nn.Module = timm.create_model(name, pretrained=False)
    return built


def cut(whole: nn.Module, name: str, taps: tuple[str, ...]) -> nn.Module:
    """The part of a network up to the last tap: (N, 3, H, W) → features by tap. Raises: ConfigError."""
    try:
        from torchvision.models.feature_extraction import create_feature_extractor
    except ImportError as exc:
        extra = "timm" if name.startswith(TIMM_PREFIX) else "export"
        raise MissingExtraError(f"backbone {name!r}", "torchvision", extra) from exc
    check_taps([layer for layer, _ in whole.named_modules()], name, taps)
    whole.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that train mode has further nodes; a frozen network has no train mode
            trunk: nn.Module = create_feature_extractor(
                whole, return_nodes={tap: tap for tap in taps}, tracer_kwargs=_kept_whole(name)
            )
    except Exception as exc:
        raise ConfigError("backbone", [f"{name!r} cannot be cut at {', '.join(taps)}: {one_line(exc)}"]) from exc
    return trunk


def _kept_whole(name: str) -> dict[str, Any] | None:
    """Parts that tracing does not look into: timm's paddings, such as those of networks that come from TensorFlow,
    depend on sizes."""
    if not name.startswith(TIMM_PREFIX):
        return None
    models: Any = import_module("timm.models")
    return {
        "leaf_modules": list(models.get_notrace_modules()),
        "autowrap_functions": list(models.get_notrace_functions()),
    }


def check_taps(layers: Sequence[str], name: str, taps: Sequence[str]) -> None:
    """Raise ConfigError for taps that are no layers of the network called `name`."""
    unknown = [tap for tap in taps if tap not in layers or not tap]
    if unknown:
        raise ConfigError("layers", [f"{tap!r} is no layer of {name!r}{_did_you_mean(tap, layers)}" for tap in unknown])


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    return f", did you mean {' or '.join(close)}?" if close else ""
