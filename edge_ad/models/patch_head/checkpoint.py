"""Checkpoints as the authors keep them: ``{"discriminator": state, "pre_projection": state}``, without the backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from edge_ad.errors import CheckpointError
from edge_ad.models.backbone import Backbone, backbone_faults
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.network import PatchHead
from edge_ad.models.patch_head.options import HeadOptions
from edge_ad.models.state import (
    PREFIXES,
    check_architecture,
    first_names,
    load_tensors,
    state_of,
    unwrapped,
    without_memory,
)
from edge_ad.models.weights import backbone_state, read_tensors, require_files, sha256_of

ADAPTOR_KEY = "pre_projection"
DISCRIMINATOR_KEY = "discriminator"
FIRST_LINEAR = "body.block1.0.weight"
WIDEST = 1 << 14  # features of a patch; the fold holds a matrix of twice the square of it (4 GiB here)
_ADAPTOR_WEIGHT = re.compile(r"layers\.(\d+)fc\.weight")
_BLOCK_WEIGHT = re.compile(r"body\.block(\d+)\.0\.weight")


HeadT = TypeVar("HeadT", bound=PatchHead)


def option_faults(options: HeadOptions, faulty: set[str]) -> list[str]:
    """What can be said against options before any file is read. Args: faulty: keys that have been complained of."""
    if "backbone" in faulty:
        return []
    layers = () if "layers" in faulty else options.layers or HeadConfig.layers
    found = backbone_faults(options.backbone or HeadConfig.backbone, layers)
    if len(set(layers)) != len(layers):
        found.append(f"layers: {', '.join(layers)} names a layer twice")
    return found


def load_head(checkpoint: Path, options: HeadOptions, kind: type[HeadT]) -> LoadedNetwork[HeadT]:
    """Read an official checkpoint and its backbone into a network of `kind` in eval mode.

    Sizes that the user does not give are read from the tensors. `pretrain_embed_dim` leaves no trace in a checkpoint;
    where it is not given it is taken to equal `embed_dim`, as the authors' settings have it, and noted.

    Raises: CheckpointError naming the tensor, what was found and what was expected; ConfigError.
    """
    require_files({"checkpoint": checkpoint, "backbone weights": options.backbone_weights})
    data, opened = _parts(read_tensors(checkpoint, "checkpoint"), checkpoint, kind.title)
    discriminator = state_of(data[DISCRIMINATOR_KEY], f"checkpoint {checkpoint}: {DISCRIMINATOR_KEY}")
    adaptor = state_of(data.get(ADAPTOR_KEY, {}), f"checkpoint {checkpoint}: {ADAPTOR_KEY}")
    config, notes = _config_of(checkpoint, discriminator.tensors, adaptor.tensors, options, kind.title)
    _check_parts(checkpoint, kind, config, {DISCRIMINATOR_KEY: discriminator.tensors, ADAPTOR_KEY: adaptor.tensors})
    network = kind(config)
    load_tensors(network.discriminator, discriminator.tensors)
    load_tensors(network.adaptor, adaptor.tensors)
    backbone = backbone_state(config.backbone, options.backbone_weights)
    network.backbone.load_weights(backbone.tensors, str(options.backbone_weights or backbone.origin))
    plain = {**asdict(config), "layers": list(config.layers), "backbone_weights": backbone.origin}
    notes += [*opened, *discriminator.notes, *adaptor.notes, *backbone.notes]
    return LoadedNetwork(network.eval().requires_grad_(False), plain, sha256_of(checkpoint), tuple(notes))


def head_parts(network: PatchHead) -> dict[str, Any]:
    """The weights as the authors keep them; a network without an adaptor has none to keep."""
    parts = {DISCRIMINATOR_KEY: network.discriminator.state_dict()}
    if len(network.adaptor.layers):
        parts[ADAPTOR_KEY] = network.adaptor.state_dict()
    return parts


def on_backbone(network: HeadT, backbone: Backbone) -> HeadT:
    """The same with another backbone, which gives features of the same shapes."""
    network.backbone = backbone
    network.config = replace(network.config, backbone=backbone.name, layers=backbone.taps)
    return network


def _parts(data: Mapping[str, Any], checkpoint: Path, title: str) -> tuple[Mapping[str, Any], list[str]]:
    """The two parts by name, and what had to be undone for that; also of the state dict of a module that holds both."""
    where = f"checkpoint {checkpoint}"
    inner, notes = unwrapped(data, where, lambda found: DISCRIMINATOR_KEY in found)
    assert isinstance(inner, Mapping)
    if DISCRIMINATOR_KEY in inner:
        return inner, notes
    parts: dict[str, dict[str, Any]] = {}
    for key, value in inner.items():
        part, _, name = _without_prefixes(str(key)).partition(".")
        if part in (DISCRIMINATOR_KEY, ADAPTOR_KEY):
            parts.setdefault(part, {})[name] = value
    if DISCRIMINATOR_KEY not in parts:
        raise CheckpointError(
            f"{where}: no {title} checkpoint, it holds {first_names(data)};"
            f" wanted {DISCRIMINATOR_KEY!r} and {ADAPTOR_KEY!r}"
        )
    notes.append(f"{where}: one state dict of several parts; {' and '.join(parts)} are taken from it by their names")
    return parts, notes


def _without_prefixes(name: str) -> str:
    while prefix := next((one for one in PREFIXES if name.startswith(one)), None):
        name = name.removeprefix(prefix)
    return name


def _config_of(
    checkpoint: Path, discriminator: dict[str, Tensor], adaptor: dict[str, Tensor], options: HeadOptions, title: str
) -> tuple[HeadConfig, list[str]]:
    first = discriminator.get(FIRST_LINEAR)
    if first is None or first.ndim != 2:
        raise CheckpointError(
            f"checkpoint {checkpoint}: no {title} checkpoint, tensor '{DISCRIMINATOR_KEY}.{FIRST_LINEAR}' is missing;"
            f" {DISCRIMINATOR_KEY} holds {first_names(discriminator)}"
        )
    hidden_dim, embed_dim = (int(n) for n in first.shape)
    if max(hidden_dim, embed_dim) > WIDEST:
        raise CheckpointError(
            f"checkpoint {checkpoint}: tensor '{DISCRIMINATOR_KEY}.{FIRST_LINEAR}' has shape {tuple(first.shape)}, no"
            f" side of it may have more than {WIDEST}"
        )
    embed_dim = options.embed_dim or embed_dim
    notes = []
    if options.pretrain_embed_dim is None:
        notes.append(
            f"pretrain_embed_dim is not in a checkpoint; assumed {embed_dim} (that of embed_dim),"
            " else give --pretrain-embed-dim"
        )
    if not adaptor:
        notes.append(f"the checkpoint has no {ADAPTOR_KEY!r}; taken as trained without an adaptor")
    defaults = HeadConfig()
    if options.backbone is None:
        notes.append(f"the backbone is not in a checkpoint; assumed {defaults.backbone}, else give --backbone")
    config = HeadConfig(
        backbone=options.backbone or defaults.backbone,
        layers=options.layers or defaults.layers,
        pretrain_embed_dim=options.pretrain_embed_dim or embed_dim,
        embed_dim=embed_dim,
        hidden_dim=options.hidden_dim or hidden_dim,
        adaptor_layers=sum(1 for key in adaptor if _ADAPTOR_WEIGHT.fullmatch(key)),
        discriminator_layers=1 + sum(1 for key in discriminator if _BLOCK_WEIGHT.fullmatch(key)),
    )
    return config, notes


def _check_parts(
    checkpoint: Path, kind: type[PatchHead], config: HeadConfig, parts: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Raise CheckpointError unless the tensors are those of the network that the first of them speaks of.

    No memory is spent on it before.
    """
    adaptor, discriminator = without_memory(lambda: kind.head(config))
    for part, module in ((DISCRIMINATOR_KEY, discriminator), (ADAPTOR_KEY, adaptor)):
        named = partial(_quoted, part)
        check_architecture(parts[part], module, f"checkpoint {checkpoint}", "the configuration", named)


def _quoted(part: str, key: str) -> str:
    return repr(f"{part}.{key}")
