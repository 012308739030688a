"""One configuration, trained on a trial's pictures and judged on those that were held out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ad.errors import EdgeAdError

if TYPE_CHECKING:
    from edge_ad.calibration.choose.candidates import Candidate
    from edge_ad.calibration.choose.rule import Tried
    from edge_ad.datasets import Sample
    from edge_ad.models.progress import Progress


def try_out(
    candidate: Candidate, given: Mapping[str, Any], scratch: Path, where: str, progress: Progress, *, drawn: bool
) -> Tried:
    """Train a candidate and judge labelled pictures.

    Args:
        given: options of every training, with the pictures.
        scratch: folder for the run and its bundle.
        where: what messages call the options.
        drawn: whether defective pictures have the file names of the good ones that they were drawn on.

    Raises: EdgeAdError.
    """
    from edge_ad.calibration.choose.candidates import options_of
    from edge_ad.calibration.choose.rule import Judgement, Tried
    from edge_ad.calibration.evaluation.evaluate import judge_images
    from edge_ad.calibration.evaluation.figures import measure
    from edge_ad.cli.eval import bundle_of
    from edge_ad.image.frame import ImageArray
    from edge_ad.models import model_family
    from edge_ad.models.progress import Progress
    from edge_ad.record.verdict import Verdict
    from edge_ad.runtime.host.opencv import load_cv2
    from edge_ad.runtime.judge.loader import open_detector

    began = time.monotonic()
    run = scratch / candidate.name
    family = model_family(candidate.family)
    values = {**options_of(candidate, given), "output": str(run)}
    family.train(values, where, Progress(lambda line: None, progress.begin, progress.step))
    test = family.train_options.checked(values, where).dataset().test
    load_cv2()
    times_ms: list[float] = []

    def watch(samples: Iterable[Sample]) -> Iterator[Sample]:
        progress.begin(f"judging with {candidate.name}", len(test))
        for sample in samples:
            yield sample
            progress.step("")

    with open_detector(bundle_of(run, scratch), engine_cache=scratch / "engines") as detector:

        def judge(image_hwc: ImageArray) -> Verdict:
            verdict = detector.judge(image_hwc)
            times_ms.append(sum(verdict.timings_ms.values()))
            return verdict

        judged = judge_images(test, judge, detector.bundle.manifest.preprocess, watch=watch)
    figures = measure(judged, {})
    if figures.auroc is None:
        raise EdgeAdError(f"{candidate.name}: no good, or no defective picture could be judged")
    judgements = tuple(
        Judgement(Path(one.name).stem if drawn else one.name, one.sample.anomalous, one.score)
        for one in judged.results
        if one.score is not None
    )
    pixel, took_s = figures.pixels.auroc, time.monotonic() - began
    return Tried(candidate.name, pixel, statistics.median(times_ms), took_s, judgements)
