"""`edge-ad info`."""

from __future__ import annotations

import json
from typing import Any

import click

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.manifest import Quantization
from edge_ad.bundle.specs import Precision
from edge_ad.validation import dump_yaml, plain


@click.command(name="info", short_help="Say what is in a bundle.")
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(bundle: str, as_json: bool) -> None:
    """Check every byte of BUNDLE and print what it holds."""
    opened = Bundle.read(bundle)
    facts = {
        "path": str(opened.path),
        "sha256": opened.sha256,
        "size_bytes": sum(_size_bytes(opened, name) for name in opened.manifest.files),
        "default_precision": opened.precision(None),
        "precisions": {precision: _of(opened, precision) for precision in opened.manifest.models},
        **plain(opened.manifest),
    }
    click.echo(json.dumps(facts, indent=2) if as_json else dump_yaml(facts).rstrip())


def _of(bundle: Bundle, precision: Precision) -> dict[str, Any]:
    """What a reader wants to know of one precision first."""
    file = bundle.model_file(precision)
    facts = {
        "file": file,
        "size_bytes": _size_bytes(bundle, file),
        "threshold": bundle.thresholds(precision).image,
    }
    record = bundle.manifest.quantization.get(precision)
    return facts if record is None else facts | {"gate": _gate(record), "made": _made(record)}


def _gate(record: Quantization) -> str:
    """The verdict of the gate, and what it saw: one line."""
    if not record.held_out:
        return f"{record.gate}, never compared with the float model"
    figures = {
        "label flips {}": record.flips,
        "image AUROC {:+.4f}": record.auroc_change,
        "map correlation {:.5f}": record.map_correlation,
        "{:.2f} times as fast": record.speed_up,
    }
    seen = [form.format(value) for form, value in figures.items() if value is not None]
    return f"{record.gate}, against the float model on {record.held_out} images; {', '.join(seen) or 'no figures'}"


def _made(record: Quantization) -> str:
    """How the graph was made: one line."""
    if record.ranges is None:
        how = f"{record.layers} layers cast"
    else:
        how = f"{record.layers} layers quantized, ranges by {record.ranges} from {record.images} images"
    return f"{how}; put back into float: {', '.join(record.float_layers) or 'none'}"


def _size_bytes(bundle: Bundle, name: str) -> int:
    return (bundle.path / name).stat().st_size
