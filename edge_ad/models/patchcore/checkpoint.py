"""A bank, its backbone and the options of an export → a network.

Our own file is `{"memory_bank": (M, D), "config": plain values by name}`, without the backbone, and `"places"` (M, 2)
where the bank knows where its entries lie. What others write is read by `source`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.models.backbone import Backbone, backbone_faults
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.patchcore.config import PatchCoreConfig
from edge_ad.models.patchcore.embedding import embedding_dim
from edge_ad.models.patchcore.network import PatchCore
from edge_ad.models.patchcore.options import PatchCoreOptions
from edge_ad.models.patchcore.source import (
    BANK_KEY,
    CONFIG_KEY,
    PLACES_KEY,
    WEIGHTS_KEY,
    Source,
    read_source,
    weights_hash,
)
from edge_ad.models.state import missing_tensors
from edge_ad.models.weights import backbone_state, require_files, sha256_of
from edge_ad.validation import build

OF_PLACES = ("tile_position", "spread", "canvas_hw")
"""What is written of a bank that knows places, and of no other."""
OF_THE_BANK = ("backbone", "layers", "embedding", "pretrain_embed_dim")
"""Options that a bank was made with: another value is another bank."""


def option_faults(options: PatchCoreOptions, faulty: set[str]) -> list[str]:
    """What can be said against options before any file is read. Args: faulty: keys that have been complained of."""
    if faulty & {"backbone", "layers"} or options.backbone is None or options.layers is None:
        return []  # the other half may be in the checkpoint
    return [*backbone_faults(options.backbone, options.layers), *layer_faults(options.layers)]


def layer_faults(layers: tuple[str, ...]) -> list[str]:
    return [f"layers: {', '.join(layers)} names a layer twice"] if len(set(layers)) != len(layers) else []


def checkpoint_parts(network: PatchCore) -> dict[str, Any]:
    """What is kept of a network beside its backbone: tensors and plain values."""
    config = _plain(network.config)
    config[WEIGHTS_KEY] = weights_hash(network.backbone.trunk.state_dict())
    places = {PLACES_KEY: network.places.cpu()} if len(network.places) else {}
    return {BANK_KEY: network.bank.cpu(), **places, CONFIG_KEY: config}


def _plain(config: PatchCoreConfig) -> dict[str, Any]:
    values = {**asdict(config), "layers": list(config.layers), "canvas_hw": list(config.canvas_hw)}
    return {name: value for name, value in values.items() if config.tile_position or name not in OF_PLACES}


def on_backbone(network: PatchCore, backbone: Backbone) -> PatchCore:
    """The same with another backbone, which gives features of the same shapes."""
    network.backbone = backbone
    network.config = replace(network.config, backbone=backbone.name, layers=backbone.taps)
    return network


def load_patchcore(checkpoint: Path, options: PatchCoreOptions, preprocess: PreprocessSpec) -> LoadedNetwork[PatchCore]:
    """Read a bank and its backbone into a network in eval mode.

    Args:
        preprocess: of the size that features are tried with.

    Raises: CheckpointError; ConfigError for options that the bank was not made with.
    """
    require_files({"checkpoint": checkpoint, "backbone weights": options.backbone_weights})
    source = read_source(checkpoint)
    where = f"checkpoint {checkpoint}"
    config, assumed = _config_of(source, options, where)
    network = PatchCore(config, source.bank, source.places)
    origin, notes = _load_backbone(network.backbone, source, options, where)
    _check_dimension(network, source, (source.preprocess or preprocess).size_hw, where)
    plain = {**_plain(config), "entries": len(source.bank), "backbone_weights": origin}
    if config.embedding == "averaged":
        del plain["pretrain_embed_dim"]  # which means nothing there
    return LoadedNetwork(
        network.eval().requires_grad_(False),
        plain,
        sha256_of(checkpoint),
        (*source.notes, *assumed, *notes),
        preprocess=source.preprocess,
        postprocess=source.postprocess,
    )


def _config_of(source: Source, options: PatchCoreOptions, where: str) -> tuple[PatchCoreConfig, list[str]]:
    """The configuration, and what had to be assumed for it, one line each."""
    given = {field.name: getattr(options, field.name) for field in fields(options) if field.name != "backbone_weights"}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        known = asdict(build(PatchCoreConfig, {**source.usual, **source.said}, where))
    except ConfigError as exc:
        raise CheckpointError(str(exc)) from exc
    certain = {*source.usual, *source.said}
    faults = [
        f"{name}: the bank was made with {_text(known[name])}, got {_text(given[name])}; leave it out"
        for name in OF_THE_BANK
        if name in certain and name in given and given[name] != known[name]
    ]
    if source.places is None and (given.get("tile_position") or known["tile_position"]):
        faults.append("tile_position: the bank does not know where its patches lie; train with --tile-position, or 0")
    if faults:
        raise ConfigError(where, faults)
    values = {**known, **given, "layers": list(given.get("layers", known["layers"]))}
    columns = int(source.bank.shape[1])
    if "embed_dim" in source.said and values["embedding"] == "pooled" and values["embed_dim"] != columns:
        raise CheckpointError(
            f"{where}: the bank has {columns} numbers for each entry, its parameters say {values['embed_dim']}"
        )
    values["embed_dim"] = columns
    relevant = ["backbone", "layers", "embedding"]
    relevant += ["pretrain_embed_dim"] if values["embedding"] == "pooled" else []
    guessed = [name for name in relevant if name not in certain and name not in given]
    config = build(PatchCoreConfig, values, where)
    notes = [
        f"{name} is not in the checkpoint; assumed {_text(getattr(config, name))}, else give --{name.replace('_', '-')}"
        for name in guessed
    ]
    return config, notes


def _load_backbone(
    backbone: Backbone, source: Source, options: PatchCoreOptions, where: str
) -> tuple[str, tuple[str, ...]]:
    """Returns: where the weights came from, and notes."""
    weights: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()
    if source.weights is not None:
        if options.backbone_weights is not None:
            raise ConfigError("backbone_weights", [f"{where} holds those that its bank was made with; leave it out"])
        lacking = missing_tensors(backbone.trunk.state_dict(), source.weights)
        if lacking:
            raise CheckpointError(
                f"{where}: holds another backbone than {backbone.name!r}, tensor {lacking[0]!r} is missing;"
                " give --backbone and --layers of the network that it was trained with"
            )
        weights, origin = source.weights, where
    else:
        state = backbone_state(backbone.name, options.backbone_weights)
        weights, origin, notes = state.tensors, state.origin, state.notes
    backbone.load_weights(weights, origin)
    if source.weights_sha256 not in (None, weights_hash(backbone.trunk.state_dict())):
        raise CheckpointError(
            f"{where}: its bank was made with other weights of {backbone.name!r} than {origin};"
            " give --backbone-weights FILE, which a run keeps as backbone.pth"
        )
    return (origin if source.weights is None else "the checkpoint's"), notes


def _check_dimension(network: PatchCore, source: Source, size_hw: tuple[int, int], where: str) -> None:
    """Raise CheckpointError for a bank that the taps cannot have given."""
    channels = [channels for channels, _, _ in network.backbone.shapes(*size_hw)]
    wanted, columns = embedding_dim(network.config, channels), int(source.bank.shape[1])
    if wanted != columns:
        taps = " + ".join(f"{width} ({tap})" for tap, width in zip(network.config.layers, channels, strict=True))
        raise CheckpointError(
            f"{where}: the bank has {columns} numbers for each entry, the taps of {network.config.backbone!r} give"
            f" {taps} = {wanted}; it is one of another backbone or of other layers: give --backbone and --layers"
        )


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, (list, tuple)) else str(value)
