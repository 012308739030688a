"""Where the float graph of a bundle takes in what it learns, by what its family says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_ad.bundle.manifest import Manifest
from edge_ad.calibration.learn.bank import BankPlace
from edge_ad.calibration.learn.beside import PATCH_MAP, BesidePlace, Known, check_follows_patch_map, taps_of
from edge_ad.calibration.learn.graph import Floats, Place
from edge_ad.calibration.learn.rehearsal import Rehearsal, shapes_of
from edge_ad.errors import ConfigError, SourceError
from edge_ad.image.cells import counted_cells, shown_part
from edge_ad.models import model_family

if TYPE_CHECKING:
    from onnx import ModelProto

    from edge_ad.image.preprocess import ModelInput

SAMPLED_PATCHES = 1024  # of a picture, for the usual distance
SAMPLED_PICTURES = 8
ROUNDED = 1e-4
"""Of the largest number in a patch: what is nearer is the same patch, as on a ground of one colour."""
APART = 3
"""Cells between two patches of one picture that share nothing: each looks at its neighbours."""


def place_of(
    manifest: Manifest, base: ModelProto, constants: Mapping[str, Floats], pictures: Sequence[ModelInput] = ()
) -> tuple[Place, Floats]:
    """The place in a graph.

    Args:
        base: the graph without what was learned.
        constants: of what was learned; none where this is the first lesson.
        pictures: of the first lesson, from which it takes what stays.

    Returns: the place, and no patch at all (0, D) of those that it takes in.

    Raises: ConfigError for a family that can learn nothing; BundleError for a graph that cannot.
    """
    family = model_family(manifest.model.family)
    if family.bank is not None:
        bank = BankPlace(base, family.bank)
        return bank, np.zeros((0, bank.depth), np.float32)
    if not family.appearance:
        raise ConfigError(
            "bundle", [f"family {family.name!r} has nothing that tells good patches apart; raise the threshold instead"]
        )
    if manifest.tiles is not None:
        raise ConfigError(
            "bundle",
            [f"family {family.name!r} learns of whole pictures, and this bundle has tiles; train anew instead"],
        )
    check_follows_patch_map(base)
    names = taps_of(base, family.appearance)
    *shapes, patches = shapes_of(base, [*names, PATCH_MAP], manifest.preprocess.size_hw)
    taps = {name: (shape[0], shape[1], shape[2]) for name, shape in zip(names, shapes, strict=True)}
    none = np.zeros((0, sum(shape[0] for shape in shapes)), np.float32)
    patch_hw = (patches[0], patches[1])
    known = Known.of(constants)
    if known is None:
        unset = BesidePlace(taps, patch_hw, Known(np.zeros(none.shape[1], np.float32), 1.0, 0.0))
        known = _first_known(Rehearsal(base, unset, none), pictures, none)
    return BesidePlace(taps, patch_hw, known), none


def _first_known(rehearsal: Rehearsal, pictures: Sequence[ModelInput], none: Floats) -> Known:
    """Centre and level are those of the pictures; the radius is how far patches of good pictures usually are apart."""
    count = min(len(pictures), SAMPLED_PICTURES)
    shown, levels = [], []
    for picture in (pictures[index * len(pictures) // count] for index in range(count)):
        scene = rehearsal.scene(picture.image_hwc)
        patch_map = rehearsal.say(scene, none).patch_map
        rows, columns = shown_part(scene.patches.shape[1:], picture.geometry)
        shown.append(scene.patches[:, rows, columns])
        cells = counted_cells((patch_map.shape[0], patch_map.shape[1]), picture.geometry)
        levels.append(np.median(cells.values(patch_map)))
    centre = np.mean([patches.mean((1, 2), dtype=np.float64) for patches in shown], axis=0).astype(np.float32)
    return Known(centre, usual_distance(shown), float(np.median(levels)))


def usual_distance(pictures: Sequence[Floats]) -> float:
    """Median distance of a patch to the nearest one of another picture; of one picture, to the nearest one apart.

    Patches that are the same do not count.

    Args:
        pictures: their patches (D, h, w).

    Raises: SourceError where all of them are the same.
    """
    sampled = [_sampled(patches) for patches in pictures]
    nearest = []
    for index, (rows, places) in enumerate(sampled):
        if len(sampled) == 1:
            squares = _squares(rows, rows)
            squares[np.abs(places[:, None] - places[None, :]).max(2) < APART] = np.inf
        else:
            squares = _squares(
                rows, np.concatenate([others for other, (others, _) in enumerate(sampled) if other != index])
            )
        nearest.append(np.sqrt(squares.min(1)))
    found, size = np.concatenate(nearest), max(float(np.abs(rows).max()) for rows, _ in sampled)
    apart = found[found > ROUNDED * size]
    if not len(apart):
        raise SourceError("the pictures are all alike to the network, which shows no usual distance; add others")
    return float(np.median(apart))


def _sampled(patches: Floats) -> tuple[Floats, np.ndarray]:
    """Patches (P, D) of a picture (D, h, w), evenly spread where they are many, and their cells (P, 2)."""
    depth, rows, columns = patches.shape
    cells = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=2).reshape(-1, 2)
    step = -(-len(cells) // SAMPLED_PATCHES)
    return patches.reshape(depth, -1).T[::step], cells[::step]


def _squares(rows: Floats, others: Floats) -> np.ndarray:
    """(P, Q) float64 squared distances."""
    one, other = rows.astype(np.float64), others.astype(np.float64)
    squares = np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * one @ other.T
    return np.asarray(np.maximum(squares, 0))
