"""Which part of the pictures the model sees, and how: chosen by looking at their sizes, and said in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, ResizeMode
from edge_ad.bundle.tiles import SMALLEST_DEFECT, TileGrid
from edge_ad.datasets import Sample
from edge_ad.errors import ImageError
from edge_ad.image.geometry import place
from edge_ad.image.pictures import picture_size

MOST_LOOKED_AT = 256
SAME_SHAPE = 1.1
"""Ratio of two aspects up to which pictures are stretched alike: beyond, the same part would come in two shapes."""


def sizes_of(samples: Sequence[Sample]) -> Counter[tuple[int, int]]:
    """How many pictures have which height and width; of very many, some that are spread evenly are looked at.

    Those that cannot be read are left to whoever reads their pixels.
    """
    count = min(len(samples), MOST_LOOKED_AT)
    found: Counter[tuple[int, int]] = Counter()
    for index in range(count):
        try:
            found[picture_size(str(samples[index * len(samples) // count].image))] += 1
        except ImageError:
            continue
    return found


def whole_view(sizes: Counter[tuple[int, int]], postprocess: PostprocessSpec) -> ResizeMode:
    """The mode in which the model sees all of each picture.

    Pictures of one shape are stretched, which spends every pixel of the model on them: on cookies, parts of toys and
    ball screws it ranked as well as the pictures' own shape at the same cost, or better. Pictures of several shapes are
    padded, for stretched the same part would look different in each; but not where padding would count in a score that
    the graph alone knows.
    """
    aspects = [width / height for height, width in sizes]
    if not aspects or postprocess.scored_map is None:
        return "stretch"
    return "letterbox" if max(aspects) > SAME_SHAPE * min(aspects) else "stretch"


def view_line(spec: PreprocessSpec, sizes: Counter[tuple[int, int]], tiles: TileGrid | None = None) -> str | None:
    """What part of a picture is seen, at what scale, at what cost, and which defects show; None without a picture.

    Args:
        spec: of the model's input, in tiles of all of them.
    """
    if not sizes:
        return None
    (frame_hw, count), *_ = sizes.most_common()
    geometry = place(spec, frame_hw)
    x_min, y_min, x_max, y_max = geometry.inspected_box
    part = "all" if geometry.covers_region else f"x {x_min}..{x_max}, y {y_min}..{y_max}"
    across, down = geometry.scale_x, geometry.scale_y
    scale = f"{across:.2g}" if abs(across / down - 1) < 0.01 else f"{across:.2g}x{down:.2g}"
    how = "resized" if geometry.covers_region else "cropped"
    how = {"stretch": "stretched", "letterbox": "padded"}.get(spec.resize_mode, how)
    cost = "" if tiles is None else f", in {tiles}, which takes about {tiles.count} times as long as one"
    least = f"{ceil(SMALLEST_DEFECT * across)}x{ceil(SMALLEST_DEFECT * down)}"
    others = sum(sizes.values()) - count
    more = f"; {others} of {count + others} pictures looked at have other sizes" if others else ""
    return (
        f"the model sees {part} of {frame_hw[1]}x{frame_hw[0]}, {how} to {spec.width}x{spec.height}{cost}:"
        f" one of its pixels is {scale} of theirs, and a defect shows from about {least} of them on"
        f" ({SMALLEST_DEFECT} model pixels){more}"
    )
