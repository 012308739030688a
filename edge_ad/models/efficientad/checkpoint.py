"""Checkpoints of EfficientAD as networks: sizes from tensors, statistics from the file or from good pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn

from edge_ad.errors import CheckpointError
from edge_ad.models.efficientad.config import LAYERS, EfficientAdConfig, PdnSize
from edge_ad.models.efficientad.network import EfficientAd, pdn
from edge_ad.models.efficientad.options import EfficientAdOptions
from edge_ad.models.efficientad.sources import PARTS, Found, Part, Weights, pdn_tensors, read_found, read_plain
from edge_ad.models.efficientad.statistics import check_quantiles, measure_quantiles, measure_teacher
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.references import References
from edge_ad.models.state import check_architecture, load_tensors, without_memory
from edge_ad.models.weights import sha256_of


def load_efficientad(
    checkpoint: Path, options: EfficientAdOptions, references: References
) -> LoadedNetwork[EfficientAd]:
    """Read a network in eval mode; its configuration tells sizes, quantiles and when the map is padded.

    Raises: CheckpointError naming the tensor, what was found and what was expected; ConfigError where good pictures
    are wanted and not given.
    """
    found = read_found(checkpoint, options)
    config = _config(found)
    wanted = without_memory(lambda: EfficientAd(config))
    for part in PARTS:
        _check(found.parts[part], wanted.get_submodule(part), part, config)
    network = EfficientAd(config, options.map_padding or found.map_padding)
    for part in PARTS:
        load_tensors(network.get_submodule(part), found.parts[part].tensors)
    network.eval().requires_grad_(False)
    notes = [*found.notes, *_measure(network, found, references)]
    size_hw = references.preprocess.size_hw
    if found.size_hw not in (None, size_hw):
        assert found.size_hw is not None
        notes.append(
            f"trained at {found.size_hw[0]}x{found.size_hw[1]} pixels and exported for {size_hw[0]}x{size_hw[1]}:"
            " the autoencoder has seen nothing of that size; compare it with edge-ad eval"
        )
    plain = {
        **asdict(config),
        "map_padding": network.map_padding,
        "quantiles": [float(value) for value in network.quantiles],
    }
    return LoadedNetwork(network, plain, sha256_of(*found.files), tuple(notes))


@dataclass(frozen=True)
class Teacher:
    """A network to learn from: tensors under the names of ours, and what they tell of it."""

    tensors: dict[str, Tensor]
    size: PdnSize
    width: int
    channels: int


def load_teacher(path: Path) -> Teacher:
    """A teacher from a file.

    Args:
        path: a state dict of nelson1425's or anomalib's, or any checkpoint that holds one.

    Raises: CheckpointError.
    """
    where = f"teacher {path}"
    data = read_plain(path, "teacher", alone=True)
    if isinstance(data.get("teacher"), Mapping):
        weights = pdn_tensors(data["teacher"], where)
    else:
        state = data.get("state_dict", data)
        start = next(
            (str(key)[: -len("conv1.weight")] for key in state if str(key).endswith("teacher.conv1.weight")), ""
        )
        weights = pdn_tensors({str(k)[len(start) :]: v for k, v in state.items() if str(k).startswith(start)}, where)
    size, width, channels = _pdn_sizes(weights, "teacher")
    config = EfficientAdConfig(size, width, channels)
    _check(weights, without_memory(lambda: pdn(config, channels)), "teacher", config)
    return Teacher(dict(weights.tensors), size, width, channels)


def _config(found: Found) -> EfficientAdConfig:
    size, width, channels = _pdn_sizes(found.parts["teacher"], "teacher")
    first = _shape(found.parts["autoencoder"], "0.weight", "autoencoder", (None, 3, 4, 4))
    return EfficientAdConfig(size, width, channels, first[0])


def _pdn_sizes(weights: Weights, part: Part) -> tuple[PdnSize, int, int]:
    """Size, width and channels of a teacher."""
    size = _size(weights)
    first = _shape(weights, f"{LAYERS[size][0].name}.weight", part, (None, 3, 4, 4))
    last = _shape(weights, f"{LAYERS[size][-1].name}.weight", part, (None, None, None, None))
    return size, first[0], last[0]


def _size(weights: Weights) -> PdnSize:
    return "medium" if f"{LAYERS['medium'][-1].name}.weight" in weights.tensors else "small"


def _shape(weights: Weights, name: str, part: Part, wanted: tuple[int | None, ...]) -> tuple[int, ...]:
    tensor = weights.tensors.get(name)
    shape = None if tensor is None else tuple(tensor.shape)
    fits = shape is not None and len(shape) == len(wanted) and 0 not in shape
    if shape is None or not fits or any(w not in (None, got) for w, got in zip(wanted, shape, strict=True)):
        what = "is missing" if shape is None else f"has shape {shape}, wanted {str(wanted).replace('None', 'N')}"
        raise CheckpointError(f"{weights.where}: no EfficientAD {part}, tensor {weights.told(name)!r} {what}")
    return shape


def _check(weights: Weights, wanted: nn.Module, part: Part, config: EfficientAdConfig) -> None:
    """Raise CheckpointError unless the tensors are those of a network of these sizes."""
    size = None if part == "autoencoder" else _size(weights)
    if size not in (None, config.size):
        names = wanted.state_dict()
        key = next((name for name in names if name not in weights.tensors), None)
        what = "is missing" if key is not None else "is not known"
        key = key or next(name for name in weights.tensors if name not in names)
        raise CheckpointError(
            f"{weights.where}: tensor {weights.told(key)!r} of the {part} {what}; this {part} is {size} and the teacher"
            f" {config.size}, wanted both of one size"
        )
    owner = f"a {config.size} {part} of width {config.width}"
    if size is None:
        owner = f"an autoencoder for {config.channels} channels"
    check_architecture(
        weights.tensors, wanted, weights.where, owner, lambda key: f"{weights.told(key)!r} of the {part}"
    )


def _measure(network: EfficientAd, found: Found, references: References) -> list[str]:
    """Set the statistics, from the file or from good pictures. Returns: notes."""
    channels, where, measured = network.config.channels, str(found.files[0]), []
    if found.mean is not None and found.std is not None:
        for name, value in (("mean", found.mean), ("std", found.std)):
            if value.shape != (channels,):
                raise CheckpointError(f"{where}: {name} has shape {tuple(value.shape)}, wanted ({channels},)")
        if not bool((found.std > 0).all()):
            raise CheckpointError(f"{where}: std: wanted numbers above 0")
        network.mean.copy_(found.mean)
        network.std.copy_(found.std)
    else:
        measured.append("the teacher's mean and deviation")
    if found.quantiles is not None and not measured:
        if found.quantiles.shape != (4,):
            raise CheckpointError(f"{where}: quantiles has shape {tuple(found.quantiles.shape)}, wanted (4,)")
        check_quantiles(found.quantiles.tolist(), where)
        network.quantiles.copy_(found.quantiles)
        return []
    measured.append("the quantiles of both maps")
    pictures = references.required(f"the checkpoint does not hold {', nor '.join(measured)}")
    if len(measured) > 1:
        measure_teacher(network, pictures)
    measure_quantiles(network, pictures)
    return [
        f"{' and '.join(measured)} are those of the {len(pictures)} reference pictures; on pictures that it was trained"
        " on they come out low, so scores come out high: choose the threshold anew"
    ]
