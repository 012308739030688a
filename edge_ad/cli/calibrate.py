"""`edge-ad calibrate`, and the part of `edge-ad export --quantize` that follows the export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.extras import require_extra
from edge_ad.cli.judging import judging_tools
from edge_ad.cli.option import text_option
from edge_ad.cli.progress import watching
from edge_ad.errors import ConfigError, os_reason
from edge_ad.validation import read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_ad.calibration.quantize.options import QuantizeOptions
    from edge_ad.calibration.quantize.quantized import Quantized

MODULES = ("onnx", "onnxruntime")
REPORT_MODULES = ("scipy", "matplotlib", "jinja2")
NO_GATE = ("fake", "tensorrt")
"""Engines that compute no graph, so that any two agree, or none but what was built before."""


def quantize_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `calibrate` and `export --quantize` share."""
    for option in reversed(
        (
            text_option(
                "--data", metavar="DIR", help="Good images to calibrate on: a folder, or a data set's training."
            ),
            text_option(
                "--val",
                metavar="DIR",
                help="Images for the gate: a data set, or good/ and kinds of defects (default: a fifth of --data).",
            ),
            text_option("--ranges", metavar="HOW", help="min-max (default), percentile, entropy or mse."),
            text_option("--images", metavar="N", help="How many images calibrate at most (default: 512)."),
            text_option("--seed", metavar="N", help="Of the draw of images, and of the gate (default: 0)."),
            text_option(
                "--gate",
                metavar="MODE",
                help="enforce (default): hold the tolerances or fail; report: look, and write in any case; off.",
            ),
            text_option(
                "--engine", metavar="NAME", help="That the gate runs on (default: openvino; fp16: onnxruntime)."
            ),
            text_option("--max-flips", metavar="SHARE", help="Images that may change their label (default: 0.002)."),
            text_option("--max-auroc-drop", metavar="X", help="How much image AUROC may be lost (default: 0.002)."),
            text_option("--max-pixel-auroc-drop", metavar="X", help="The same of pixel AUROC (default: 0.005)."),
            text_option("--min-map-correlation", metavar="X", help="Least correlation of the maps (default: 0.95)."),
            text_option("--calibration-cache", metavar="DIR", help="Folder for calibrations (default: the user's)."),
            text_option("--engine-cache", metavar="DIR", help="Folder for compiled models (default: the user's)."),
        )
    ):
        command = option(command)
    return command


@click.command(name="calibrate", short_help="Give a bundle an int8 or fp16 model that is proven on images.")
@click.argument("bundle", required=False)
@text_option("-o", "--output", metavar="NEW", help="Directory of the bundle to write.")
@click.option("--in-place", is_flag=True, default=None, help="Replace BUNDLE instead.")
@text_option("--quantize", metavar="P", help="int8 (default) or fp16.")
@quantize_flags
@click.option("--force", is_flag=True, default=None, help="Replace an existing bundle.")
@click.option(
    "-c", "--config", "config", metavar="FILE", help="YAML file with any of these options; the command line wins."
)
def command(config: str | None, **given: Any) -> None:
    """Quantize BUNDLE's float model on good images, and compare the two on images that were held out.

    Where the quantized model is not within the tolerances, the layers that cost most go back to float one after
    another until it is. If it cannot be, the exit code is 13, nothing is written but a report, and BUNDLE stays as it
    is. A bundle that does not know yet which frames are too blurred to be judged learns it from the same good images.
    The new bundle holds both models; 'edge-ad run' takes the quantized one when the gate has passed.
    """
    from edge_ad.calibration.quantize.options import quantize_options

    where = f"calibrate options ({config})" if config else "calibrate options"
    options = quantize_options(read_yaml(Path(config)) if config else {}, where, given)
    quantize(options)
    click.echo(str(options.destination))


