"""Files that hold EfficientAD's networks, and how each names what is in them.

nelson1425 saves three whole modules, which are never opened here: their state dicts are read, from a folder, from three
files or from one. anomalib's Lightning checkpoint holds all that it takes under names of its own. Ours is
`{"teacher": state, "student": state, "autoencoder": state, "mean": …, "std": …, "quantiles": …}`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from edge_ad.errors import CheckpointError
from edge_ad.models.efficientad.config import LAYERS, MapPadding, PdnSize
from edge_ad.models.efficientad.network import DECODER, ENCODER, LAST
from edge_ad.models.efficientad.options import EfficientAdOptions
from edge_ad.models.state import state_of, unwrapped
from edge_ad.models.weights import read_tensors

Part = Literal["teacher", "student", "autoencoder"]
PARTS: tuple[Part, ...] = ("teacher", "student", "autoencoder")
OF_AUTOENCODER = f"{LAST[1]}.weight"  # a tensor by which it is told from the other two
ANOMALIB_FIRST = "teacher.conv1.weight"
ANOMALIB_PARTS: dict[Part, str] = {"teacher": "teacher.", "student": "student.", "autoencoder": "ae."}
ANOMALIB_AUTOENCODER = {
    **{f"encoder.enconv{number}": name for number, name in enumerate(ENCODER, start=1)},
    **{f"decoder.deconv{number}": name for number, name in enumerate((*DECODER, *LAST), start=1)},
}
ANOMALIB_QUANTILES = ("qa_st", "qb_st", "qa_ae", "qb_ae")
WHOLE_MODULE = b"torch.nn.modules"  # of a pickle that makes one
MOST_PICKLE = 1 << 24
FINAL = "part + '_final.pth'"
SUFFIXES = (".pth", ".pt")


@dataclass(frozen=True)
class Weights:
    """One of the three networks.

    Attributes:
        tensors: under the names of our networks, where those of the source are known.
        where: the file and the place in it, for messages.
        names: what the source calls them, where that is something else.
    """

    tensors: Mapping[str, Tensor]
    where: str
    names: Mapping[str, str] = field(default_factory=dict)

    def told(self, name: str) -> str:
        """What the source calls a tensor."""
        return self.names.get(name, name)


@dataclass(frozen=True)
class Found:
    """What files hold.

    Attributes:
        files: where it came from.
        mean, std: (channels,) of the teacher's answers; None where they are not there or were never measured.
        quantiles: (4,) of the maps, likewise.
        map_padding: of the code that trained it; None where nobody says.
        size_hw: that it was trained at; None where nobody says.
        notes: what had to be assumed or undone, one line each.
    """

    parts: Mapping[Part, Weights]
    files: tuple[Path, ...]
    mean: Tensor | None = None
    std: Tensor | None = None
    quantiles: Tensor | None = None
    map_padding: MapPadding = "after"
    size_hw: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


def read_found(checkpoint: Path, options: EfficientAdOptions) -> Found:
    """What a checkpoint of any kind holds. Raises: CheckpointError."""
    beside = {"teacher": options.teacher, "autoencoder": options.autoencoder}
    if checkpoint.is_dir():
        found = _separate({part: _in_folder(checkpoint, part, beside.get(part)) for part in PARTS})
    else:
        found = _of_file(checkpoint, beside)
    unread = [f"{name} {path}" for name, path in beside.items() if path is not None and path not in found.files]
    if unread:
        raise CheckpointError(f"checkpoint {checkpoint}: holds all three networks; leave {' and '.join(unread)} out")
    return found


def read_plain(path: Path, what: str, *, alone: bool = False) -> dict[str, Any]:
    """`read_tensors`, which says how a file that holds more can be made one to read.

    Args:
        alone: whether this one file is wanted, and not two others beside it.

    Raises: CheckpointError.
    """
    try:
        return read_tensors(path, what)
    except CheckpointError as exc:
        if "more than plain tensors" not in str(exc):
            raise
        raise CheckpointError(f"{what} {path}: {_conversion(path, alone)}") from exc


def pdn_tensors(data: object, where: str) -> Weights:
    """A teacher or a student under the names of ours, from those of nelson1425 or anomalib. Raises: CheckpointError."""
    state = state_of(data, where)
    if "conv1.weight" not in state.tensors:
        return Weights(state.tensors, where)
    return _renamed(state.tensors, where, _pdn_names(state.tensors), "")


def _of_file(checkpoint: Path, beside: Mapping[str, Path | None]) -> Found:
    where = f"checkpoint {checkpoint}"
    data = read_plain(checkpoint, "checkpoint")
    inner, notes = unwrapped(data, where, lambda one: any(part in one for part in PARTS))
    assert isinstance(inner, Mapping)
    if any(isinstance(inner.get(part), Mapping) for part in PARTS):
        return _own(inner, checkpoint, notes)
    first = next((str(key) for key in inner if str(key).endswith(ANOMALIB_FIRST)), None)
    if first is not None:
        return _anomalib(inner, first.removesuffix(ANOMALIB_FIRST), checkpoint, data.get("hyper_parameters"))
    state = state_of(data, where).tensors
    if OF_AUTOENCODER in state:
        raise CheckpointError(
            f"{where}: holds the autoencoder alone; give the folder of all three, or the student's file"
        )
    if "0.weight" not in state:
        raise CheckpointError(
            f"{where}: no EfficientAD checkpoint, it holds {', '.join(map(repr, list(state)[:4])) or 'nothing'};"
            f" wanted {', '.join(PARTS)}, or anomalib's {ANOMALIB_FIRST!r}"
        )
    return _separate({part: _beside(checkpoint, part, beside) for part in PARTS})


def _own(data: Mapping[Any, Any], checkpoint: Path, notes: list[str]) -> Found:
    where = f"checkpoint {checkpoint}"
    missing = [part for part in PARTS if not isinstance(data.get(part), Mapping)]
    if missing:
        raise CheckpointError(f"{where}: the {missing[0]} is missing; wanted {', '.join(PARTS)} in one dictionary")
    parts = {part: pdn_tensors(data[part], f"{where}: {part}") for part in PARTS}
    measured = {key: data.get(key) for key in ("mean", "std", "quantiles")}
    found = [key for key, value in measured.items() if value is not None]
    if 0 < len(found) < len(measured):
        raise CheckpointError(f"{where}: holds {' and '.join(found)}, wanted all of {', '.join(measured)} or none")
    given = state_of({key: value for key, value in measured.items() if value is not None}, where).tensors
    size: Any = data.get("imgsz")
    known = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)
    return Found(
        parts,
        (checkpoint,),
        **{key: given.get(key) for key in measured},
        map_padding=data["map_padding"] if data.get("map_padding") in ("after", "before", "none") else "after",
        size_hw=(size[0], size[1]) if known else None,
        notes=tuple(notes),
    )


def _anomalib(state: Mapping[Any, Any], prefix: str, checkpoint: Path, told: object) -> Found:
    where = f"checkpoint {checkpoint}"
    inside = {str(key)[len(prefix) :]: value for key, value in state.items() if str(key).startswith(prefix)}
    notes = ["a checkpoint of anomalib: its scores are taken before it normalises them, so they are not those it shows"]
    parts = {}
    for part, start in ANOMALIB_PARTS.items():
        tensors = state_of(
            {key[len(start) :]: one for key, one in inside.items() if key.startswith(start)}, where
        ).tensors
        names = ANOMALIB_AUTOENCODER if part == "autoencoder" else _pdn_names(tensors)
        parts[part] = _renamed(tensors, where, names, prefix + start)
    wanted = ["mean_std.mean", "mean_std.std", *(f"quantiles.{name}" for name in ANOMALIB_QUANTILES)]
    lacking = [name for name in wanted if not isinstance(inside.get(name), Tensor)]
    if lacking:
        raise CheckpointError(f"{where}: tensor {prefix + lacking[0]!r} is missing; save the state dict whole")
    measured = state_of({name: inside[name] for name in wanted}, where).tensors
    mean, std = (measured[name].flatten().float() for name in wanted[:2])
    quantiles = torch.stack([measured[name].reshape(()).float() for name in wanted[2:]])
    fitted, scaled = bool(mean.any() or std.any()), bool(quantiles.any())
    if not fitted or not scaled:
        what = "mean and deviation" if not fitted else "quantiles"
        notes.append(f"{where}: its {what} are all 0, so its training was never brought to an end")
    padding: MapPadding = "before"
    if isinstance(told, Mapping):
        if told.get("padding"):
            raise CheckpointError(
                f"{where}: was trained with padding=True inside of its networks, which is not supported"
            )
        padding = "none" if told.get("pad_maps") is False else "before"
    else:
        notes.append("the checkpoint does not say padding and pad_maps; taken for anomalib's defaults, False and True")
    return Found(
        parts,
        (checkpoint,),
        mean if fitted else None,
        std if fitted else None,
        quantiles if scaled else None,
        padding,
        notes=tuple(notes),
    )


def _separate(files: Mapping[Part, Path]) -> Found:
    """nelson1425's three, as state dicts; that code has one size of pictures."""
    parts: dict[Part, Weights] = {}
    notes: list[str] = []
    for part, path in files.items():
        where = f"{part} {path}"
        state = state_of(read_plain(path, part), where)
        parts[part] = pdn_tensors(state.tensors, where)
        notes += state.notes
    return Found(parts, tuple(files.values()), size_hw=(256, 256), notes=tuple(notes))


