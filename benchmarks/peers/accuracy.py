"""Labelled pictures, and what the scores and maps of the peers are worth on them: the same way for every comparison."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from measure import Contender, Found
from PIL import Image

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.datasets import Sample, model_mask, open_dataset, read_image, read_mask
from edge_ad.image.preprocess import Preprocessor
from edge_ad.metrics.localization import PixelGroup, PixelMetrics, group_metrics


@dataclass(frozen=True)
class Pictures:
    """The test pictures of a data set.

    Attributes:
        samples: each with its kind and, where there is one, its mask.
        preprocess: how the models see them; masks are brought there.
    """

    samples: tuple[Sample, ...]
    preprocess: PreprocessSpec

    @property
    def paths(self) -> list[str]:
        return [str(sample.image) for sample in self.samples]

    @property
    def truth(self) -> list[bool]:
        """Which of them are anomalous."""
        return [sample.anomalous for sample in self.samples]

    def frame_hw(self) -> tuple[int, int]:
        """Rows and columns of all of them, for an export of anomalib takes one size. Raises: ValueError."""
        sizes = set()
        for path in self.paths:
            with Image.open(path) as opened:
                sizes.add((opened.height, opened.width))
        if len(sizes) != 1:
            raise ValueError(f"wanted pictures of one size, which an export of anomalib takes, got {sorted(sizes)}")
        return sizes.pop()

    def seen(self, folder: Path) -> list[str]:
        """Paths of the same pictures as the models see them, written into `folder`: nobody has to resize these."""
        folder.mkdir()
        preprocess = Preprocessor(self.preprocess)
        paths = []
        for number, sample in enumerate(self.samples):
            paths.append(str(folder / f"{number:04}.png"))
            Image.fromarray(preprocess(read_image(sample)).image_hwc).save(paths[-1])
        return paths

    def pixel_auroc(self, maps: Path) -> float | None:
        """See `pixel_figures`. Returns: None where no defective picture has a mask."""
        return self.pixel_figures(maps).auroc

    def pixel_figures(self, maps: Path) -> PixelMetrics:
        """Of the pixels of those with a mask and of the good ones, at the models' size, as `edge-ad eval` has it.

        Args:
            maps: file of an (n, h, w) array, the anomaly maps of all pictures.
        """
        group = PixelGroup()
        for sample, anomaly_map in zip(self.samples, np.load(maps, allow_pickle=False), strict=True):
            if sample.anomalous and sample.mask is None:
                continue
            with Image.open(sample.image) as opened:
                frame_hw = opened.height, opened.width
            group.add(anomaly_map, model_mask(read_mask(sample, frame_hw), self.preprocess))
        return group_metrics([group])


def labelled(data: Path, preprocess: PreprocessSpec) -> Pictures:
    """The test pictures of the data set at `data`. Raises: SourceError."""
    return Pictures(open_dataset(data).test, preprocess)


def pixel_aurocs(pictures: Pictures | None, found: Mapping[str, Found]) -> dict[str, float | None]:
    """Of every peer that gave maps."""
    if pictures is None:
        return {}
    return {name: pictures.pixel_auroc(Path(each.maps)) for name, each in found.items() if each.maps}


@dataclass(frozen=True)
class Difference:
    """How far scores are from those of a reference, as shares of these.

    Attributes:
        median, largest: over all pictures.
        at: number of the picture that differs most, and both scores, that of the reference second.
    """

    median: float
    largest: float
    at: tuple[int, float, float]


def difference(scores: Sequence[float], reference: Sequence[float]) -> Difference:
    """Raises: ValueError for scores of other pictures, or a reference that holds 0."""
    if not scores or len(scores) != len(reference) or 0 in reference:
        raise ValueError("wanted a score for each of the reference's, and none of these 0")
    shares = [abs(one - other) / abs(other) for one, other in zip(scores, reference, strict=True)]
    number = max(range(len(shares)), key=shares.__getitem__)
    return Difference(statistics.median(shares), shares[number], (number, scores[number], reference[number]))


def differences(found: Mapping[str, Found], reference: str, names: Sequence[str]) -> dict[str, Difference]:
    """Of the peers `names` from the peer `reference`, where both scored."""
    compared = found[reference].scores if reference in found else []
    return {name: difference(found[name].scores, compared) for name in names if compared and found[name].scores}


def told(differing: Mapping[str, Difference], reference: str, of_what: str) -> list[str]:
    """A line for each."""
    lines = []
    for name, each in differing.items():
        number, score, compared = each.at
        shares = f"{each.median * 100:.3g} % at the median and {each.largest * 100:.3g} % at most"
        lines.append(
            f"{name}: scores of {of_what} differ from {reference} by {shares} ({score:.6g} and {compared:.6g}, picture"
            f" {number})"
        )
    return lines


def with_graph(contender: Contender, given: Mapping[str, Any]) -> Contender:
    """The same peer, to score pictures with something else."""
    return replace(contender, given_for_pictures={**contender.given, **given})
