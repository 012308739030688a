"""What a file of a bank says: our own, anomalib's, the authors'."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.errors import CheckpointError
from edge_ad.models.patchcore.faiss_index import is_faiss, params_path, read_bank, read_params
from edge_ad.models.patchcore.position import AXES
from edge_ad.models.patchcore.specs import ANOMALIB_INPUT, ANOMALIB_OUTPUT, INPUT
from edge_ad.models.state import BATCH_COUNTER, first_names, state_of, unwrapped
from edge_ad.models.weights import read_tensors

BANK_KEY, CONFIG_KEY, WEIGHTS_KEY, PLACES_KEY = "memory_bank", "config", "backbone_sha256", "places"
"""Of our own file: the bank (M, D) float32, plain values by name, and among them the hash of the trunk's weights;
where entries lie (M, 2), of a bank that knows."""
ANOMALIB_BANK = "model.memory_bank"
ANOMALIB_TRUNK = "model.feature_extractor.feature_extractor."
ANOMALIB_CONFIG = {"backbone": "backbone", "layers": "layers", "num_neighbors": "neighbours"}
AUTHORS_CONFIG = {
    "backbone.name": "backbone",
    "layers_to_extract_from": "layers",
    "pretrain_embed_dimension": "pretrain_embed_dim",
    "target_embed_dimension": "embed_dim",
    "anomaly_scorer_num_nn": "nearest",
}
AUTHORS_NETWORKS = {"wideresnet50": "wide_resnet50_2", "wideresnet101": "wide_resnet101_2"}
"""Networks that the authors call otherwise than torchvision does."""
PATCH = {"patchsize": 3, "patchstride": 1}
"""The one neighbourhood that is built here, the authors' default."""
SHORTER_SIDE = 8 / 7
"""Of the authors' crop, the shorter side before it: 256 for 224, 366 for 320."""
REMEDY = (
    'where you trust it, write its tensors alone: torch.save({"state_dict": torch.load(FILE, weights_only=False)'
    '["state_dict"]}, NEW); a .pt export of anomalib is a pickled module, take the .ckpt of its training'
)


@dataclass(frozen=True)
class Source:
    """A bank and what is known beside it.

    Attributes:
        bank: (M, D) float32.
        said: values of PatchCoreConfig that the file holds.
        usual: values that all files of its kind have.
        weights: of the backbone; None where they are elsewhere.
        weights_sha256: of the weights that the bank was made with, see `weights_hash`; None where nobody wrote it down.
        preprocess, postprocess: see LoadedNetwork.
        notes: one line each.
        places: (M, 2) float32, where entries lie; None of a bank that does not know.
    """

    bank: Tensor
    said: Mapping[str, Any]
    usual: Mapping[str, Any]
    weights: Mapping[str, Tensor] | None = None
    weights_sha256: str | None = None
    preprocess: PreprocessSpec | None = None
    postprocess: PostprocessSpec | None = None
    notes: tuple[str, ...] = ()
    places: Tensor | None = None