def _in_folder(folder: Path, part: Part, given: Path | None) -> Path:
    if given is not None:
        return given
    found = sorted(path for path in folder.iterdir() if path.name.startswith(part) and path.suffix in SUFFIXES)
    final = [path for path in found if path.stem == f"{part}_final"] or found
    if len(final) == 1:
        return final[0]
    if final:
        raise CheckpointError(f"checkpoint {folder}: {', '.join(path.name for path in final)}: which is the {part}?")
    option = "" if part == "student" else f", or give --{part} FILE"
    raise CheckpointError(f"checkpoint {folder}: the {part} is missing; wanted {part}_final.pth there{option}")


def _beside(student: Path, part: Part, given: Mapping[str, Path | None]) -> Path:
    if part == "student":
        return student
    path = given[part] or student.with_name(student.name.replace("student", part))
    if path == student:
        raise CheckpointError(
            f"checkpoint {student}: holds one network; give the folder of all three, or --{part} FILE"
        )
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {student}: the {part} {path} is missing; put it there, or give --{part} FILE"
        )
    return path


def _anomalib_layers(size: PdnSize) -> dict[str, str]:
    return {f"conv{number}": layer.name for number, layer in enumerate(LAYERS[size], start=1)}


def _pdn_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """anomalib's names of layers → ours; how many there are tells the size."""
    size: PdnSize = "medium" if "conv6.weight" in tensors or "conv5.weight" in tensors else "small"
    return _anomalib_layers(size)


