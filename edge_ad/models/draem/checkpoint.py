"""Checkpoints of DRAEM: the authors' pair of files, our own single file, anomalib's.

The authors write two bare state dicts, `<stem>.pckl` (reconstruction) and `<stem>_seg.pckl` (segmentation). Ours is
`{"reconstruction": state, "segmentation": state}`. anomalib holds the same tensors under two prefixes, but its
segmentation network is fed the picture first and in R, G, B: its first layer is turned round on reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_ad.errors import CheckpointError
from edge_ad.models.draem.config import DraemConfig
from edge_ad.models.draem.network import Draem
from edge_ad.models.draem.options import ColorOrder, DraemOptions
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.state import check_architecture, load_tensors, state_of, unwrapped, without_memory
from edge_ad.models.weights import read_tensors, sha256_of

RECONSTRUCTION, SEGMENTATION = "reconstruction", "segmentation"  # the parts, and the keys of our own file
FIRST = {RECONSTRUCTION: "encoder.block1.0.weight", SEGMENTATION: "encoder_segment.block1.0.weight"}
"""Weight by which each part is known, and whose first dimension is its width."""
ANOMALIB = {
    RECONSTRUCTION: "model.reconstructive_subnetwork.",
    SEGMENTATION: "model.discriminative_subnetwork.",
}
ANOMALIB_STATE = "state_dict"
SEGMENTATION_SUFFIX = "_seg"


@dataclass(frozen=True)
class Parts:
    """State dicts of the two networks as the authors' code would hold them.

    Attributes:
        color_order: that they were trained with; None where the file does not tell.
        notes: what had to be undone, one line each.
        files: where they came from.
    """

    reconstruction: Mapping[str, Tensor]
    segmentation: Mapping[str, Tensor]
    color_order: ColorOrder | None
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def load_draem(checkpoint: Path, options: DraemOptions) -> LoadedNetwork[Draem]:
    """Read a network in eval mode; its configuration tells the order of colours.

    Raises: CheckpointError naming the tensor, what was found and what was expected.
    """
    parts = read_parts(checkpoint, options.segmentation_checkpoint)
    notes = list(parts.notes)
    order = options.color_order or parts.color_order
    if order is None:
        notes.append("the order of colours is not in a checkpoint; assumed bgr (the authors'), else give --color-order")
        order = "bgr"
    config = DraemConfig(
        _width(parts.reconstruction, RECONSTRUCTION, checkpoint),
        _width(parts.segmentation, SEGMENTATION, parts.files[-1]),
    )
    _check_parts(parts, without_memory(lambda: Draem(config)))
    network = Draem(config)
    load_tensors(network.reconstruction, parts.reconstruction)
    load_tensors(network.segmentation, parts.segmentation)
    network.eval().requires_grad_(False)
    plain = {**asdict(config), "color_order": order}
    return LoadedNetwork(network, plain, sha256_of(*parts.files), tuple(notes), order)


def read_parts(checkpoint: Path, segmentation_checkpoint: Path | None = None) -> Parts:
    """The two state dicts of a checkpoint of any of the three kinds. Raises: CheckpointError."""
    parts = _parts(checkpoint, segmentation_checkpoint)
    if segmentation_checkpoint is not None and segmentation_checkpoint not in parts.files:
        raise CheckpointError(
            f"checkpoint {checkpoint}: holds both halves; leave segmentation_checkpoint {segmentation_checkpoint} out"
        )
    return parts


def _parts(checkpoint: Path, segmentation_checkpoint: Path | None) -> Parts:
    data = read_tensors(checkpoint, "checkpoint")
    where = f"checkpoint {checkpoint}"
    if {RECONSTRUCTION, SEGMENTATION} <= data.keys():
        order = data.get("color_order")
        return Parts(
            state_of(data[RECONSTRUCTION], f"{where}: {RECONSTRUCTION}").tensors,
            state_of(data[SEGMENTATION], f"{where}: {SEGMENTATION}").tensors,
            order if order in ("rgb", "bgr") else None,
            (),
            (checkpoint,),
        )
    nested = data.get(ANOMALIB_STATE)
    if isinstance(nested, Mapping) and any(str(key).startswith(ANOMALIB[RECONSTRUCTION]) for key in nested):
        return _from_anomalib(nested, checkpoint)
    inner, _ = unwrapped(data, where)
    if isinstance(inner, Mapping) and not any(str(key).endswith(first) for key in inner for first in FIRST.values()):
        raise _foreign(inner, where)
    found = state_of(data, where)
    if FIRST[RECONSTRUCTION] not in found.tensors:
        if FIRST[SEGMENTATION] in found.tensors:
            first = checkpoint.with_name(f"{checkpoint.stem.removesuffix(SEGMENTATION_SUFFIX)}{checkpoint.suffix}")
            raise CheckpointError(
                f"{where}: holds the segmentation alone; give the reconstruction, such as {first.name},"
                " and this one as --segmentation-checkpoint where it does not lie beside it"
            )
        raise _foreign(found.tensors, where)
    if FIRST[SEGMENTATION] in found.tensors:
        inside = {key: value for key, value in found.tensors.items() if key.split(".")[0].endswith("_segment")}
        outside = {key: value for key, value in found.tensors.items() if key not in inside}
        return Parts(outside, inside, None, found.notes, (checkpoint,))
    other = segmentation_checkpoint or checkpoint.with_name(
        f"{checkpoint.stem}{SEGMENTATION_SUFFIX}{checkpoint.suffix}"
    )
    if not other.is_file():
        raise CheckpointError(
            f"{where}: holds the reconstruction alone, and its other half {other} is missing;"
            " put it there, or give --segmentation-checkpoint FILE"
        )
    second = state_of(read_tensors(other, "segmentation checkpoint"), f"segmentation checkpoint {other}")
    return Parts(found.tensors, second.tensors, None, (*found.notes, *second.notes), (checkpoint, other))


def _foreign(data: Mapping[Any, Any], where: str) -> CheckpointError:
    for half, other in ((RECONSTRUCTION, SEGMENTATION), (SEGMENTATION, RECONSTRUCTION)):
        if half in data:
            return CheckpointError(f"{where}: holds {half!r} without {other!r}; give the file that the training wrote")
    keys = ", ".join(map(repr, list(data)[:4])) or "nothing"
    return CheckpointError(
        f"{where}: no DRAEM checkpoint, tensor {FIRST[RECONSTRUCTION]!r} is missing; it holds {keys}"
    )


def _from_anomalib(state: Mapping[Any, Any], checkpoint: Path) -> Parts:
    parts = {}
    for part, prefix in ANOMALIB.items():
        inside = {key.removeprefix(prefix): value for key, value in state.items() if str(key).startswith(prefix)}
        parts[part] = dict(state_of(inside, f"checkpoint {checkpoint}: {prefix.rstrip('.')}").tensors)
    first = parts[SEGMENTATION].get(FIRST[SEGMENTATION])
    if first is not None and first.ndim == 4 and first.shape[1] == 6:
        parts[SEGMENTATION][FIRST[SEGMENTATION]] = torch.cat([first[:, 3:], first[:, :3]], dim=1)
    note = "a checkpoint of anomalib: trained on R, G, B with the picture before its reconstruction; taken so"
    return Parts(parts[RECONSTRUCTION], parts[SEGMENTATION], "rgb", (note,), (checkpoint,))


def _width(state: Mapping[str, Tensor], part: str, checkpoint: Path) -> int:
    first = state.get(FIRST[part])
    channels = 3 if part == RECONSTRUCTION else 6
    if first is None or tuple(first.shape[1:]) != (channels, 3, 3) or not len(first):
        found = "is missing" if first is None else f"has shape {tuple(first.shape)}, wanted (width, {channels}, 3, 3)"
        raise CheckpointError(f"checkpoint {checkpoint}: no DRAEM checkpoint, tensor {FIRST[part]!r} {found}")
    return int(first.shape[0])


def _check_parts(parts: Parts, wanted: Draem) -> None:
    """Raise CheckpointError unless the tensors are those of networks whose widths the first of them claim."""
    where = f"checkpoint {' and '.join(path.name for path in parts.files)}"
    halves = (
        (RECONSTRUCTION, parts.reconstruction, wanted.reconstruction),
        (SEGMENTATION, parts.segmentation, wanted.segmentation),
    )
    for part, state, module in halves:
        named = partial(_of_part, part)
        check_architecture(state, module, where, f"a {part} of this width", named)


def _of_part(part: str, key: str) -> str:
    return f"{key!r} of the {part}"
