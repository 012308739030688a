"""Pictures that configurations are tried on, as a data set on disk: good ones to learn from, good ones that are held
out, and defective ones.

::

    FOLDER/
        train/good/<number>.<suffix>             good pictures to learn from
        test/good/<number>.<suffix>              good ones held out
        test/<kind>/<number>.png                 the same with a defect drawn on each
        ground_truth/<kind>/<number>_mask.png    where it is
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.choose.defects import KINDS, Sources, draw_defect
from edge_ad.datasets import GOOD, Sample, read_image
from edge_ad.errors import ImageError, OutputError, SourceError, os_reason
from edge_ad.image.pictures import picture_size
from edge_ad.models.synthesis.textures import TexturePool

MOST_DRAWN_PIXELS = 300_000_000
"""Of all pictures with a defect drawn on them, which lie on disk while configurations are tried."""
HELD_OUT_SHARE, LEAST_HELD_OUT, MOST_HELD_OUT = 0.25, 6, 40
LEAST_GOOD = 12
"""Fewer good pictures leave too few to learn from and to hold out."""
MOST_LEARNED = 200
"""Good pictures that are learned from while trying; the configuration that is taken learns from all."""


@dataclass(frozen=True)
class TrialPictures:
    """What was written.

    Attributes:
        folder: the data set.
        learned, held_out, defective: how many pictures there are of each.
    """

    folder: Path
    learned: int
    held_out: int
    defective: int


def readable(good: Sequence[Sample]) -> list[Sample]:
    """The samples whose file can be opened as a picture; its pixels are not looked at."""
    found = []
    for sample in good:
        with suppress(ImageError):
            picture_size(str(sample.image))
            found.append(sample)
    return found


def write_trial(good: Sequence[Sample], textures: TexturePool, folder: Path, seed: int) -> TrialPictures:
    """Hold some good pictures out, draw defects on copies of them, and write all as a data set.

    Args:
        good: at least LEAST_GOOD samples; those that cannot be read are left out.
        folder: an empty one.
        seed: of the choice and of the defects.

    Raises: SourceError where no picture is left to hold out; OutputError where the folder cannot be written.
    """
    try:
        return _written(good, textures, folder, seed)
    except OSError as exc:
        hint = "; TMPDIR names another place"
        raise OutputError(f"{folder}: pictures to try configurations on: {os_reason(exc)}{hint}") from exc


def _written(good: Sequence[Sample], textures: TexturePool, folder: Path, seed: int) -> TrialPictures:
    rng = np.random.default_rng([seed, len(good)])
    order = [int(index) for index in rng.permutation(len(good))]
    pixels = _pixels(good)
    kinds = list(KINDS)[: max(1, MOST_DRAWN_PIXELS // (LEAST_HELD_OUT * pixels))]
    most = min(MOST_HELD_OUT, MOST_DRAWN_PIXELS // (len(kinds) * pixels))
    count = max(LEAST_HELD_OUT, min(most, round(HELD_OUT_SHARE * len(good))))
    held_out, learned = order[:count], order[count : count + MOST_LEARNED]
    for index in learned:
        _copy(good[index].image, folder / "train" / GOOD, index)
    others = [image for index in learned[:8] if (image := _read(good[index])) is not None]
    written = defective = 0
    for index in held_out:
        image = _read(good[index])
        if image is None or not others:
            continue
        written += 1
        _copy(good[index].image, folder / "test" / GOOD, index)
        for kind in kinds:
            drawn, mask = draw_defect(kind, image, Sources(others, textures), rng)
            _write(folder / "test" / kind / f"{index:05d}.png", drawn[:, :, ::-1])
            _write(folder / "ground_truth" / kind / f"{index:05d}_mask.png", mask.astype(np.uint8) * np.uint8(255))
            defective += 1
    if not written:
        raise SourceError("no good picture that can be read is left to try configurations on")
    return TrialPictures(folder, len(learned), written, defective)


def _read(sample: Sample) -> NDArray[np.uint8] | None:
    try:
        return read_image(sample)
    except ImageError:
        return None


def _pixels(samples: Sequence[Sample]) -> int:
    """Of the first picture whose size can be read."""
    for sample in samples:
        with suppress(ImageError):
            height, width = picture_size(str(sample.image))
            return height * width
    return 1


def _copy(image: Path, folder: Path, index: int) -> None:
    """The picture under another name; a link where the file system has them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{index:05d}{image.suffix.lower()}"
    try:
        path.symlink_to(image.resolve())
    except OSError:
        shutil.copyfile(image, path)


def _write(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
