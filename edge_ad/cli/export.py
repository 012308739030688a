"""`edge-ad export`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_ad.cli.build import build
from edge_ad.cli.calibrate import check_tools, quantize, quantize_flags
from edge_ad.cli.family_options import FamilyCommand
from edge_ad.cli.option import text_option
from edge_ad.cli.printable import say
from edge_ad.errors import ConfigError, EngineError, GateError, MissingExtraError
from edge_ad.models import DEFAULT_FAMILY
from edge_ad.validation import read_yaml

if TYPE_CHECKING:
    from edge_ad.calibration.quantize.options import QuantizeOptions
    from edge_ad.runtime.engines.tensorrt.builder.options import BuildOptions

Options = TypeVar("Options")


@click.command(
    name="export",
    short_help="Turn a trained checkpoint into a bundle.",
    cls=FamilyCommand,
    kind=lambda family: family.network_options,
)
@click.argument("checkpoint", required=False)
@text_option("-o", "--output", metavar="BUNDLE", help="Directory to write, such as bottle.edgead.")
@text_option("--family", metavar="NAME", help=f"Model family (default: by the checkpoint, else {DEFAULT_FAMILY}).")
@text_option("--imgsz", metavar="N|HxW", help="Model input in pixels (default: the family's).")
@text_option("--resize", metavar="N", help="Shorter side before the centre crop (default: imgsz).")
@text_option("--resize-mode", metavar="MODE", help="shorter_side_crop, stretch or letterbox (default: the family's).")
@text_option("--filter", metavar="NAME", help="Of the resize (default: the family's).")
@text_option("--score", metavar="KIND", help="map_max (the paper, default) or patch_max (the authors' code).")
@text_option("--tiles", metavar="RxC", help="Rows and columns of tiles of imgsz (default: the run's, else none).")
@text_option("--tile-overlap", metavar="N", help="Pixels that tiles share (default: the run's, else the family's).")
@text_option("--threshold", metavar="SCORE", help="Raw score from which on a frame is anomalous.")
@text_option("--format", metavar="FORMAT", help="onnx (default), openvino (IR beside it) or engine (TensorRT).")
@text_option("--batch", metavar="N", help="Fixed batch size (default: dynamic).")
@text_option("--opset", metavar="N", help="ONNX operator set, 13 to 17 (default: 17).")
@text_option("--quantize", metavar="P", help="Add an int8 or fp16 model, proven on --data (see 'edge-ad calibrate').")
@quantize_flags
@text_option("--flavour", metavar="NAME", help="Of the engine: tensorrt (default) or rtx (see 'edge-ad build').")
@text_option("--sm", metavar="A,B", help="GPUs that the engine is for, such as 86,89 (rtx; default: this one).")
@click.option("--force", is_flag=True, default=None, help="Replace an existing bundle.")
@click.option(
    "-c", "--config", "config", metavar="FILE", help="YAML file with any of these options; the command line wins."
)
def command(config: str | None, **given: Any) -> None:
    """Fold a trained CHECKPOINT into a fast graph, compare it with the network it came from, and write a bundle.

    CHECKPOINT is a file in the official format, or the folder of a run of 'edge-ad train', which says the rest.

    Every option may stand in the configuration file under its long name.
    """
    values = read_yaml(Path(config)) if config else {}
    where = f"export options ({config})" if config else "export options"
    try:
        from edge_ad.export.options import export_options
        from edge_ad.export.to_bundle import export_bundle
    except ImportError as exc:
        raise MissingExtraError("edge-ad export", exc.name or "torch", "export") from exc
    from edge_ad.calibration.quantize.options import OF_EXPORT as OF_QUANTIZATION
    from edge_ad.runtime.engines.tensorrt.builder.options import OF_EXPORT as OF_ENGINE

    lower, values, given = _apart(OF_QUANTIZATION, values, given)
    target, values, given = _apart(OF_ENGINE, values, given)
    output = given.get("output") or values.get("output")
    if (given.get("format") or values.get("format")) == "engine":
        target |= {"bundle": output or ".", "engine_cache": lower.get("engine_cache")}
        if "quantize" not in lower:
            lower.pop("engine_cache", None)
    faults: list[str] = []
    options = _checked(lambda: export_options(values, where, given), faults)
    quantization = _checked(lambda: _quantization(lower, where, output), faults)
    engine = _checked(lambda: _engine(target, where), faults)
    if faults:
        raise ConfigError(where, faults)
    assert options is not None
    if quantization is not None:
        _check_quantization(quantization)
    if engine is not None:
        from edge_ad.runtime.engines.tensorrt.builder.build import check_machine

        check_machine(engine)
    export_bundle(options, say=say)
    if quantization is not None:
        try:
            quantize(quantization)
        except GateError as exc:
            exc.args = (f"{exc}; {options.output} holds the float model alone",)
            raise
    if engine is not None:
        try:
            build(engine)
        except EngineError as exc:
            exc.args = (f"{exc}; {options.output} is written, without an engine",)
            raise
    click.echo(str(options.output))


def _apart(
    names: Collection[str], values: dict[str, Any], given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What belongs to a later step, by field name, and the rest of the file's values and of the command line's."""

    def belongs(key: object) -> bool:
        return str(key).replace("-", "_") in names

    later = {str(key).replace("-", "_"): value for key, value in values.items() if belongs(key)}
    later |= {key: value for key, value in given.items() if belongs(key) and value is not None}
    rest = {key: value for key, value in values.items() if not belongs(key)}
    return later, rest, {key: value for key, value in given.items() if not belongs(key)}


def _quantization(lower: dict[str, Any], where: str, output: Any) -> QuantizeOptions | None:
    """Options of the quantization that follows; None without any."""
    from edge_ad.calibration.quantize.options import quantize_options

    present = {key: value for key, value in lower.items() if value is not None}
    if not present:
        return None
    if "quantize" not in present:
        raise ConfigError(where, [f"{key}: belongs to --quantize int8 or fp16, which is not given" for key in present])
    return quantize_options({**present, "bundle": output or ".", "in_place": True}, where)


def _engine(target: dict[str, Any], where: str) -> BuildOptions | None:
    """Options of the engine that is built from the bundle; None for another format."""
    from edge_ad.runtime.engines.tensorrt.builder.options import build_options

    if "bundle" in target:
        return build_options(target, where)
    alone = [f"{key}: belongs to --format engine, which is not given" for key, value in target.items() if value]
    if alone:
        raise ConfigError(where, alone)
    return None


def _check_quantization(options: QuantizeOptions) -> None:
    """Find out before the export what would keep the quantization from starting. Raises: EdgeAdError."""
    from edge_ad.calibration.quantize.images import chosen_images

    check_tools(options)
    chosen_images(options.data, options.val, count=options.images, seed=options.seed)


def _checked(check: Callable[[], Options], faults: list[str]) -> Options | None:
    """What a check returns; None when it found faults, which are added to `faults`."""
    try:
        return check()
    except ConfigError as exc:
        faults += exc.faults
        return None
