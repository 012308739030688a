"""What synthetic anomalies are made of: pictures of a folder (DTD or any), or drawn patterns."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_ad.errors import ImageError, SourceError
from edge_ad.image.frame import ImageArray
from edge_ad.image.pictures import IMAGE_SUFFIXES, picture_fault, pictures_below, read_picture
from edge_ad.models.synthesis.procedural import FAMILIES, coloured

CACHE_BYTES = 256 << 20


class TexturePool(Protocol):
    """Textures to draw from.

    Attributes:
        description: what the pool is, for the log.
    """

    @property
    def description(self) -> str: ...

    def __len__(self) -> int:
        """Number of pictures, or of families of drawn patterns."""
        ...

    def sample(self, rng: np.random.Generator, shape_hw: tuple[int, int]) -> ImageArray:
        """A texture as (H, W, 3) uint8 RGB; the caller does not change it."""
        ...


def open_textures(folder: Path | None) -> TexturePool:
    """The pictures below `folder`, or drawn patterns when it is None. Raises: SourceError as FolderTextures does."""
    return ProceduralTextures() if folder is None else FolderTextures(folder)


class ProceduralTextures:
    """Patterns drawn when they are asked for: a family by chance, then its colours, scale and direction."""

    description = f"{len(FAMILIES)} families of drawn patterns (no folder of textures was given)"

    def __len__(self) -> int:
        return len(FAMILIES)

    def sample(self, rng: np.random.Generator, shape_hw: tuple[int, int]) -> ImageArray:
        """A newly drawn texture, (H, W, 3) uint8 RGB."""
        return coloured(FAMILIES[rng.integers(len(FAMILIES))](shape_hw, rng), rng)


class FolderTextures:
    """Pictures below a folder, each scaled to cover the wanted size and cropped at a random place.

    Pictures are decoded when they are drawn for the first time and kept, scaled, in a cache of bounded size; several
    threads may draw at once. A picture that cannot be decoded is passed over: another one is drawn in its place, from
    the same generator, so that a draw does not depend on what was drawn before.

    Args:
        folder: read with its subfolders.
        cache_bytes: bound of the cache.

    Attributes:
        unreadable: why pictures were passed over, as far as is known.

    Raises: SourceError when there is no picture, or none that can be opened.
    """

    def __init__(self, folder: Path, *, cache_bytes: int = CACHE_BYTES) -> None:
        if not folder.is_dir():
            state = "is a file" if folder.exists() else "does not exist"
            raise SourceError(f"wanted a folder of textures, got {folder}, which {state}; check the path")
        self._paths = tuple(pictures_below(str(folder)))
        if not self._paths:
            raise SourceError(
                f"folder {folder} holds no texture: looked for {', '.join(IMAGE_SUFFIXES)}, also in its subfolders; "
                "give another folder, or none for drawn patterns"
            )
        self.folder = folder
        self._faults = {
            index: fault for index, path in enumerate(self._paths) if (fault := picture_fault(path)) is not None
        }
        self._cache = _ImageCache(cache_bytes)
        self._check_faults()

    @property
    def unreadable(self) -> tuple[str, ...]:
        return tuple(fault for _, fault in sorted(self._faults.items()))

    @property
    def description(self) -> str:
        faults = self.unreadable
        skipped = f"; passed over {len(faults)} unreadable, the first: {faults[0]}" if faults else ""
        return f"{len(self)} pictures of {self.folder}{skipped}"

    def __len__(self) -> int:
        """Number of pictures that are not known to be unreadable."""
        return len(self._paths) - len(self._faults)

    def sample(self, rng: np.random.Generator, shape_hw: tuple[int, int]) -> ImageArray:
        """A crop of a picture, (H, W, 3) uint8 RGB. Raises: SourceError when no picture is left that can be read."""
        while True:
            index = int(rng.integers(len(self._paths)))
            image = self._covering(index, shape_hw)
            if image is not None:
                break
            self._check_faults()
        top, left = (int(rng.integers(image.shape[axis] - shape_hw[axis] + 1)) for axis in (0, 1))
        return image[top : top + shape_hw[0], left : left + shape_hw[1]]

    def _covering(self, index: int, shape_hw: tuple[int, int]) -> ImageArray | None:
        """The picture scaled so that it just covers the size; None when it cannot be read."""
        if index in self._faults:
            return None
        key = index, shape_hw
        image = self._cache.get(key)
        if image is None:
            try:
                image = _scaled_to_cover(read_picture(self._paths[index]), shape_hw)
            except ImageError as exc:
                self._faults[index] = str(exc)
                return None
            self._cache.put(key, image)
        return image

    def _check_faults(self) -> None:
        if len(self) == 0:
            raise SourceError(
                f"none of the {len(self._paths)} textures in {self.folder} can be read; the first: {self.unreadable[0]}"
            )


class _ImageCache:
    """The images used last, as many as fit into a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._images: OrderedDict[object, ImageArray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> ImageArray | None:
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._images.move_to_end(key)
            return image

    def put(self, key: object, image: ImageArray) -> None:
        with self._lock:
            if key in self._images or image.nbytes > self._max_bytes:
                return
            self._images[key] = image
            self._bytes += image.nbytes
            while self._bytes > self._max_bytes:
                _, oldest = self._images.popitem(last=False)
                self._bytes -= oldest.nbytes


def _scaled_to_cover(image_hwc: ImageArray, shape_hw: Sequence[int]) -> ImageArray:
    """Pillow's antialiased bilinear, both sides by the same factor."""
    from PIL import Image

    height, width = image_hwc.shape[:2]
    scale = max(shape_hw[0] / height, shape_hw[1] / width)
    size = max(shape_hw[1], int(width * scale)), max(shape_hw[0], int(height * scale))
    if size == (width, height):
        return image_hwc
    return np.asarray(Image.fromarray(image_hwc).resize(size, Image.Resampling.BILINEAR))
