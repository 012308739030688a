"""Checkpoints of DiffusionAD: one file with both networks and the settings that they were trained with.

The authors write `n_epoch`, `unet_model_state_dict`, `seg_model_state_dict` and `args`; so do we. Widths, levels and
places of the attention follow from names and shapes, the time steps and the number of heads from the settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from edge_ad.errors import CheckpointError
from edge_ad.models.diffusionad.config import BLIND, GROUPS, DiffusionAdConfig
from edge_ad.models.diffusionad.network import DiffusionAd
from edge_ad.models.diffusionad.options import GUIDANCE, NOISIER_STEP, NORMAL_STEP, DiffusionAdOptions
from edge_ad.models.diffusionad.schedule import LEAST_STEPS, STEPS
from edge_ad.models.diffusionad.specs import INPUT
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.state import check_architecture, load_tensors, state_of, without_memory
from edge_ad.models.weights import read_tensors, sha256_of

UNET, SEGMENTATION, SETTINGS, EPOCH = "unet_model_state_dict", "seg_model_state_dict", "args", "n_epoch"
FIRST, FIRST_OF_SEGMENTATION = "down.0.0.weight", "encoder_segment.block1.0.weight"
STAGES_OF_LEVEL = 3  # on the way down, counting the first convolution or the halving between levels
MOST_LEVELS = 6  # five times halved, as the segmentation does
MOST_STEPS = 100_000


@dataclass(frozen=True)
class Settings:
    """What a network is used with, for the manifest.

    Attributes:
        normal_t, noisier_t, condition_w, passes, noise_seed: see `DiffusionAdOptions`.
        steps: of the schedule.
    """

    normal_t: int
    noisier_t: int
    condition_w: float
    passes: int
    noise_seed: int | None
    steps: int = STEPS


def load_diffusionad(checkpoint: Path, options: DiffusionAdOptions) -> LoadedNetwork[DiffusionAd]:
    """Read both networks in eval mode.

    Raises: CheckpointError naming the tensor or the setting, what was found and what was expected.
    """
    where = f"checkpoint {checkpoint}"
    data = read_tensors(checkpoint, "checkpoint")
    unet, segmentation, notes = _halves(data, where)
    told = data.get(SETTINGS)
    told = told if isinstance(told, Mapping) else {}
    config = replace(
        _config_of(unet, segmentation, where),
        num_heads=options.num_heads or int(_number(told, "num_heads", 4, where, least=1, most=1024)),
        groups=int(_number(told, "groups", GROUPS, where, least=1, most=1024)),
    )
    if faults := config.faults():
        raise CheckpointError(f"{where}: {'; '.join(faults)}")
    wanted = without_memory(lambda: DiffusionAd(config))
    for state, module, part in ((unet, wanted.unet, "UNet"), (segmentation, wanted.segmentation, "segmentation")):
        check_architecture(state, module, where, f"a {part} of this width", partial(_of_part, part))
    network = DiffusionAd(config)
    load_tensors(network.unet, unet)
    load_tensors(network.segmentation, segmentation)
    network.eval().requires_grad_(False)
    settings = _settings(told, options, where)
    if not told:
        notes.append(
            f"no settings beside the tensors; assumed {settings.normal_t} and {settings.noisier_t} as time steps"
            f" and {config.num_heads} heads, else give --normal-t, --noisier-t and --num-heads"
        )
    if config.blind:
        notes.append(f"warning: {BLIND}")
    side = _number(told, "img_size", INPUT.height, where, least=32, most=1 << 14)
    size = replace(INPUT, height=int(side), width=int(side)) if side % 32 == 0 else INPUT
    plain = {**asdict(config), **asdict(settings), "image_size": int(side)}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
    return LoadedNetwork(network, plain, sha256_of(checkpoint), tuple(notes), preprocess=size)


def settings_of(config: Mapping[str, Any]) -> Settings:
    """What `load_diffusionad` put into the configuration of a network."""
    return Settings(**{key: config[key] for key in Settings.__dataclass_fields__})


def _halves(data: Mapping[str, Any], where: str) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    for half, other in ((UNET, SEGMENTATION), (SEGMENTATION, UNET)):
        if half in data and other not in data:
            raise CheckpointError(f"{where}: holds {half!r} without {other!r}; give the file that the training wrote")
    if UNET not in data:
        if FIRST in state_names(data):
            raise CheckpointError(f"{where}: a UNet alone, {SEGMENTATION!r} is missing; give the whole file")
        keys = ", ".join(map(repr, list(data)[:4])) or "nothing"
        raise CheckpointError(f"{where}: no DiffusionAD checkpoint, {UNET!r} is missing; it holds {keys}")
    unet, segmentation = (state_of(data[key], f"{where}: {key}") for key in (UNET, SEGMENTATION))
    return unet.tensors, segmentation.tensors, [*unet.notes, *segmentation.notes]


def state_names(data: Mapping[str, Any]) -> set[str]:
    """Names of a bare state dict, without what DataParallel puts before them."""
    return {str(key).removeprefix("module.") for key in data}


def _config_of(unet: Mapping[str, Tensor], segmentation: Mapping[str, Tensor], where: str) -> DiffusionAdConfig:
    base = _width(unet, FIRST, 3, where)
    numbers = {int(named[1]) for key in unet if (named := re.match(r"down\.([0-9]{1,3})\.", key))}
    levels, left = divmod(len(numbers), STAGES_OF_LEVEL)
    if left or numbers != set(range(len(numbers))) or not 1 <= levels <= MOST_LEVELS:
        raise CheckpointError(
            f"{where}: {len(numbers)} stages 'down.*', wanted {STAGES_OF_LEVEL} for each of 1 to {MOST_LEVELS} levels"
        )
    multipliers, strides = [], []
    for level in range(levels):
        stage = 1 + STAGES_OF_LEVEL * level
        key = f"down.{stage}.0.out_layers.3.weight"
        width = len(unet[key]) if key in unet and unet[key].ndim else 0
        if not width or width % base:
            found = f"{width} channels, wanted a multiple of {base}" if width else "is missing"
            raise CheckpointError(f"{where}: tensor {key!r} {found}")
        multipliers.append(width // base)
        if f"down.{stage}.1.to_qkv.weight" in unet:
            strides.append(2**level)
    channels = _width(segmentation, FIRST_OF_SEGMENTATION, 6, where)
    return DiffusionAdConfig(base, tuple(multipliers), tuple(strides), channels)


def _width(state: Mapping[str, Tensor], key: str, n_in: int, where: str) -> int:
    first = state.get(key)
    if first is None or tuple(first.shape[1:]) != (n_in, 3, 3) or not len(first):
        found = "is missing" if first is None else f"has shape {tuple(first.shape)}, wanted (width, {n_in}, 3, 3)"
        raise CheckpointError(f"{where}: no DiffusionAD checkpoint, tensor {key!r} {found}")
    return int(first.shape[0])


def _settings(told: Mapping[Any, Any], options: DiffusionAdOptions, where: str) -> Settings:
    steps = int(_number(told, "T", STEPS, where, least=LEAST_STEPS, most=MOST_STEPS))
    last = steps - 1
    normal, noisier, guidance = options.normal_t, options.noisier_t, options.condition_w
    if normal is None:
        normal = int(_number(told, "eval_normal_t", NORMAL_STEP, where, least=0, most=last))
    if noisier is None:
        noisier = int(_number(told, "eval_noisier_t", NOISIER_STEP, where, least=0, most=last))
    if guidance is None:
        guidance = float(_number(told, "condition_w", GUIDANCE, where, least=0, most=1e3))
    if not normal < noisier <= last:
        raise CheckpointError(
            f"{where}: time steps {normal} (normal) and {noisier} (noisier) of {steps}, wanted the smaller first;"
            " give --normal-t and --noisier-t"
        )
    return Settings(normal, noisier, guidance, options.passes, options.noise_seed, steps)


def _number(told: Mapping[Any, Any], key: str, usual: float, where: str, *, least: float, most: float) -> float:
    """A setting; the authors' dictionary gives '' for one that is not there. Raises: CheckpointError."""
    value = told.get(key, "")
    if value == "" or value is None:
        return usual
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, (int, float)) for part in value):
        value = value[0] if len(set(value)) == 1 else value  # `img_size` is written as both sides
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= most or (isinstance(usual, int) and value != int(value)):
        raise CheckpointError(f"{where}: setting {key!r} is {str(value)[:40]!r}, wanted a number, {least} to {most}")
    return float(value) if isinstance(value, float) else value


def _of_part(part: str, key: str) -> str:
    return f"{key!r} of the {part}"