def quantize(options: QuantizeOptions) -> None:
    """Read the bundle, quantize it, write the new one. Raises: EdgeAdError; then no bundle has been written."""
    check_tools(options)
    from edge_ad.bundle.bundle import Bundle, check_destination, write_changed
    from edge_ad.bundle.specs import UsabilityLimits
    from edge_ad.calibration.evaluation.usability import learned_from
    from edge_ad.calibration.quantize.images import good_images
    from edge_ad.calibration.quantize.quantized import RejectedError, quantize_bundle
    from edge_ad.image.inspected import inspector_of
    from edge_ad.runtime.host.opencv import load_cv2

    bundle = Bundle.read(options.bundle)
    check_destination(options.destination, replace=options.replaces)
    load_cv2()  # before anything else does, so that it is silent, and its absence is said in one line
    notes: tuple[str, ...] = ()
    if bundle.manifest.usability is None:
        good, spec = good_images(options.data), bundle.manifest.preprocess
        learned = learned_from(good, spec, watching("good images"), inspector_of(bundle))
        # Whether black frames are how the line looks is for `threshold` to say: on them nothing can be calibrated.
        ordinary = UsabilityLimits(learned.limits.images, learned.limits.sharpness_min)
        if learned.limits.images and learned.limits == ordinary:
            bundle, notes = bundle.with_usability(learned.limits), learned.notes
    try:
        judging = judging_tools(bundle, options.gate_engine, options.engine_cache, options.quantize)
        made = quantize_bundle(bundle, options, judging)
    except RejectedError as exc:
        exc.args = (f"{exc}; {_write_rejection(options.destination, exc.report)}",)
        raise
    written = write_changed(
        bundle,
        options.destination,
        made.changes,
        files=made.files,
        without=made.obsolete,
        replace=options.replaces,
    )
    _summarise(made, options)
    for note in notes:
        click.echo(note, err=True)
    click.echo(f"wrote {written.path} ({written.sha256[:12]})", err=True)


def check_tools(options: QuantizeOptions) -> None:
    """Check that this quantization can be computed here. Raises: MissingExtraError; ConfigError for such an engine."""
    from edge_ad.runtime.engines import ENGINES

    require_extra("quantization", MODULES, "quantize")
    if options.gate != "off":
        require_extra("the gate", REPORT_MODULES, "eval")
        wanted = [name for name in ENGINES if name not in NO_GATE]
        if options.gate_engine not in wanted:
            raise ConfigError(
                "engine", [f"{options.gate_engine!r} cannot compute any graph, wanted one of {', '.join(wanted)}"]
            )


def _summarise(made: Quantized, options: QuantizeOptions) -> None:
    if made.content is None:
        return
    for check in made.content.statements:
        click.echo(
            f"{'holds' if check.ok else 'BROKEN'}: {check.name}: {check.figure}; allowed: {check.allowed}", err=True
        )
    for flip in made.content.agreement.flips:
        how = "within" if flip.within_noise else "beyond"
        click.echo(
            f"flip: {flip.name}: {flip.reference_score:.6g} to {flip.candidate_score:.6g}, {how} the score noise",
            err=True,
        )
    shift = made.content.thresholds
    if shift is not None and shift.shift is not None:
        click.echo(f"threshold {shift.old:.6g} to {shift.new:.6g} ({shift.shift:+.2g}), by {shift.by}", err=True)
    click.echo(f"gate {made.content.verdict}: {made.content.why}", err=True)
    if made.content.verdict == "failed":
        click.echo(f"warning: written all the same; ask for it with 'run --precision {options.quantize}'", err=True)


def _write_rejection(destination: Path, page: bytes) -> str:
    """Keep the report of a model that was not written, beside the place where it would have been.

    Returns: where it is, or why it is not: what the gate says is said in any case.
    """
    from edge_ad.disk.storage import write_atomically

    path = destination.with_name(f"{destination.name.removesuffix('.edgead')}.rejected.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page)
    except OSError as exc:
        return f"its report {path} cannot be written: {os_reason(exc)}"
    return f"see {path}"