def read_source(checkpoint: Path) -> Source:
    """Read a file of any of the three kinds. Raises: CheckpointError."""
    if is_faiss(checkpoint):
        return _authors(checkpoint)
    where = f"checkpoint {checkpoint}"
    data = read_tensors(checkpoint, "checkpoint", REMEDY)
    inner, notes = unwrapped(data, where, lambda found: BANK_KEY in found or ANOMALIB_BANK in found)
    assert isinstance(inner, Mapping)
    if ANOMALIB_BANK in inner:
        return _anomalib(data, inner, where)
    if BANK_KEY not in inner:
        raise CheckpointError(
            f"{where}: no PatchCore checkpoint, it holds {first_names(data)}; wanted {BANK_KEY!r},"
            f" anomalib's {ANOMALIB_BANK!r}, or the authors' .faiss file"
        )
    return _own(inner, where, tuple(notes))


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights, whatever file they come from."""
    found = hashlib.sha256()
    for name in sorted(state):
        if name.rpartition(".")[2] != BATCH_COUNTER:
            found.update(f"{name} {tuple(state[name].shape)} ".encode())
            found.update(state[name].detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()


def _own(data: Mapping[Any, Any], where: str, notes: tuple[str, ...]) -> Source:
    said = data.get(CONFIG_KEY, {})
    if not isinstance(said, Mapping):
        raise CheckpointError(f"{where}: {CONFIG_KEY!r} is a {type(said).__name__}, wanted values by name")
    said = dict(said)
    made_with = said.pop(WEIGHTS_KEY, None)
    if made_with is not None and not isinstance(made_with, str):
        raise CheckpointError(f"{where}: {WEIGHTS_KEY!r} is a {type(made_with).__name__}, wanted text")
    bank = _bank(data[BANK_KEY], f"{where}: {BANK_KEY!r}")
    places = _bank(data[PLACES_KEY], f"{where}: {PLACES_KEY!r}") if PLACES_KEY in data else None
    if places is not None and places.shape != (len(bank), AXES):
        raise CheckpointError(
            f"{where}: {PLACES_KEY!r} has shape {tuple(places.shape)}, wanted {(len(bank), AXES)}, a place per entry"
        )
    return Source(bank, said, {}, None, made_with, notes=notes, places=places)


def _anomalib(data: Mapping[Any, Any], state: Mapping[Any, Any], where: str) -> Source:
    bank = _bank(state[ANOMALIB_BANK], f"{where}: {ANOMALIB_BANK!r}")
    trunk = {str(k).removeprefix(ANOMALIB_TRUNK): v for k, v in state.items() if str(k).startswith(ANOMALIB_TRUNK)}
    told = data.get("hyper_parameters")
    told = told if isinstance(told, Mapping) else {}
    said = {ours: told[theirs] for theirs, ours in ANOMALIB_CONFIG.items() if theirs in told}
    said = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
    weights = state_of(trunk, f"{where}: {ANOMALIB_TRUNK.rstrip('.')}") if trunk else None
    note = (
        "a checkpoint of anomalib: its centre crop, where it had one, is not in it; taken for pictures stretched to"
        f" {ANOMALIB_INPUT.height}x{ANOMALIB_INPUT.width}, else give --imgsz and --resize-mode"
    )
    return Source(
        bank,
        said,
        {"embedding": "averaged", "distance": "root", "nearest": 1},
        None if weights is None else weights.tensors,
        preprocess=ANOMALIB_INPUT,
        postprocess=ANOMALIB_OUTPUT,
        notes=(note, *(() if weights is None else weights.notes)),
    )


def _authors(index: Path) -> Source:
    bank, params = read_bank(index), params_path(index)
    usual = {"embedding": "pooled", "distance": "squared"}
    if not params.is_file():
        note = f"{params.name} does not lie beside the index; the backbone and its sizes are those of the options"
        return Source(bank, {}, usual, notes=(note,))
    found = read_params(params)
    for name, wanted in PATCH.items():
        if found.get(name, wanted) != wanted:
            raise CheckpointError(f"parameters {params}: {name} {found[name]!r}; patches of {wanted} alone are read")
    said = {ours: found[theirs] for theirs, ours in AUTHORS_CONFIG.items() if theirs in found}
    if isinstance(said.get("backbone"), str):
        said["backbone"] = AUTHORS_NETWORKS.get(said["backbone"], said["backbone"])
    return Source(bank, said, usual, preprocess=_authors_input(found.get("input_shape")))


def _authors_input(shape: object) -> PreprocessSpec | None:
    """The authors' crop of a known size; the shorter side before it is not kept, and is taken as they have it."""
    sizes = list(shape) if isinstance(shape, (list, tuple)) else []
    if len(sizes) != 3 or not all(type(size) is int and 0 < size < 1 << 14 for size in sizes):
        return None
    height, width = sizes[1:]
    return replace(INPUT, height=height, width=width, resize=round(SHORTER_SIDE * min(height, width)))


def _bank(value: object, where: str) -> Tensor:
    if not isinstance(value, Tensor) or value.layout is not torch.strided or not value.is_floating_point():
        raise CheckpointError(f"{where} is a {type(value).__name__}, wanted a dense tensor of numbers")
    if value.ndim != 2 or not value.numel():
        raise CheckpointError(f"{where} has shape {tuple(value.shape)}, wanted (entries, numbers); was it ever fitted?")
    if not bool(torch.isfinite(value).all()):
        raise CheckpointError(f"{where} holds NaN or infinity")
    return value.float().contiguous()
