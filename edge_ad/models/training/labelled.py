"""Labelled test pictures during training: how well the network ranks them now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.bundle.tiles import TileGrid
from edge_ad.datasets import Sample, covers_nearly_all, model_mask, read_image, read_mask, swapped_notes
from edge_ad.errors import ImageError
from edge_ad.image.cells import shown_part
from edge_ad.image.frame import ImageArray
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.padding import frame_score, without_padding
from edge_ad.image.preprocess import Preprocessor
from edge_ad.image.tiles import joined_map, shared_cells
from edge_ad.metrics.localization import PixelGroup, group_metrics
from edge_ad.metrics.ranking import auroc


@dataclass(frozen=True)
class Standing:
    """Ranking figures; `pixel_auroc` is None where no defective picture has a mask."""

    image_auroc: float
    pixel_auroc: float | None

    @property
    def sum(self) -> float:
        """Image AUROC + pixel AUROC, by which the authors choose an epoch."""
        return self.image_auroc + (self.pixel_auroc or 0.0)


class LabelledPictures:
    """Good and defective pictures at model size.

    Args:
        tiles: how they are cut apart for the network; None where they are not. They are ranked whole all the same.
        border: see `ModelFamily.border`.

    Attributes:
        unreadable: what is wrong with pictures that were left out.
        full_masks: masks that cover nearly all of their picture.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: PreprocessSpec,
        postprocess: PostprocessSpec,
        tiles: TileGrid | None = None,
        border: int = 0,
    ) -> None:
        self._spec, self._postprocess, self._tiles, self._border = spec, postprocess, tiles, border
        self._images: list[ImageArray] = []
        self._masks: list[NDArray[np.bool_] | None] = []
        self._geometries: list[FrameGeometry] = []
        self._truth: list[bool] = []
        self.unreadable: list[str] = []
        self.full_masks: list[str] = []
        preprocess = Preprocessor(spec)
        for sample in samples:
            try:
                frame = read_image(sample)
            except ImageError as exc:
                self.unreadable.append(str(exc))
                continue
            model_input = preprocess(frame)
            unknown = sample.anomalous and sample.mask is None
            mask = None
            if not unknown:
                truth = read_mask(sample, (frame.shape[0], frame.shape[1]))
                if covers_nearly_all(truth):
                    self.full_masks.append(str(sample.mask))
                mask = model_mask(truth, spec)
            self._images.append(model_input.image_hwc)
            self._masks.append(mask)
            self._geometries.append(model_input.geometry)
            self._truth.append(sample.anomalous)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def notes(self) -> list[str]:
        """What the user should know, one line each."""
        return [*self.unreadable, *swapped_notes(self.full_masks)]

    @property
    def usable(self) -> bool:
        """Whether there are good and defective ones."""
        return any(self._truth) and not all(self._truth)

    @property
    def images(self) -> Sequence[ImageArray]:
        """(H, W, 3) uint8 RGB at model size, in order; the tiles of each, row by row."""
        grid = self._tiles
        if grid is None:
            return self._images
        height, width = grid.tile_hw
        return [image[top : top + height, left : left + width] for image in self._images for top, left in grid.origins]

    def ranked(
        self,
        patch_maps: Sequence[NDArray[np.float32]],
        anomaly_maps: Sequence[NDArray[np.float32]] | None = None,
        scores: Sequence[float] | None = None,
    ) -> Standing:
        """How well a network tells defective pictures from good ones.

        Args:
            patch_maps: (h, w) of all `images`.
            anomaly_maps: (H, W) of them, of a family whose anomaly maps are no smoothing of its patch maps.
            scores: of them, where the spec names a score that only the graph knows.
        """
        spec = self._postprocess
        if self._tiles is not None:
            patch_maps, anomaly_maps, scores = self._joined(self._tiles, patch_maps, anomaly_maps, scores)
        if anomaly_maps is None:
            anomaly_maps = list(map(ResizeSmooth(patch_maps[0].shape, self._spec.size_hw, spec), patch_maps))
        pixels, found = PixelGroup(), []
        own = scores if scores is not None else [0.0] * len(patch_maps)
        pictures = zip(patch_maps, anomaly_maps, own, self._masks, self._geometries, strict=True)
        for patches, whole, score, mask, geometry in pictures:
            patch_map, anomaly_map = without_padding(patches, whole, geometry, spec)
            found.append(frame_score(patch_map, anomaly_map, score, geometry, spec))
            if mask is not None:
                shown = shown_part(anomaly_map.shape, geometry)
                pixels.add(anomaly_map[shown], mask[shown])
        image_auroc = auroc(found, self._truth)
        assert image_auroc is not None
        return Standing(image_auroc, group_metrics([pixels]).auroc)

    def _joined(
        self,
        grid: TileGrid,
        patch_maps: Sequence[NDArray[np.float32]],
        anomaly_maps: Sequence[NDArray[np.float32]] | None,
        scores: Sequence[float] | None,
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]] | None, list[float] | None]:
        """Answers to tiles as those to whole pictures, as the exported graph joins them."""
        rows, columns = patch_maps[0].shape
        shared, count = shared_cells(grid, (rows, columns), self._border), grid.count
        starts = range(0, len(patch_maps), count)
        patches = [joined_map(np.stack(patch_maps[at : at + count]), grid, shared) for at in starts]
        whole = highest = None
        if anomaly_maps is not None:
            pixels = grid.overlap, grid.overlap
            whole = [joined_map(np.stack(anomaly_maps[at : at + count]), grid, pixels) for at in starts]
        if scores is not None:
            highest = [max(scores[at : at + count]) for at in starts]
        return patches, whole, highest
