"""Good images → from what on a frame of their line shows too little to be judged."""

from __future__ import annotations

from collections.abc import Sequence

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.calibration.evaluation.evaluate import Watch
from edge_ad.datasets import Sample, read_image
from edge_ad.errors import ImageError
from edge_ad.image.inspected import AS_THEY_ARE, Inspector
from edge_ad.image.learned_limits import Learned, learn_limits, looks_of
from edge_ad.image.preprocess import Preprocessor

MOST_IMAGES = 256  # more would only cost time


def learned_from(
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    watch: Watch = lambda samples: samples,
    inspector: Inspector = AS_THEY_ARE,
) -> Learned:
    """Learn limits from the good ones of some images; those that cannot be looked at are left to whoever judges them.

    Args:
        samples: images; of very many good ones, some that are spread evenly over them are looked at.
        spec: how the model sees a frame.
        watch: passes the samples on and may show how far they are.
        inspector: which part of them the model sees.
    """
    good = [sample for sample in samples if not sample.anomalous]
    count = min(len(good), MOST_IMAGES)
    chosen = [good[index * len(good) // count] for index in range(count)]
    preprocess = Preprocessor(spec)
    looks = []
    try:
        for sample in watch(chosen):
            try:
                looked = inspector.look(preprocess, read_image(sample))
            except ImageError:
                continue
            if looked.reason is None:
                looks.append(looks_of(looked.model_input))
    finally:
        preprocess.close()
    return learn_limits(looks)
