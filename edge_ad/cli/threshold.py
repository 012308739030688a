"""`edge-ad threshold`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import click

from edge_ad.cli.extras import require_extra
from edge_ad.cli.option import text_option
from edge_ad.cli.progress import watching
from edge_ad.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.bundle.specs import Precision, ThresholdOrigin, Thresholds
    from edge_ad.calibration.evaluation.options import ThresholdOptions
    from edge_ad.datasets import Dataset, Sample
    from edge_ad.image.learned_limits import Learned

Images = Literal["test", "train", "scores"]


@click.command(name="threshold", short_help="Choose a bundle's threshold on images or scores.")
@click.argument("bundle")
@click.argument("data", required=False)
@text_option("-o", "--output", metavar="NEW", help="Directory of the bundle to write.")
@click.option("--in-place", is_flag=True, default=None, help="Replace BUNDLE instead.")
@text_option("--scores", metavar="FILE", help="scores.csv of 'edge-ad eval', in place of images.")
@text_option("--good", metavar="DIR", help="Folder of good images, in place of DATA.")
@text_option("--bad", metavar="DIR", help="Folder of defective images.")
@text_option("--masks", metavar="DIR", help="Folder of masks; they are not read here.")
@text_option("--rule", metavar="RULE", help="best-f1, quantile (of good scores) or false-alarm (rate among good ones).")
@text_option("--quantile", metavar="Q", help="Share of the good images below the threshold (default: 0.99).")
@text_option("--rate", metavar="R", help="Wanted share of good images at or above the threshold (default: 0.01).")
@text_option("--value", metavar="SCORE", help="The threshold itself, in place of a rule; images are then optional.")
@text_option("--engine", metavar="NAME", help="openvino (default) or onnxruntime.")
@text_option("--precision", metavar="P", help="fp32, fp16 or int8, where the bundle holds it.")
@text_option("--engine-cache", metavar="DIR", help="Folder for compiled models (default: the user's cache folder).")
@click.option("--force", is_flag=True, default=None, help="Replace an existing bundle at NEW.")
def command(**given: Any) -> None:
    """Choose the score from which on BUNDLE calls a frame anomalous, and write it into a new bundle.

    best-f1 needs good and defective images, the other rules good ones alone. The manifest says how the threshold was
    chosen and which share of false alarms to expect. Good images also teach the bundle which frames are too blurred, or
    too dark, to be judged; nothing else in it changes. The threshold is that of the
    precision that judged; the others keep theirs.
    """
    from edge_ad.bundle.bundle import Bundle, check_destination, write_changed
    from edge_ad.calibration.evaluation.options import threshold_options
    from edge_ad.calibration.evaluation.thresholds import choose_threshold

    options = threshold_options(given, "threshold options")
    require_extra("edge-ad threshold", ("scipy",), "eval")
    bundle = Bundle.read(options.bundle)
    check_destination(options.destination, replace=options.replaces)
    learned = _learned(options, bundle)  # before anything is judged: dark frames may be how the line looks
    if learned is not None:
        bundle = bundle.with_usability(learned.limits)
    scores, truth, images, precision = _scores(options, bundle)
    bundle.model_file(precision)  # raises where the bundle holds none
    value, origin = choose_threshold(options.request, scores, truth, bundle.manifest.postprocess.scores[1])
    chosen = replace(bundle.thresholds(precision), image=value, image_origin=replace(origin, images=images))
    written = write_changed(bundle, options.destination, _changes(bundle, precision, chosen), replace=options.replaces)
    notes = [f"note: {note}" for note in (options.dataset.notes if options.dataset is not None else ())]
    notes += learned.notes if learned is not None else ()
    for line in (*notes, *describe(value, origin), *_whose(written, precision)):
        click.echo(line, err=True)
    click.echo(str(written.path))


def _learned(options: ThresholdOptions, bundle: Bundle) -> Learned | None:
    """Limits for unusable frames from all good images, those of the training included; None without any."""
    from edge_ad.calibration.evaluation.usability import learned_from
    from edge_ad.image.inspected import inspector_of
    from edge_ad.runtime.host.opencv import load_cv2

    dataset = options.dataset
    if dataset is None:
        return None
    load_cv2()
    samples, spec = (*dataset.train, *dataset.test), bundle.manifest.preprocess
    learned = learned_from(samples, spec, watching("good images"), inspector_of(bundle))
    return learned if learned.limits.images else None


def describe(value: float, origin: ThresholdOrigin) -> list[str]:
    """What was chosen and what to expect of it, one line each."""
    seen = f"{origin.good_images} good and {origin.defective_images} defective images"
    lines = [f"threshold {value:.6g} by {origin.rule}, on {seen}"]
    if origin.f1 is not None:
        lines.append(
            f"on these: F1 {origin.f1:.3f}, precision {_text(origin.precision)}, recall {_text(origin.recall)}"
        )
    if origin.false_alarm_rate is not None and origin.interval is not None and origin.confidence is not None:
        low, high = origin.interval
        lines.append(
            f"false alarms to expect: {origin.false_alarm_rate:.2%} of good images"
            f" ({low:.2%} to {high:.2%} with {origin.confidence:.0%} confidence)"
        )
    if origin.rule == "quantile" and origin.false_alarm_rate == 0:
        lines.append(
            f"note: quantile {origin.quantile:g} of {origin.good_images} scores lies above the highest of them, so the"
            " threshold stands on its distance to the next; more good images would tell more"
        )
    return lines


def _changes(bundle: Bundle, precision: Precision, chosen: Thresholds) -> dict[str, Any]:
    """What has to change in the manifest for one precision to get thresholds and the others to keep what they have."""
    manifest = bundle.manifest
    if precision != "fp32":
        return {"precision_thresholds": manifest.precision_thresholds | {precision: chosen}}
    # Those without their own have used the one of fp32 so far, if it had one.
    others = {other: bundle.thresholds(other) for other in manifest.models if other != "fp32"}
    kept = {other: thresholds for other, thresholds in others.items() if thresholds.image is not None}
    return {"thresholds": chosen, "precision_thresholds": kept}


def _whose(written: Bundle, precision: Precision) -> list[str]:
    """Whose threshold it is, and what the others have; nothing where the bundle holds one precision."""
    others = ((other, written.thresholds(other).image) for other in written.manifest.models if other != precision)
    texts = [f"{other} has {'none' if image is None else format(image, '.6g')}" for other, image in others]
    return [f"this is the threshold of {precision}; {', '.join(texts)}"] if texts else []


def _scores(options: ThresholdOptions, bundle: Bundle) -> tuple[list[float], list[bool], Images | None, Precision]:
    """Scores, truth, which images they are of, and which precision they are of. Raises: ConfigError, SourceError."""
    from edge_ad.calibration.evaluation.results import read_scores

    precision = bundle.precision(options.precision)
    if options.scores is None:
        dataset = options.dataset
        judged = ([], [], None) if dataset is None else _judged(options, bundle, precision, dataset)
        return (*judged, precision)
    scores, truth, lost, models = read_scores(options.scores)
    if lost:
        click.echo(f"note: {lost} images of {options.scores} were not judged and count nowhere", err=True)
    if models:
        precision = _precision_of(models, options, bundle)
    return scores, truth, "scores", precision


def _precision_of(models: set[str], options: ThresholdOptions, bundle: Bundle) -> Precision:
    """Precision of the bundle's model that scores name by its hash.

    Raises: ConfigError for scores of another model, of several, or of another precision than the wanted one.
    """
    manifest, wanted = bundle.manifest, options.precision
    if not models <= {manifest.files[file] for file in manifest.models.values()}:
        fault = f"these are scores of another model than that of {bundle.path}; evaluate that bundle"
        raise ConfigError(str(options.scores), [fault])
    named = [precision for precision, file in manifest.models.items() if manifest.files[file] in models]
    if len(models) > 1:
        raise ConfigError(str(options.scores), [f"wanted scores of one model, got those of {' and '.join(named)}"])
    if wanted is not None and wanted not in named:
        raise ConfigError(str(options.scores), [f"wanted scores of {wanted}, these are of {named[0]}"])
    return wanted or named[0]


def _judged(
    options: ThresholdOptions, bundle: Bundle, precision: Precision, dataset: Dataset
) -> tuple[list[float], list[bool], Images]:
    from edge_ad.calibration.evaluation.evaluate import judge_images
    from edge_ad.runtime.host.opencv import load_cv2
    from edge_ad.runtime.judge.loader import open_detector

    samples, images = _chosen(options, dataset)
    load_cv2()
    with open_detector(
        bundle, engine=options.engine, precision=precision, engine_cache=options.engine_cache
    ) as detector:
        # Masks decide nothing about the score of an image, so they are not read.
        bare = [replace(sample, mask=None) for sample in samples]
        judged = judge_images(bare, detector.judge, bundle.manifest.preprocess, watch=watching("judging"))
    for result in judged.results:
        if result.score is None:
            click.echo(f"note: {result.name} was not judged and counts nowhere: {result.reason}", err=True)
    scored = [(result.score, result.sample.anomalous) for result in judged.results if result.score is not None]
    if not scored:
        raise SourceError(f"data {dataset.name}: none of {len(samples)} images could be judged")
    return [score for score, _ in scored], [anomalous for _, anomalous in scored], images


def _chosen(options: ThresholdOptions, dataset: Dataset) -> tuple[list[Sample], Images]:
    """The images that the rule looks at: of the test where it has them, else good ones of the training."""
    test = list(dataset.test)
    if options.rule in (None, "best-f1"):
        if not test:
            raise SourceError(f"data {dataset.name}: no test image; {'; '.join(dataset.notes) or 'wanted some'}")
        return test, "test"
    good = [sample for sample in test if not sample.anomalous]
    if good:
        return good, "test"
    click.echo(
        "note: if the training saw these good images, they score too low, and there will be more false alarms than said"
        " here",
        err=True,
    )
    return list(dataset.train), "train"


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
