"""`edge-ad compare`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.eval import PIPE_COLUMNS
from edge_ad.cli.extras import require_extra
from edge_ad.cli.option import text_option
from edge_ad.cli.printable import console_on
from edge_ad.cli.progress import watching
from edge_ad.errors import GateError
from edge_ad.validation import read_yaml

if TYPE_CHECKING:
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.bundle.specs import Precision
    from edge_ad.calibration.agreement.document import AgreementAbout, ModelAbout, ReportContent, ThresholdShift
    from edge_ad.calibration.agreement.figures import Agreement
    from edge_ad.calibration.agreement.options import CompareOptions
    from edge_ad.datasets import Dataset
    from edge_ad.runtime.judge.detector import Detector


@click.command(name="compare", short_help="Say how far two models agree.")
@click.argument("a", required=False)
@click.argument("b", required=False)
@text_option("--data", metavar="DIR", help="Data set, or a folder of good images.")
@text_option("--precision-a", metavar="P", help="fp32, fp16 or int8, where the bundle A holds it.")
@text_option("--precision-b", metavar="P", help="The same of B.")
@text_option("--engine-a", metavar="NAME", help="openvino (default) or onnxruntime, for A.")
@text_option("--engine-b", metavar="NAME", help="The same for B.")
@text_option("--threshold", metavar="SCORE", help="Raw score to count label flips at (default: that of A).")
@text_option("-o", "--output", metavar="DIR", help="Folder for report.html, report.json and scores.csv.")
@text_option("--max-flips", metavar="SHARE", help="Share of the images that may change their label (default: 0.002).")
@text_option("--max-auroc-drop", metavar="X", help="How much image AUROC may be lost (default: 0.002).")
@text_option("--max-pixel-auroc-drop", metavar="X", help="How much pixel AUROC may be lost (default: 0.005).")
@text_option("--min-map-correlation", metavar="X", help="Least correlation of the anomaly maps (default: 0.95).")
@text_option("--seed", metavar="N", help="Of the noise that scores are tried with, and of the intervals (default: 0).")
@text_option("--engine-cache", metavar="DIR", help="Folder for compiled models (default: the user's cache folder).")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of a table.")
@click.option("--force", is_flag=True, default=None, help="Replace an earlier report.")
@click.option(
    "-c", "--config", "config", metavar="FILE", help="YAML file with any of these options; the command line wins."
)
def command(config: str | None, as_json: bool, **given: Any) -> None:
    """Judge the images of DIR with the bundles A and B, and check that B agrees with A, the reference.

    A and B may be the same bundle with another precision or engine. DIR is a data set in the layout of MVTec AD,
    VisA or DAGM, of which the test images are judged (the training images where there is no test), or a plain folder of
    good images. The exit code is 0 when B is within the tolerances, and 13 when it is not.

    Label flips are counted at one threshold for both; those of images that camera noise alone could flip are allowed.
    """
    from edge_ad.calibration.agreement.document import report_json
    from edge_ad.calibration.agreement.options import compare_options
    from edge_ad.calibration.evaluation.results import json_bytes

    where = f"compare options ({config})" if config else "compare options"
    options = compare_options(read_yaml(Path(config)) if config else {}, where, given)
    require_extra(
        "edge-ad compare", ("scipy",) if options.output is None else ("scipy", "matplotlib", "jinja2"), "eval"
    )
    content = compare(options)
    if as_json:
        click.echo(json_bytes(report_json(content)).decode(), nl=False)
    else:
        print_agreement(content)
    if options.output is not None:
        click.echo(f"wrote {options.output} (report.html)", err=True)
    if content.breaches:
        where = "give -o DIR for a report" if options.output is None else f"see {options.output / 'report.html'}"
        raise GateError(f"{_models(content)}: {content.why}; {where}")


def compare(options: CompareOptions) -> ReportContent:
    """Compare two models, and write the report where one is wanted.

    Returns: what the report says.

    Raises: EdgeAdError; then nothing has been written.
    """
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.calibration.agreement.answers import collect
    from edge_ad.calibration.agreement.comparable import check_comparable
    from edge_ad.calibration.agreement.compute import agreement
    from edge_ad.calibration.agreement.document import COMPARISON, ReportContent, image_scores
    from edge_ad.calibration.agreement.noise import measure_noise
    from edge_ad.calibration.agreement.tolerances import breaches, statements
    from edge_ad.calibration.agreement.truths import read_truths
    from edge_ad.calibration.evaluation.results_folder import check_folder
    from edge_ad.datasets import open_labelled
    from edge_ad.image.inspected import inspector_of
    from edge_ad.runtime.host.opencv import load_cv2

    if options.output is not None:
        check_folder(options.output, COMPARISON, force=options.force)
    first = Bundle.read(options.a)
    second = first if options.b == options.a else Bundle.read(options.b)
    notes = check_comparable(first.manifest, second.manifest)
    dataset = open_labelled(
        options.data, "name a data set, good/ and kinds of defects, or good images alone, with --data"
    )
    samples = dataset.test or dataset.train
    labelled = dataset.layout != "plain"
    own = first.thresholds(first.precision(options.precision_a)).image
    threshold = options.threshold if options.threshold is not None else own
    load_cv2()  # before anything else does, so that it is silent, and its absence is said in one line
    watch = watching("judging")
    with ExitStack() as stack:
        detectors = [stack.enter_context(detector) for detector in _detectors(options, first, second)]
        judges = detectors[0].judge, detectors[1].judge
        reference, candidate = (collect(samples, judge, watch) for judge in judges)
        truths = read_truths(samples, first.manifest.preprocess, inspector=inspector_of(first)) if labelled else None
        agreed = agreement(
            reference,
            candidate,
            labelled=labelled,
            threshold=threshold,
            threshold_of="bundle" if options.threshold is None else "given",
            noise=measure_noise(samples, judges[0], reference, seed=options.seed, watch=watch),
            truths=truths,
            seed=options.seed,
        )
        about = _about(options, detectors, dataset)
        pictures = None
        if options.output is not None:
            from edge_ad.calibration.agreement.pictures import draw_pairs, worst_frames

            chosen = worst_frames(reference, candidate, agreed.flips)
            pictures = draw_pairs(chosen, reference, candidate, agreed, judges, labelled=labelled)
    broken = breaches(agreed, options.tolerances)
    shift = _shift(options, second, agreed)
    content = ReportContent(
        title=f"{about.candidate.name} against {about.reference.name}",
        verdict="failed" if broken else "passed",
        why="; ".join(breach.text for breach in broken) or f"every check holds on {agreed.images} images",
        about=about,
        agreement=agreed,
        statements=statements(agreed, options.tolerances),
        breaches=broken,
        scores=image_scores(reference, candidate, labelled=labelled),
        thresholds=shift,
        notes=(*notes, *_notes(about, shift, agreed), *dataset.notes, *(truths.notes if truths is not None else ())),
        pictures=pictures,
    )
    if options.output is not None:
        from edge_ad.calibration.agreement.report import comparison_files
        from edge_ad.calibration.evaluation.results_folder import write_folder

        write_folder(options.output, COMPARISON, comparison_files(content), force=options.force)
    return content


def print_agreement(content: ReportContent) -> None:
    """The checks as a table on standard output, and what else a reader should know."""
    from rich.table import Table
    from rich.text import Text

    from edge_ad.calibration.evaluation.results import shown

    console = console_on(sys.stdout)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    agreed = content.agreement
    table = Table(title=Text(shown(f"{_models(content)}, {agreed.images} images")), title_justify="left")
    for heading in ("check", "seen", "allowed", "holds"):
        table.add_column(heading, overflow="fold")
    for each in content.statements:
        table.add_row(each.name, Text(shown(each.figure)), Text(shown(each.allowed)), "yes" if each.ok else "no")
    console.print(table)
    for flip in agreed.flips:
        how = "within" if flip.within_noise else "beyond"
        scores = f"{flip.reference_score:.6g} to {flip.candidate_score:.6g}"
        console.print(Text(shown(f"flip: {flip.name}: {scores}, {how} the score noise")))
    for lost in agreed.lost:
        console.print(Text(shown(f"not judged: {lost.name}: {lost.reason}")))
    for note in content.notes:
        console.print(Text(shown(f"note: {note}")))
    times = f"{agreed.reference_ms:.1f} ms and {agreed.candidate_ms:.1f} ms"
    console.print(Text(f"engine, median of one image: {times}; threshold {agreed.threshold:.6g}"))


def _detectors(options: CompareOptions, first: Bundle, second: Bundle) -> tuple[Detector, Detector]:
    from edge_ad.runtime.judge.loader import open_detector

    cache = options.engine_cache
    return (
        open_detector(first, engine=options.engine_a, precision=options.precision_a, engine_cache=cache),
        open_detector(second, engine=options.engine_b, precision=options.precision_b, engine_cache=cache),
    )


def _shift(options: CompareOptions, candidate: Bundle, agreed: Agreement) -> ThresholdShift | None:
    """The threshold that the candidate has of its own, where it is another than the one in use."""
    from edge_ad.calibration.agreement.document import ThresholdShift

    own = candidate.thresholds(candidate.precision(options.precision_b)).image
    if options.threshold is not None or own is None or own == agreed.threshold:
        return None
    return ThresholdShift(agreed.threshold, own, "the candidate's own, of its bundle")


def _notes(about: AgreementAbout, shift: ThresholdShift | None, agreed: Agreement) -> list[str]:
    notes = []
    same = (about.reference.sha256, about.reference.engine, about.reference.precision)
    if same == (about.candidate.sha256, about.candidate.engine, about.candidate.precision):
        notes.append("A and B are the same model on the same engine")
    if agreed.threshold_of == "quantile":
        notes.append("A has no threshold, so flips are counted at the 99 % quantile of its scores of good images")
    if shift is not None:
        notes.append(f"B has a threshold of its own, {shift.new:.6g}; flips are counted at {agreed.threshold:.6g}")
    return notes


def _about(options: CompareOptions, detectors: list[Detector], dataset: Dataset) -> AgreementAbout:
    from importlib.metadata import version

    from edge_ad.calibration.agreement.document import AgreementAbout

    if dataset.layout == "plain":
        images = f"{len(dataset.train)} images of a plain folder, all of it"
    elif dataset.test:
        images = f"{len(dataset.test)} test images"
    else:
        images = f"{len(dataset.train)} good images for training, because there is no test"
    names = ("max_flips", "max_auroc_drop", "max_pixel_auroc_drop", "min_map_correlation", "seed")
    return AgreementAbout(
        edge_ad=version("edge-ad"),
        compared_at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        reference=_model(detectors[0], options.precision_a),
        candidate=_model(detectors[1], options.precision_b),
        data=dataset.name,
        images=images,
        options={name: getattr(options, name) for name in names},
    )


def _model(detector: Detector, precision: Precision | None) -> ModelAbout:
    from edge_ad.calibration.agreement.document import ModelAbout

    bundle, provenance = detector.bundle, detector.provenance
    chosen: str = bundle.precision(precision)
    computed = "" if provenance.precision == chosen else f" computed in {provenance.precision}"
    return ModelAbout(bundle.path.resolve().name, bundle.sha256, provenance.engine, chosen + computed)


def _models(content: ReportContent) -> str:
    pair = content.about.candidate, content.about.reference
    return " against ".join(f"{model.name} ({model.precision}, {model.engine})" for model in pair)
