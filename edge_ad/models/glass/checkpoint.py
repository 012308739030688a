"""Checkpoints of the authors' GLASS: ``{"discriminator": state, "pre_projection": state}``, without the backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edge_ad.errors import CheckpointError
from edge_ad.models.family import LoadedNetwork, NetworkOptions
from edge_ad.models.glass.network import Glass, GlassConfig
from edge_ad.models.state import PREFIXES, check_shapes, first_names, load_tensors, missing_tensors, state_of, unwrapped
from edge_ad.models.weights import backbone_state, read_tensors, require_files, sha256_of

ADAPTOR_KEY = "pre_projection"
DISCRIMINATOR_KEY = "discriminator"
FIRST_LINEAR = "body.block1.0.weight"
_ADAPTOR_WEIGHT = re.compile(r"layers\.(\d+)fc\.weight")
_BLOCK_WEIGHT = re.compile(r"body\.block(\d+)\.0\.weight")


def load_glass(checkpoint: Path, options: NetworkOptions) -> LoadedNetwork[Glass]:
    """Read an official checkpoint and its backbone into a network in eval mode.

    Sizes that the user does not give are read from the tensors. `pretrain_embed_dim` leaves no trace in a checkpoint;
    where it is not given it is taken to equal `embed_dim`, as the authors' settings have it, and noted.

    Raises: CheckpointError naming the tensor, what was found and what was expected; ConfigError.
    """
    require_files({"checkpoint": checkpoint, "backbone weights": options.backbone_weights})
    data, opened = _parts(read_tensors(checkpoint, "checkpoint"), checkpoint)
    discriminator = state_of(data[DISCRIMINATOR_KEY], f"checkpoint {checkpoint}: {DISCRIMINATOR_KEY}")
    adaptor = state_of(data.get(ADAPTOR_KEY, {}), f"checkpoint {checkpoint}: {ADAPTOR_KEY}")
    config, notes = _config_of(checkpoint, discriminator.tensors, adaptor.tensors, options)
    network = Glass(config)
    _load(network.discriminator, discriminator.tensors, checkpoint, DISCRIMINATOR_KEY)
    _load(network.adaptor, adaptor.tensors, checkpoint, ADAPTOR_KEY)
    backbone = backbone_state(config.backbone, options.backbone_weights)
    network.backbone.load_weights(backbone.tensors, str(options.backbone_weights or backbone.origin))
    plain = {**asdict(config), "layers": list(config.layers), "backbone_weights": backbone.origin}
    notes += [*opened, *discriminator.notes, *adaptor.notes, *backbone.notes]
    return LoadedNetwork(network.eval().requires_grad_(False), plain, sha256_of(checkpoint), tuple(notes))


def _parts(data: Mapping[str, Any], checkpoint: Path) -> tuple[Mapping[str, Any], list[str]]:
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
            f"{where}: no GLASS checkpoint, it holds {first_names(data)};"
            f" wanted {DISCRIMINATOR_KEY!r} and {ADAPTOR_KEY!r}"
        )
    notes.append(f"{where}: one state dict of several parts; {' and '.join(parts)} are taken from it by their names")
    return parts, notes


def _without_prefixes(name: str) -> str:
    while prefix := next((one for one in PREFIXES if name.startswith(one)), None):
        name = name.removeprefix(prefix)
    return name


def _config_of(
    checkpoint: Path, discriminator: dict[str, Tensor], adaptor: dict[str, Tensor], options: NetworkOptions
) -> tuple[GlassConfig, list[str]]:
    first = discriminator.get(FIRST_LINEAR)
    if first is None or first.ndim != 2:
        raise CheckpointError(
            f"checkpoint {checkpoint}: no GLASS checkpoint, tensor '{DISCRIMINATOR_KEY}.{FIRST_LINEAR}' is missing;"
            f" {DISCRIMINATOR_KEY} holds {first_names(discriminator)}"
        )
    hidden_dim, embed_dim = (int(n) for n in first.shape)
    embed_dim = options.embed_dim or embed_dim
    notes = []
    if options.pretrain_embed_dim is None:
        notes.append(
            f"pretrain_embed_dim is not in a checkpoint; assumed {embed_dim} (that of embed_dim),"
            " else give --pretrain-embed-dim"
        )
    if not adaptor:
        notes.append(f"the checkpoint has no {ADAPTOR_KEY!r}; taken as trained without an adaptor")
    defaults = GlassConfig()
    if options.backbone is None:
        notes.append(f"the backbone is not in a checkpoint; assumed {defaults.backbone}, else give --backbone")
    config = GlassConfig(
        backbone=options.backbone or defaults.backbone,
        layers=options.layers or defaults.layers,
        pretrain_embed_dim=options.pretrain_embed_dim or embed_dim,
        embed_dim=embed_dim,
        hidden_dim=options.hidden_dim or hidden_dim,
        adaptor_layers=sum(1 for key in adaptor if _ADAPTOR_WEIGHT.fullmatch(key)),
        discriminator_layers=1 + sum(1 for key in discriminator if _BLOCK_WEIGHT.fullmatch(key)),
    )
    return config, notes


def _load(module: nn.Module, state: dict[str, Tensor], checkpoint: Path, part: str) -> None:
    wanted = module.state_dict()
    missing = missing_tensors(wanted, state)
    surplus = [key for key in state if key not in wanted]
    if missing or surplus:
        what, key = ("is missing", missing[0]) if missing else ("is not known", surplus[0])
        raise CheckpointError(f"checkpoint {checkpoint}: tensor '{part}.{key}' {what}; this is another architecture")
    prefixed = {f"{part}.{key}": value for key, value in state.items()}
    check_shapes(
        prefixed,
        {f"{part}.{key}": value for key, value in wanted.items()},
        f"checkpoint {checkpoint}",
        "the configuration",
    )
    load_tensors(module, state)
