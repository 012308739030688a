"""Good pictures that a checkpoint does not hold and its network cannot do without.

Banks, statistics and quantiles of some authors' checkpoints lie in other files, or in none: they are computed again
from the good pictures that the network was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.bundle.tiles import TileGrid
from edge_ad.errors import ConfigError
from edge_ad.models.option_types import option
from edge_ad.validation import strict

if TYPE_CHECKING:
    from edge_ad.image.frame import ImageArray
    from edge_ad.models.training.pictures import GoodPictures

CACHE_BYTES = 2 * 10**9


@strict
@dataclass(frozen=True, kw_only=True)
class ReferenceOptions:
    """Network options of a family some of whose checkpoints want good pictures beside them.

    Attributes:
        references: their folder, such as `train/good`.
    """

    references: Path | None = option(
        None, "Good pictures that the network was trained on, for checkpoints that hold no bank or statistics.", "DIR"
    )


class References:
    """Good pictures at model size, or their tiles, read when they are asked for.

    Iterating gives (H, W, 3) uint8 RGB, in the order of their paths; none where no folder was given.

    Args:
        folder: where they lie.
        preprocess: how they become the network's input; in tiles, one of them.
        tiles: how they are cut apart; None where they are not.
        say: receives a line when they are read, for what is computed of them may take minutes.

    Raises (when they are asked for): SourceError for a folder without a picture that can be read.
    """

    def __init__(
        self,
        folder: Path | None,
        preprocess: PreprocessSpec,
        say: Callable[[str], None] = lambda _: None,
        tiles: TileGrid | None = None,
    ) -> None:
        self.folder, self.preprocess, self._say, self._tiles = folder, preprocess, say, tiles

    @classmethod
    def of(
        cls,
        options: Any,
        preprocess: PreprocessSpec,
        say: Callable[[str], None] = lambda _: None,
        tiles: TileGrid | None = None,
    ) -> References:
        """Those that network options name. Args: options: of any family."""
        return cls(options.references if isinstance(options, ReferenceOptions) else None, preprocess, say, tiles)

    def required(self, why: str) -> References:
        """Themselves. Raises: ConfigError that says why they are needed, where no folder was given."""
        if self.folder is None:
            raise ConfigError("references", [f"{why}; give --references DIR with the good pictures it was trained on"])
        return self

    def __len__(self) -> int:
        return 0 if self.folder is None else len(self._pictures)

    def __iter__(self) -> Iterator[ImageArray]:
        return iter(()) if self.folder is None else (picture.image_hwc for picture in self._pictures)

    @property
    def names(self) -> tuple[str, ...]:
        """File names, in the same order."""
        return () if self.folder is None else tuple(sample.image.name for sample in self._pictures.samples)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of them, one line each."""
        if self.folder is None:
            return ()
        if "_pictures" not in vars(self):
            return (f"the checkpoint holds all that it needs; references {self.folder} were not read",)
        crop = self._pictures.crop_warning
        return (*self._pictures.notes, *([] if crop is None else [crop]))

    @cached_property
    def _pictures(self) -> GoodPictures:
        from edge_ad.datasets import plain_dataset
        from edge_ad.models.training.pictures import GoodPictures

        assert self.folder is not None
        samples = plain_dataset(self.folder).train
        self._say(f"computing what the checkpoint lacks of {len(samples)} pictures of {self.folder}")
        whole = self.preprocess if self._tiles is None else self._tiles.canvas(self.preprocess)
        return GoodPictures(samples, whole, "none", CACHE_BYTES, tiles=self._tiles)