def _renamed(tensors: Mapping[str, Tensor], where: str, layers: Mapping[str, str], prefix: str) -> Weights:
    names, found = {}, {}
    known = {} if layers is ANOMALIB_AUTOENCODER else _anomalib_layers("medium")
    for key, tensor in tensors.items():
        layer, _, kind = key.rpartition(".")
        name = f"{layers[layer]}.{kind}" if layer in layers else key
        found[name], names[name] = tensor, prefix + key
    # Those that lack are told by the source's names too, also where the other networks are of the larger size.
    for layer, ours in {**known, **layers}.items():
        for kind in ("weight", "bias"):
            names.setdefault(f"{ours}.{kind}", f"{prefix}{layer}.{kind}")
    return Weights(found, where, names)


def _conversion(path: Path, alone: bool) -> str:
    """Why a file is not opened, and what makes one of it that is."""
    trust = "which is never opened here; where you trust it, and with the code that saved it at hand, run in its folder"
    load = "torch.load({}, map_location='cpu', weights_only=False)"
    if WHOLE_MODULE in _pickle(path):
        if alone:
            one = f"{load.format(repr(path.name))}.state_dict()"
            return f"a whole module, pickled, {trust}: import torch; torch.save({one}, 'teacher.pth')"
        made = f"{{part: {load.format(FINAL)}.state_dict() for part in {PARTS}}}"
        return f"a whole module, pickled, {trust}: import torch; torch.save({made}, 'efficientad.pth')"
    made = f"{{'state_dict': {load.format(repr(path.name))}['state_dict']}}"
    return f"holds more than tensors, {trust}: import torch; torch.save({made}, 'efficientad.ckpt')"


def _pickle(path: Path) -> bytes:
    """The pickle in a file of torch, as bytes: it is looked at, not executed."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return file.read(MOST_PICKLE)
        with zipfile.ZipFile(path) as archive:
            entry = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if entry is None:
                return b""
            with archive.open(entry) as file:
                return file.read(MOST_PICKLE)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError):
        return b""
