"""The truth about pixels, on the model's grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.calibration.agreement.answers import Pair
from edge_ad.calibration.evaluation.evaluate import Watch
from edge_ad.datasets import MaskArray, Sample, covers_nearly_all, model_mask, read_image, read_mask, swapped_notes
from edge_ad.errors import ImageError
from edge_ad.image.geometry import place
from edge_ad.image.inspected import AS_THEY_ARE, Inspector


@dataclass(frozen=True)
class Truths:
    """The masks of some images, read once for every model that is compared on them.

    Attributes:
        masks: by place of the image, (h, w) bool, True where defective, cut as an answer's anomaly map is; of the
            defective images that have a mask.
        notes: what the user should know of them, one line each.
    """

    masks: Mapping[int, MaskArray]
    notes: tuple[str, ...] = ()

    def of(self, pair: Pair) -> MaskArray | None:
        """(h, w) bool for the pixels of an answer; None where nothing is known of them."""
        if not pair.sample.anomalous:
            return np.zeros(pair.reference.anomaly_map.shape, np.bool_)
        return self.masks.get(pair.index)


def read_truths(
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    watch: Watch = lambda samples: samples,
    inspector: Inspector = AS_THEY_ARE,
) -> Truths:
    """Read the masks of defective images. A picture that cannot be read has none: no model can judge it either.

    Args:
        samples: the images, as they are judged.
        spec: how the model sees a frame.
        inspector: which part of them it sees.

    Raises: ImageError for a mask that is damaged or of another size than its picture.
    """
    masks, full = {}, []
    for index, sample in enumerate(watch(samples)):
        if not sample.anomalous or sample.mask is None:
            continue
        try:
            image = read_image(sample)
            box = inspector.place(image).box
        except ImageError:
            continue
        x_min, y_min, x_max, y_max = place(spec, (box[3] - box[1], box[2] - box[0])).content_box
        truth = read_mask(sample, (image.shape[0], image.shape[1]))
        if covers_nearly_all(truth):
            full.append(sample.mask)
        mask = model_mask(truth, spec, box)
        masks[index] = mask[y_min:y_max, x_min:x_max].copy()
    return Truths(masks, tuple(swapped_notes(full)))
