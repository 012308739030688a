"""How far scores move with the noise of a camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_ad.calibration.agreement.answers import Answer, Answers, Lost, answer_of
from edge_ad.calibration.agreement.figures import ScoreNoise
from edge_ad.calibration.evaluation.evaluate import Judge, Watch
from edge_ad.datasets import Sample
from edge_ad.image.frame import ImageArray

GREY_LEVELS = 2
QUANTILE = 0.95


def measure_noise(
    samples: Sequence[Sample],
    judge: Judge,
    answers: Answers,
    *,
    grey_levels: int = GREY_LEVELS,
    seed: int = 0,
    limit: int = 100,
    watch: Watch = lambda samples: samples,
) -> ScoreNoise:
    """Judge images once more with noise on every pixel, and see how far their scores move.

    Two grey levels, because a camera does at least that by itself: a pixel whose full well of 10,000 electrons is
    8 bits wide holds 5,000 at mid-grey, whose shot noise of √5000 electrons is 1.8 grey levels (standard deviation);
    whole numbers from -2 to 2, all as likely, have 1.41. A verdict that such noise turns over would not be the same in
    the camera's next frame. The noise is added to the frame as it was read, before it is resized.

    Args:
        samples: the images.
        judge: the one that gave `answers`.
        answers: to these images; those without an answer are left out.
        grey_levels: largest change of a pixel, 0..255.
        seed: of the noise; each image has its own.
        limit: how many images to try at most, evenly chosen.

    Returns: the noise; 0 of 0 images when none could be judged with noise.

    Raises: EngineError; ValueError for grey levels or a limit that are none.
    """
    if not 0 <= grey_levels <= 255 or limit < 1:
        raise ValueError(f"wanted 0..255 grey levels and at least 1 image, got {grey_levels} and {limit}")
    judged = [(index, answer) for index, answer in enumerate(answers.answers) if answer is not None]
    chosen = [judged[place] for place in evenly(len(judged), limit)]
    changes = []
    shown = watch([samples[index] for index, _ in chosen])
    for (index, answer), sample in zip(chosen, shown, strict=True):
        again = _judged_with_noise(
            answers.names[index], sample, judge, grey_levels, np.random.default_rng([seed, index])
        )
        if isinstance(again, Answer):
            changes.append(abs(again.score - answer.score))
    return ScoreNoise(float(np.quantile(changes, QUANTILE)) if changes else 0.0, grey_levels, len(changes))


def with_noise(image_hwc: ImageArray, grey_levels: int, rng: np.random.Generator) -> ImageArray:
    """The image with a whole number from -`grey_levels` to `grey_levels` added to each value, clipped to 0..255."""
    noise = rng.integers(-grey_levels, grey_levels, image_hwc.shape, np.int16, endpoint=True)
    return np.clip(noise + image_hwc, 0, 255).astype(np.uint8)


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` places, evenly spread from the first to the last."""
    if count <= limit:
        return list(range(count))
    return [round(place) for place in np.linspace(0, count - 1, limit)]


def _judged_with_noise(
    name: str, sample: Sample, judge: Judge, grey_levels: int, rng: np.random.Generator
) -> Answer | Lost:
    return answer_of(name, sample, lambda image: judge(with_noise(image, grey_levels, rng)))
