"""Which layer of a student imitates which tap of its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_ad.errors import ConfigError
from edge_ad.models.student import StudentTap

KNOWN_LAYERS: Mapping[str, Mapping[int, str]] = {
    "mobilenet_v2": {4: "features.3", 8: "features.6", 16: "features.13", 32: "features.17"},
    "timm:efficientnet_lite0": {4: "blocks.1", 8: "blocks.2", 16: "blocks.4", 32: "blocks.6"},
}
"""The last layer of each resolution, by its stride."""


def student_taps(
    backbone: str, layers: Sequence[str] | None, shapes: Sequence[tuple[int, int, int]], size_hw: tuple[int, int]
) -> tuple[str, ...]:
    """Taps of a student, as they are written.

    Args:
        layers: of the student; None for those that are known to fit.
        shapes: (channels, rows, columns) of the teacher's taps for a picture of `size_hw` pixels.

    Raises: ConfigError for layers that do not go with the teacher's, and grids that no stride gives.
    """
    strides = [_stride(shape, size_hw) for shape in shapes]
    chosen = layers or _known(backbone, strides)
    if len(chosen) != len(shapes):
        raise ConfigError("layers", [f"the teacher has {len(shapes)} taps, wanted as many, got {', '.join(chosen)}"])
    taps = [
        StudentTap(layer, channels, stride).name
        for layer, (channels, _, _), stride in zip(chosen, shapes, strides, strict=True)
    ]
    if len(set(taps)) != len(taps):
        raise ConfigError("layers", [f"{', '.join(chosen)} would imitate two taps of one shape; give --layers of two"])
    return tuple(taps)


def _stride(shape: tuple[int, int, int], size_hw: tuple[int, int]) -> int:
    _, rows, columns = shape
    stride = max(1, round(size_hw[0] / rows))
    if StudentTap("", 1, stride).grid(size_hw) != (rows, columns):
        height, width = size_hw
        raise ConfigError(
            "teacher",
            [
                f"its tap of {rows}x{columns} for {height}x{width} pixels has no whole stride; train one whose imgsz"
                " is a multiple of it"
            ],
        )
    return stride


def _known(backbone: str, strides: Sequence[int]) -> Sequence[str]:
    known = KNOWN_LAYERS.get(backbone, {})
    if not known or any(stride not in known for stride in strides):
        of_which = ", ".join(KNOWN_LAYERS)
        raise ConfigError(
            "layers",
            [
                f"give --layers, one of {backbone!r} for each of the teacher's strides {', '.join(map(str, strides))};"
                f" they are known of {of_which}"
            ],
        )
    return [known[stride] for stride in strides]
