"""Checkpoints of CPR: the authors' state dict, and our own file, which needs nothing beside it.

The authors write one flat state dict: `lrb.conv.*`, the metric networks, and `backbone.feature_extractor.backbone.*`.
Codebook, foreground and bank lie in pickles of whole modules, which are never opened: they are computed again from the
training pictures. Ours is `{"config": values, "backbone": state, "lrb": state or {}, "grb": {"centers"}, "feb":
{"weight", "bias"} or {}, "references": {"images", "names"}}`: the reference pictures themselves, as uint8, of which the
bank is computed; they take a 27th of its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.models.backbone import Backbone
from edge_ad.models.cpr.config import CENTRES, BankType, CprConfig
from edge_ad.models.cpr.learned import chosen, learned
from edge_ad.models.cpr.network import Cpr, Foreground, LocalBranch
from edge_ad.models.cpr.options import KNOWN_LAYERS, REFERENCE_COUNT, CprOptions
from edge_ad.models.cpr.search import bank_bytes
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.references import References
from edge_ad.models.state import check_architecture, first_names, load_tensors, state_of
from edge_ad.models.weights import backbone_state, read_tensors, require_files, sha256_of
from edge_ad.validation import build

BACKBONE_PREFIX = "backbone.feature_extractor.backbone."
METRIC_PREFIX = "lrb."
FIRST_WEIGHT = "conv.0.0.weight"
MOST_BANK_BYTES = 2 * 10**9  # of an ONNX file, which ends at 2 GiB; the network takes the rest
SHORTENED = 257  # channels of a patch in the bank, see `fold`


@dataclass(frozen=True)
class Parts:
    """What a checkpoint says.

    Attributes:
        config: None where the file does not tell.
        backbone, lrb: state dicts; empty where there is none.
        centres: None where they have to be found.
        foreground: None where there is none, or where it has to be found.
        images, names: references, (R, H, W, 3) uint8; None where they have to be given.
        notes: what had to be assumed, one line each.
    """

    config: CprConfig | None
    backbone: Mapping[str, Tensor]
    lrb: Mapping[str, Tensor]
    centres: Tensor | None = None
    foreground: Foreground | None = None
    images: Tensor | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def checkpoint_of(network: Cpr) -> dict[str, Any]:
    """Our own file."""
    feb = network.foreground
    return {
        "config": {**asdict(network.config)},
        "backbone": network.backbone.trunk.state_dict(),
        "lrb": {} if network.lrb is None else network.lrb.state_dict(),
        "grb": {"centers": network.centres},
        "feb": {} if feb is None else {"weight": feb.weight, "bias": feb.bias},
        "references": {"images": network.references, "names": list(network.names)},
    }


def load_cpr(checkpoint: Path, options: CprOptions, references: References) -> LoadedNetwork[Cpr]:
    """Read a network in eval mode; codebook, foreground and references are computed where the file lacks them.

    Raises: CheckpointError naming the tensor, what was found and what was expected; ConfigError.
    """
    require_files({"checkpoint": checkpoint, "backbone weights": options.backbone_weights})
    where = f"checkpoint {checkpoint}"
    parts = read_parts(checkpoint)
    notes = list(parts.notes)
    config = _config(parts, options, notes)
    backbone, origin = _backbone(config, parts, options, where)
    size_hw = references.preprocess.size_hw
    shapes = backbone.shapes(*size_hw)
    lrb = _metric(parts.lrb, [shape[0] for shape in shapes], where) if config.metric else None
    count = _count(parts, options, references)
    nearest = options.nearest or min(config.nearest, count)
    if nearest > count:
        raise ConfigError(
            "nearest", [f"wanted at most {count}, the number of references, got {nearest}; lower it, or give more"]
        )
    if nearest < config.nearest and options.nearest is None:
        notes.append(f"{nearest} references are all that there are to compare with; {config.nearest} are usual")
    channels = [SHORTENED if lrb else shape[0] for shape in shapes]
    kept = [(each, *shape[1:]) for each, shape in zip(channels, shapes, strict=True)]
    weights = 4 * size_hw[0] * size_hw[1]  # bytes of a reference's foreground
    # Before anything is computed, which takes minutes; and when it is known whether there is a foreground.
    _check_size(count, options.bank, kept, weights if options.foreground == "on" else 0)
    network = _network(config, backbone, lrb, parts, options, references, notes)
    network.config = replace(config, nearest=nearest)
    _check_size(count, options.bank, kept, 0 if network.foreground is None else weights)
    plain = {
        **asdict(network.config),
        "layers": list(config.layers),
        "search_windows": list(config.search_windows),
        "backbone_weights": origin,
        "foreground": network.foreground is not None,
        "references": count,
        "bank": options.bank,
    }
    return LoadedNetwork(network.eval().requires_grad_(False), plain, sha256_of(checkpoint), tuple(notes))


def read_parts(checkpoint: Path) -> Parts:
    """A checkpoint of either kind. Raises: CheckpointError."""
    data = read_tensors(checkpoint, "checkpoint")
    where = f"checkpoint {checkpoint}"
    if "grb" in data and "references" in data:
        return _own(data, where)
    found = state_of(data, where)
    lrb = _below(found.tensors, METRIC_PREFIX)
    if FIRST_WEIGHT not in lrb:
        raise CheckpointError(
            f"{where}: no CPR checkpoint, tensor '{METRIC_PREFIX}{FIRST_WEIGHT}' is missing;"
            f" it holds {first_names(data)}"
        )
    return Parts(None, _below(found.tensors, BACKBONE_PREFIX), lrb, notes=found.notes)


def _own(data: Mapping[str, Any], where: str) -> Parts:
    missing = [key for key in ("config", "backbone", "lrb", "feb") if not isinstance(data.get(key), Mapping)]
    if missing:
        raise CheckpointError(f"{where}: a CPR checkpoint without {missing[0]!r}; train anew")
    try:
        config = build(CprConfig, dict(data["config"]), where)
    except ConfigError as exc:
        raise CheckpointError(f"{exc}; written by another edge-ad") from exc
    grb, feb, kept = (_mapping(data[key], f"{where}: {key}") for key in ("grb", "feb", "references"))
    centres, images = grb.get("centers"), kept.get("images")
    if not isinstance(centres, Tensor) or centres.ndim != 2 or len(centres) != CENTRES:
        raise CheckpointError(f"{where}: 'grb.centers': wanted ({CENTRES}, channels), got {_shape(centres)}")
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise CheckpointError(f"{where}: 'references.images': wanted uint8 (R, H, W, 3), got {_shape(images)}")
    foreground = None
    if feb:
        weight, bias = feb.get("weight"), feb.get("bias")
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor) or weight.shape != centres[0].shape:
            raise CheckpointError(f"{where}: 'feb': wanted a weight for each channel and a bias, got {_shape(weight)}")
        foreground = Foreground(weight, bias)
    names = tuple(str(name) for name in kept.get("names", ()))
    backbone, lrb = (state_of(data[key], f"{where}: {key}").tensors for key in ("backbone", "lrb"))
    return Parts(config, backbone, lrb, centres, foreground, images, names)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{where}: wanted a dictionary, got a {type(value).__name__}")
    return value


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _config(parts: Parts, options: CprOptions, notes: list[str]) -> CprConfig:
    """What the options say, else the checkpoint, else the authors."""
    config = parts.config or CprConfig()
    told = {field.name: getattr(options, field.name) for field in fields(CprConfig)}
    given = {key: value for key, value in told.items() if value is not None and key != "nearest"}
    if parts.config is None and options.backbone is None:
        notes.append(f"the backbone is not in a checkpoint by name; assumed {config.backbone}, else give --backbone")
    if "backbone" in given and given["backbone"] != config.backbone and "layers" not in given:
        given["layers"] = KNOWN_LAYERS[given["backbone"]]
    if given.get("metric") and not parts.lrb:
        raise ConfigError("metric", ["the checkpoint was trained without a metric network; leave --metric out"])
    return replace(config, **{"metric": bool(parts.lrb), **given})


def _backbone(config: CprConfig, parts: Parts, options: CprOptions, where: str) -> tuple[Backbone, str]:
    backbone = Backbone(config.backbone, config.layers)
    if options.backbone_weights is None and parts.backbone:
        backbone.load_weights(parts.backbone, where)
        return backbone.eval(), "the checkpoint's"
    weights = backbone_state(config.backbone, options.backbone_weights)
    backbone.load_weights(weights.tensors, str(options.backbone_weights or weights.origin))
    return backbone.eval(), weights.origin


def _metric(state: Mapping[str, Tensor], channels: list[int], where: str) -> LocalBranch:
    lrb = LocalBranch(channels)
    check_architecture(state, lrb, where, "a metric network on these taps", lambda key: repr(METRIC_PREFIX + key))
    load_tensors(lrb, state)
    return lrb.eval()


def _network(
    config: CprConfig,
    backbone: Backbone,
    lrb: LocalBranch | None,
    parts: Parts,
    options: CprOptions,
    references: References,
    notes: list[str],
) -> Cpr:
    preprocess = references.preprocess
    if _given(parts, references):
        images = list(references)
        found = learned(backbone, images, preprocess, options.foreground)
        notes += found.notes
        numbers = chosen(found.histogram, _count(parts, options, references), config)
        notes.append(f"references: {len(numbers)} of {len(images)} pictures of {references.folder}")
        kept = torch.from_numpy(np.stack([images[number] for number in numbers]))
        names = tuple(references.names[number] for number in numbers)
        return Cpr(config, backbone, lrb, found.centres, found.foreground, kept, names, options.bank)
    return _of_own(config, backbone, lrb, parts, options, preprocess)


def _of_own(
    config: CprConfig,
    backbone: Backbone,
    lrb: LocalBranch | None,
    parts: Parts,
    options: CprOptions,
    preprocess: PreprocessSpec,
) -> Cpr:
    images, centres, names = parts.images, parts.centres, parts.names
    assert images is not None and centres is not None
    if tuple(images.shape[1:3]) != preprocess.size_hw:
        told, wanted = ("x".join(map(str, size)) for size in (images.shape[1:3], preprocess.size_hw))
        raise ConfigError(
            "imgsz",
            [f"the checkpoint's references are {told}, wanted {wanted}; leave it out, or give --references DIR"],
        )
    if options.foreground == "on" and parts.foreground is None:
        raise ConfigError(
            "foreground", ["on: the checkpoint has none, as of a texture; give --references DIR to look for one again"]
        )
    foreground = None if options.foreground == "off" else parts.foreground
    network = Cpr(config, backbone, lrb, centres, foreground, images, names, options.bank)
    if options.reference_count is not None and options.reference_count < len(images):
        from edge_ad.models.cpr.bank import facts_of, joined, taps_of

        facts = joined([facts_of(network, taps[0]) for taps in taps_of(network, preprocess)])
        numbers = chosen(facts.histogram, options.reference_count, config)
        network.references = images[numbers]
        network.names = tuple(names[number] for number in numbers) if names else ()
    return network


def _given(parts: Parts, references: References) -> bool:
    """Whether references are pictures that the user names, and no checkpoint's."""
    return parts.images is None or parts.centres is None or references.folder is not None


