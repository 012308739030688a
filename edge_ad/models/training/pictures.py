"""Pictures that training works on: decoded once, at model size, with the place where textures may lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.bundle.tiles import TileGrid
from edge_ad.datasets import Sample, model_mask, read_foreground, read_image
from edge_ad.errors import ConfigError, ImageError, SourceError
from edge_ad.image.frame import ImageArray
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.preprocess import Preprocessor
from edge_ad.models.synthesis.foreground import MIN_AGREEMENT, foreground_mask
from edge_ad.models.training.variations import Variations

Foreground = Literal["none", "auto", "files"]
"""Where something may be laid over a picture: everywhere, where an object is found, where foreground pictures say."""

NAMED = 3  # unreadable files that a message names
NO_VARIATIONS = Variations()


@dataclass(frozen=True)
class Picture:
    """One good picture at model size.

    Attributes:
        image_hwc: (height, width, 3) uint8 RGB.
        foreground: (height, width) bool, where textures may lie; None for everywhere.
        geometry: where its pixels lie in the file's picture; of a tile, those of the canvas that it is cut out of.
    """

    image_hwc: ImageArray
    foreground: NDArray[np.bool_] | None
    geometry: FrameGeometry

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.image_hwc.nbytes + (0 if self.foreground is None else self.foreground.nbytes)

    def part(self, grid: TileGrid, place: int) -> Picture:
        """A tile of this picture, which is its canvas. Args: place: which one, row by row."""
        (top, left), (height, width) = grid.origins[place], grid.tile_hw
        cut = np.s_[top : top + height, left : left + width]
        mask = None if self.foreground is None else self.foreground[cut]
        return Picture(self.image_hwc[cut], mask, self.geometry)


class GoodPictures:
    """The readable ones of some samples, in memory as far as `cache_bytes` go and read again beyond.

    In variations, each of a sample is a picture, the sample itself first; in tiles, each tile of each: they come sample
    by sample, variation by variation, and row by row.

    Args:
        spec: how samples become pictures; in tiles, the canvas of all of them.
        foreground: where textures may lie.
        progress: called after each sample.
        tiles: how they are cut apart; None where each is one picture.
        variations: which of each sample are pictures beside it.

    Attributes:
        tiles: as given.
        samples: those that can be read.
        unreadable: what is wrong with the others.
        found: in how many the automatic rule finds an object; below MIN_AGREEMENT of them it is used in none.
        different: how many there are that differ at the size of the model.
        cropped: how many the model does not see all of.

    Raises: SourceError when not one can be read; ConfigError when foreground pictures are wanted and missing.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: PreprocessSpec,
        foreground: Foreground,
        cache_bytes: int,
        progress: Callable[[], None] = lambda: None,
        tiles: TileGrid | None = None,
        variations: Variations = NO_VARIATIONS,
    ) -> None:
        self._preprocess = Preprocessor(spec)
        self.tiles = tiles
        self._variations = variations
        self._read_last: tuple[int, Picture] | None = None
        self._foreground = foreground
        self._kept: list[Picture] = []
        self.samples: list[Sample] = []
        self.unreadable: list[str] = []
        self.found = 0
        self.cropped = 0
        self._least_seen: FrameGeometry | None = None
        contents: set[bytes] = set()
        if foreground == "files":
            _require_foregrounds(samples)
        used = 0
        for sample in samples:
            progress()
            self.samples.append(sample)
            number = len(self.samples) - 1
            try:
                picture, found = self._read(number)
            except ImageError as exc:
                self.unreadable.append(str(exc))
                self.samples.pop()
                continue
            self.found += found
            if len(self._kept) == number * self._of_each:
                others = (self._read(number, copy)[0] for copy in range(1, self._of_each))
                for kept in (picture, *others):
                    used += kept.nbytes
                    if used > cache_bytes:
                        break
                    self._kept.append(kept)
            contents.add(hashlib.sha256(picture.image_hwc.tobytes()).digest())
            self._note_crop(picture.geometry)
        self.different = len(contents)
        if not self.samples:
            raise SourceError(f"no good picture can be read: {'; '.join(self.unreadable[:NAMED])}")
        if foreground == "auto" and not self.agreed:
            self._foreground = "none"
            self._kept = [self._read(*divmod(index, self._of_each))[0] for index in range(len(self._kept))]

    def __len__(self) -> int:
        return len(self.samples) * self.per_sample

    def __getitem__(self, index: int) -> Picture:
        view, place = divmod(index, 1 if self.tiles is None else self.tiles.count)
        picture = self._picture(view)
        return picture if self.tiles is None else picture.part(self.tiles, place)

    def __iter__(self) -> Iterator[Picture]:
        return (self[index] for index in range(len(self)))

    @property
    def per_sample(self) -> int:
        """How many pictures there are of each sample."""
        return self._of_each * (1 if self.tiles is None else self.tiles.count)

    @property
    def _of_each(self) -> int:
        """How many whole pictures there are of each sample."""
        return 1 + self._variations.copies

    def of_samples(self, numbers: Sequence[int]) -> list[int]:
        """Indices of all pictures of some samples."""
        return [number * self.per_sample + place for number in numbers for place in range(self.per_sample)]

    def _picture(self, view: int) -> Picture:
        """A whole sample, or a variation. The last one that had to be read is kept while its tiles may be asked for."""
        if view < len(self._kept):
            return self._kept[view]
        last = self._read_last
        if last is None or last[0] != view or self.tiles is None:
            last = self._read_last = view, self._read(*divmod(view, self._of_each))[0]
        return last[1]

    @property
    def agreed(self) -> bool:
        """Whether the automatic rule finds an object often enough to be believed."""
        return self.found >= MIN_AGREEMENT * len(self.samples)

    @property
    def notes(self) -> list[str]:
        """What the user should know, one line each."""
        notes = []
        if self.unreadable:
            more = f" and {len(self.unreadable) - NAMED} more" if len(self.unreadable) > NAMED else ""
            notes.append(f"{len(self.unreadable)} pictures left out: {'; '.join(self.unreadable[:NAMED])}{more}")
        if self.different == 1:
            count = len(self.samples)
            all_of = "one good picture is" if count == 1 else f"{count} good pictures, all of them the same, are"
            notes.append(f"{all_of} all there is to learn from: whatever looks different will be anomalous; add others")
        elif self.different < (count := len(self.samples)):
            notes.append(f"{count - self.different} of {count} good pictures are the same as others of them")
        return notes

    @property
    def crop_warning(self) -> str | None:
        """What of the pictures is not learned from, nor judged later; None where the model sees all of each."""
        if self._least_seen is None:
            return None
        (rows, columns), (x_min, y_min, x_max, y_max) = self._least_seen.frame_hw, self._least_seen.inspected_box
        which = "the good pictures"
        if self.cropped < len(self.samples):
            which = f"{self.cropped} of {len(self.samples)} good pictures"
        return (
            f"{self._least_seen.share_outside:.0%} of {which} lies outside of the crop and is NOT learned from, nor"
            f" inspected later (seen of {columns}x{rows}: x {x_min}..{x_max}, y {y_min}..{y_max});"
            " --resize-mode auto sees it all"
        )

    def _note_crop(self, geometry: FrameGeometry) -> None:
        if geometry.covers_region:
            return
        self.cropped += 1
        if self._least_seen is None or geometry.share_outside > self._least_seen.share_outside:
            self._least_seen = geometry

    def _read(self, number: int, copy: int = 0) -> tuple[Picture, bool]:
        """A sample or a variation of it, and whether the automatic rule finds an object in it."""
        sample = self.samples[number]
        frame = read_image(sample)
        variation = self._variations.of(number, copy)
        if variation is not None:
            frame = variation.of_picture(frame)
        model_input = self._preprocess(frame)
        image_hwc, (x_min, y_min, x_max, y_max) = model_input.image_hwc, model_input.geometry.content_box
        content = np.zeros(image_hwc.shape[:2], np.bool_)
        content[y_min:y_max, x_min:x_max] = True
        if self._foreground == "files":
            given = read_foreground(sample, (frame.shape[0], frame.shape[1]))
            assert given is not None
            given = given if variation is None else variation.of_mask(given)
            mask = model_mask(given, self._preprocess.spec)
            if variation is not None and not mask.any():  # it has moved out of the picture
                return self._read(number)
            if not mask.any():
                raise ConfigError("foreground", [f"files: {sample.foreground} is black where the model looks"])
            return Picture(image_hwc, mask, model_input.geometry), False
        object_found = False
        if self._foreground == "auto":
            foreground = foreground_mask(image_hwc[y_min:y_max, x_min:x_max])
            object_found = foreground.found
            if object_found:
                content[y_min:y_max, x_min:x_max] = foreground.mask
        return Picture(image_hwc, None if content.all() else content, model_input.geometry), object_found


def _require_foregrounds(samples: Sequence[Sample]) -> None:
    lacking = [sample.image.name for sample in samples if sample.foreground is None]
    if lacking:
        raise ConfigError(
            "foreground",
            [f"files: {len(lacking)} of {len(samples)} good pictures have none ({', '.join(lacking[:NAMED])})"],
        )
