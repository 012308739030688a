"""What `edge-ad learn` does to a bundle: the pictures that it learns, their like, all others, and a frame's time.

    python benchmarks/learned.py BUNDLE DATA [--rejected 3]

The threshold is put where that many good test pictures of DATA (in the layout of MVTec AD) are rejected. Views stand
for the next photographs of the same parts: moved by up to 4 pixels, up to 3 % brighter or darker, with noise of 2 grey
levels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
from interleaved import medians_ms, print_table

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import Thresholds
from edge_ad.calibration.learn.learn import learn
from edge_ad.calibration.learn.options import LearnOptions
from edge_ad.calibration.learn.pictures import Judged, scores_of
from edge_ad.calibration.tools import Tools
from edge_ad.cli.judging import judging_tools
from edge_ad.datasets import open_dataset, read_image
from edge_ad.image.frame import ImageArray
from edge_ad.runtime.judge.loader import open_detector

VIEWS, MOVED, BRIGHTER, NOISE = 8, 4, 0.03, 2.0


def views(image_hwc: ImageArray, rng: np.random.Generator) -> list[ImageArray]:
    """Other photographs of the same part."""
    found = []
    for _ in range(VIEWS):
        moved = np.roll(image_hwc, tuple(rng.integers(-MOVED, MOVED + 1, 2)), axis=(0, 1))
        changed = moved * rng.uniform(1 - BRIGHTER, 1 + BRIGHTER) + rng.normal(0, NOISE, moved.shape)
        found.append(np.clip(changed, 0, 255).astype(np.uint8))
    return found


def taught(bundle: Bundle, pictures: list[Judged], folder: Path, tools: Tools) -> Bundle:
    """The bundle that has learned pictures."""
    good = folder / "good"
    good.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        source = picture.sample.image
        (good / f"{number}{source.suffix}").write_bytes(source.read_bytes())
    told = LearnOptions(bundle=bundle.path, output=folder / "learned.edgead", good=good)
    made = learn(bundle, told, tools)
    return write_changed(bundle, told.destination, made.changes, files=made.files, without=made.without)


def rejected_share(bundle: Bundle, images: list[ImageArray]) -> float:
    with open_detector(bundle, precision="fp32") as detector:
        return float(np.mean([detector.judge(image).verdict == "anomalous" for image in images]))


@click.command(help=__doc__.split("\n")[0])
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--rejected", default=3, help="Good pictures above the threshold.")
@click.option("--rounds", default=25)
def main(bundle: Path, data: Path, rejected: int, rounds: int) -> None:
    opened, dataset = Bundle.read(bundle), open_dataset(data)
    good = [sample for sample in dataset.test if not sample.anomalous]
    bad = [sample for sample in dataset.test if sample.anomalous]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tools = judging_tools(opened, "openvino", None, "fp32")
        with tools.open_float() as judge:
            before = scores_of(good, judge, tools, "good")
            defects = scores_of(bad, judge, tools, "bad")
        ranked = sorted(before, key=lambda found: -found.score)
        threshold = (ranked[rejected - 1].score + ranked[rejected].score) / 2
        start = write_changed(opened, folder / "start.edgead", {"thresholds": Thresholds(threshold)})
        pictures = ranked[:rejected]
        learned = taught(start, pictures, folder / "all", tools)
        with open_detector(learned, precision="fp32") as detector:
            after = scores_of(good, detector.judge, tools, "good")
            defects_after = scores_of(bad, detector.judge, tools, "bad")
        lesson = learned.manifest.learned[0]
        risen = sum(new.score > old.score * (1 + 1e-6) for old, new in zip(before, after, strict=True))
        recall = [float(np.mean([found.score >= threshold for found in side])) for side in (defects, defects_after)]
        print(
            f"threshold {threshold:.6g}: {rejected} of {len(good)} good pictures are rejected, recall {recall[0]:.3f}"
        )
        print(
            f"learned {len(lesson.pictures)} pictures, {lesson.patches} patches; {risen} of {len(good)} good ones rose"
        )
        print(f"rejected afterwards: {sum(found.score >= threshold for found in after)}; recall {recall[1]:.3f}")
        rng = np.random.default_rng(0)
        others = [view for picture in pictures for view in views(read_image(picture.sample), rng)]
        print(
            f"views rejected: {rejected_share(start, others):.0%} before, {rejected_share(learned, others):.0%} after"
        )
        alike = []
        for number, picture in enumerate(pictures):
            rest = [other for other in pictures if other is not picture]
            without = taught(start, rest, folder / f"without{number}", tools)
            alike.append(rejected_share(without, [read_image(picture.sample)]))
        print(f"rejected after a lesson of the {rejected - 1} others: {sum(alike):.0f} of {rejected}")
        frame = read_image(good[0])
        with open_detector(start, precision="fp32") as one, open_detector(learned, precision="fp32") as other:
            medians = medians_ms(
                {"before": lambda: one.judge(frame), "after": lambda: other.judge(frame)}, rounds=rounds
            )
        print_table(medians, "before")


if __name__ == "__main__":
    main()