def _count(parts: Parts, options: CprOptions, references: References) -> int:
    """How many references there will be. Raises: ConfigError where pictures are needed and none are given."""
    if not _given(parts, references):
        assert parts.images is not None
        return min(len(parts.images), options.reference_count or len(parts.images))
    pictures = references.required("this checkpoint holds no reference pictures")
    return min(len(pictures), options.reference_count or REFERENCE_COUNT)


def _check_size(count: int, bank: BankType, shapes: list[tuple[int, int, int]], weights: int) -> None:
    """Raise ConfigError for a bank that no ONNX file holds, with the numbers that would fit.

    Args:
        count: of the references.
        shapes: (channels, rows, columns) of what patches are compared by, for each tap.
        weights: bytes beside the bank, for each reference.
    """
    each = {kind: bank_bytes(shapes, kind) + weights for kind in get_args(BankType)}
    if count * each[bank] <= MOST_BANK_BYTES:
        return
    fits = ", ".join(f"{MOST_BANK_BYTES // size} with --bank {kind}" for kind, size in each.items())
    raise ConfigError(
        "reference_count",
        [
            f"{count} references take {count * each[bank] / 1e9:.1f} GB as {bank}, a bundle's graph"
            f" holds {MOST_BANK_BYTES / 1e9:.0f} GB; it has room for {fits}"
        ],
    )
