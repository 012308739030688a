"""`edge-ad eval`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.extras import require_extra
from edge_ad.cli.option import text_option
from edge_ad.cli.printable import console_on
from edge_ad.cli.progress import watching
from edge_ad.errors import MissingExtraError, SourceError

if TYPE_CHECKING:
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.calibration.evaluation.figures import Figures
    from edge_ad.calibration.evaluation.noise_seeds import NoiseSpread
    from edge_ad.calibration.evaluation.options import EvalOptions
    from edge_ad.calibration.evaluation.results import About
    from edge_ad.datasets import Dataset
    from edge_ad.record.verdict import Provenance

PIPE_COLUMNS = 120  # width of the tables where no terminal sets one
WORST = 6  # missed defects in the report, and as many false alarms


@click.command(name="eval", short_help="Measure a bundle or a training run on labelled images.")
@click.argument("model", metavar="BUNDLE_OR_RUN")
@click.argument("data", required=False)
@text_option("--good", metavar="DIR", help="Folder of good images, in place of DATA; a fixed fifth of them is tested.")
@text_option("--bad", metavar="DIR", help="Folder of defective images; its subfolders are the kinds of defect.")
@text_option("--masks", metavar="DIR", help="Folder of masks of the defective images.")
@text_option("-o", "--output", metavar="DIR", help="Folder for the results (default: eval-<name of the model>).")
@text_option("--engine", metavar="NAME", help="openvino (default) or onnxruntime.")
@text_option("--precision", metavar="P", help="fp32, fp16 or int8, where the bundle holds it.")
@text_option("--threshold", metavar="SCORE", help="Raw score to count mistakes at (default: the bundle's).")
@text_option(
    "--protocol",
    metavar="KIND",
    help="none (default), or study: half of the images choose the threshold, the others report.",
)
@text_option("--seed", metavar="N", help="Which halves (default: 0).")
@text_option(
    "--noise-seeds",
    metavar="N",
    help="Judge with N other draws of the noise too, where the graph holds some: how far scores spread.",
)
@text_option("--engine-cache", metavar="DIR", help="Folder for compiled models (default: the user's cache folder).")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON instead of a table.")
@click.option("--force", is_flag=True, default=None, help="Replace earlier results.")
def command(as_json: bool, **given: Any) -> None:
    """Judge the test images of DATA with BUNDLE_OR_RUN, and measure how well defective ones are told from good ones.

    DATA is a folder in the layout of MVTec AD, VisA or DAGM. The results folder gets report.html, results.json,
    scores.csv and the curves. Pixel figures are taken at the model's size, of the images that have a mask.
    """
    from edge_ad.calibration.evaluation.options import eval_options
    from edge_ad.calibration.evaluation.results import json_bytes

    options = eval_options(given, "eval options")
    require_extra("edge-ad eval", ("scipy", "matplotlib", "jinja2"), "eval")
    if options.noise_seeds:
        require_extra("--noise-seeds", ("onnx",), "export")
    content, figures = evaluate(options)
    if as_json:
        click.echo(json_bytes(content).decode(), nl=False)
    else:
        print_figures(figures, content["notes"])
    click.echo(f"wrote {options.folder} (report.html)", err=True)


def evaluate(options: EvalOptions) -> tuple[dict[str, Any], Figures]:
    """Evaluate and write the results folder.

    Returns: the content of results.json, and the figures behind it.

    Raises: EdgeAdError; then nothing has been written.
    """
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.calibration.evaluation.evaluate import judge_images
    from edge_ad.calibration.evaluation.figures import ThresholdSource, measure
    from edge_ad.calibration.evaluation.noise_seeds import noise_of
    from edge_ad.calibration.evaluation.pictures import draw_mistakes, heat_range, worst
    from edge_ad.calibration.evaluation.report import report_html
    from edge_ad.calibration.evaluation.results import (
        REPORT,
        RESULTS,
        SCORES,
        check_results_folder,
        curve_csvs,
        json_bytes,
        results_json,
        scores_csv,
        write_results,
    )
    from edge_ad.runtime.host.opencv import load_cv2
    from edge_ad.runtime.judge.loader import open_detector

    check_results_folder(options.folder, force=options.force)
    dataset = options.dataset
    if not dataset.test:
        raise SourceError(f"data {dataset.name}: no test image; {'; '.join(dataset.notes) or 'wanted some'}")
    load_cv2()  # before anything else does, so that it is silent, and its absence is said in one line
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-ad-eval-")))
        bundle = Bundle.read(bundle_of(options.model, scratch))
        if options.noise_seeds:
            noise_of(bundle, 0)  # refused before any image is judged
        detector = stack.enter_context(
            open_detector(bundle, engine=options.engine, precision=options.precision, engine_cache=options.engine_cache)
        )
        judged = judge_images(
            dataset.test,
            detector.judge,
            bundle.manifest.preprocess,
            protocol=options.protocol,
            seed=options.seed,
            watch=watching("judging"),
        )
        thresholds: dict[ThresholdSource, float] = {}
        if options.threshold is not None:
            thresholds["given"] = options.threshold
        own = bundle.thresholds(bundle.precision(options.precision)).image
        if own is not None:
            thresholds["bundle"] = own
        figures = measure(judged, thresholds)
        mistakes = draw_mistakes(worst(figures, WORST), detector.judge, heat_range(figures))
        about = _about(options, bundle, detector.provenance, dataset)
        spread = _spread(options, bundle, dataset, scratch) if options.noise_seeds else None
    notes = [*figures.notes, *dataset.notes, *_training_notes(options.model)]
    notes += [] if spread is None else spread.lines
    content = results_json(about, judged.results, figures, notes)
    if spread is not None:
        content["noise"] = spread.content
    files = {
        RESULTS: json_bytes(content),
        SCORES: scores_csv(judged.results, about.model_sha256),
        REPORT: report_html(about, judged.results, figures, mistakes, notes),
        **curve_csvs(figures),
    }
    write_results(options.folder, files, force=options.force)
    return content, figures


def _spread(options: EvalOptions, bundle: Bundle, dataset: Dataset, scratch: Path) -> NoiseSpread:
    """How scores spread over other draws of the noise."""
    from edge_ad.calibration.evaluation.evaluate import ImageResult, judge_images
    from edge_ad.calibration.evaluation.noise_seeds import noise_spread, redrawn
    from edge_ad.runtime.judge.loader import open_detector

    def results(drawn: Bundle) -> tuple[ImageResult, ...]:
        with open_detector(drawn, engine=options.engine, engine_cache=drawn.path.parent / "engines") as detector:
            return judge_images(
                dataset.test, detector.judge, drawn.manifest.preprocess, watch=watching("judging with other noise")
            ).results

    precision = bundle.precision(options.precision)
    return noise_spread(redrawn(bundle, precision, options.noise_seeds, scratch), results)


def bundle_of(path: Path, scratch_dir: Path) -> Path:
    """The bundle at `path`; for a training run, one that is exported from it into `scratch_dir`.

    Raises: EdgeAdError when the run cannot be exported.
    """
    from edge_ad.training_run import is_run

    if not is_run(path):
        return path
    try:
        from edge_ad.export.options import export_options
        from edge_ad.export.to_bundle import export_bundle
    except ImportError as exc:
        raise MissingExtraError("evaluating a training run", exc.name or "torch", "export") from exc
    values = {"checkpoint": path, "output": scratch_dir / f"{path.resolve().name}.edgead"}
    return export_bundle(export_options(values, f"run {path}")).path


def _training_notes(model: Path) -> list[str]:
    """What a reader has to know of the training that a run came from."""
    from edge_ad.training_run import BY_LABELS, is_run, read_run

    best = read_run(model).best if is_run(model) else None
    if best is None or best.rule != BY_LABELS:
        return []
    return [f"epoch {best.epoch} was kept by {best.rule}: on the same pictures these figures are too good"]


def print_figures(figures: Figures, notes: Iterable[str]) -> None:
    """The figures as tables on standard output."""
    from rich.table import Table
    from rich.text import Text

    from edge_ad.calibration.evaluation.report import figure_text
    from edge_ad.calibration.evaluation.results import shown

    console = console_on(sys.stdout)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    if figures.warning is not None:
        console.print(Text(f"warning: {figures.warning}"))
    overall = Table(title=f"{len(figures.results)} images", title_justify="left")
    for heading in ("", "AUROC", "AP", "PRO"):
        overall.add_column(heading, justify="right" if heading else "left")
    overall.add_row("image", figure_text(figures.auroc), figure_text(figures.average_precision), "")
    pixels = figures.pixels
    overall.add_row("pixel", *(figure_text(value) for value in (pixels.auroc, pixels.average_precision, pixels.pro)))
    console.print(overall)
    chosen = Table(title="thresholds", title_justify="left")
    for heading in ("", "score", "F1", "precision", "recall", "accuracy", "found", "false alarms"):
        chosen.add_column(heading, justify="right" if heading else "left")
    for source, done in figures.operations.items():
        values = (figure_text(value) for value in (done.f1, done.precision, done.recall, done.accuracy))
        counts = f"{done.hits} of {done.defective}", f"{done.false_alarms} of {done.good}"
        chosen.add_row(source.replace("_f1", " F1"), f"{done.threshold:.6g}", *values, *counts)
    if figures.operations:
        console.print(chosen)
    kinds = Table(title="kinds of defect, each against the good images", title_justify="left")
    for heading in ("", "images", "AUROC", "AP", "found", "pixel AUROC", "pixel AP", "PRO"):
        kinds.add_column(heading, justify="right" if heading else "left")
    for kind in figures.types:
        of_pixels: tuple[float | None, ...] = (None, None, None)
        if kind.pixels is not None:
            of_pixels = (kind.pixels.auroc, kind.pixels.average_precision, kind.pixels.pro)
        found = "–" if kind.at_threshold is None else f"{kind.at_threshold.hits} of {kind.at_threshold.defective}"
        ranks = (figure_text(kind.auroc), figure_text(kind.average_precision), found)
        kinds.add_row(Text(shown(kind.defect)), str(kind.images), *ranks, *map(figure_text, of_pixels))
    if figures.types:
        console.print(kinds)
    for note in notes:
        console.print(Text(f"note: {note}"))


def _about(options: EvalOptions, bundle: Bundle, provenance: Provenance, dataset: Dataset) -> About:
    from importlib.metadata import version

    from edge_ad.calibration.evaluation.results import About, shown

    manifest = bundle.manifest
    return About(
        edge_ad=version("edge-ad"),
        evaluated_at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        bundle=shown(options.model.resolve().name),
        bundle_sha256=bundle.sha256,
        model_sha256=manifest.files[bundle.model_file(bundle.precision(options.precision))],
        score=manifest.postprocess.score,
        input_hw=manifest.preprocess.size_hw,
        engine=provenance.engine,
        precision=provenance.precision,
        data=shown(dataset.name),
        layout=dataset.layout,
        protocol=options.protocol,
        seed=options.seed,
    )
