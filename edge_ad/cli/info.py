"""`edge-ad info`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.contract import GraphFacts
from edge_ad.bundle.manifest import Quantization
from edge_ad.bundle.specs import Precision
from edge_ad.bundle.tiles import SMALLEST_DEFECT
from edge_ad.cli.family_table import families_json, paper_of, print_families
from edge_ad.errors import BundleError
from edge_ad.validation import dump_yaml, plain


@click.command(name="info", short_help="Say what is in a bundle, or which model families there are.")
@click.argument("bundle", required=False)
@click.option("--families", is_flag=True, help="List the model families, as without BUNDLE.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(bundle: str | None, families: bool, as_json: bool) -> None:
    """Check every byte of BUNDLE and print what it holds; without BUNDLE, list the model families.

    Of each graph it says whether an engine may be given it; one that may not is an error (exit code 5). No engine is
    loaded.
    """
    if bundle is not None and families:
        raise click.UsageError("--families lists what edge-ad knows; leave out BUNDLE, or --families")
    if bundle is not None:
        _print_bundle(bundle, as_json=as_json)
    elif as_json:
        click.echo(families_json())
    else:
        print_families()


def _print_bundle(bundle: str, *, as_json: bool) -> None:
    """Raises: BundleError when it is damaged, or no engine is given one of its graphs."""
    opened = Bundle.read(bundle)
    graphs = {precision: _graph(opened, precision) for precision in opened.manifest.models}
    facts = {
        "path": str(opened.path),
        "sha256": opened.sha256,
        "family": opened.manifest.model.family,
        "paper": paper_of(opened.manifest.model.family),
        "size_bytes": sum(_size_bytes(opened, name) for name in opened.manifest.files),
        "default_precision": opened.precision(None),
        "precisions": {precision: _of(opened, precision) for precision in opened.manifest.models},
        "graphs": {precision: _graph_line(graph) for precision, graph in graphs.items()},
        "sees": _sees(opened, graphs),
        **plain(opened.manifest),
    }
    click.echo(json.dumps(facts, indent=2) if as_json else dump_yaml(facts).rstrip())
    for graph in graphs.values():
        if isinstance(graph, BundleError):
            raise graph


def _sees(bundle: Bundle, graphs: Mapping[Precision, GraphFacts | BundleError]) -> str:
    """Size of the model's input, its tiles with what they cost, and which defects show: one line."""
    spec, grid = bundle.manifest.preprocess, bundle.manifest.tiles
    least = f"a defect shows from about {SMALLEST_DEFECT} of its pixels on"
    if spec.resize_mode == "stretch":
        across, down = spec.width // SMALLEST_DEFECT, spec.height // SMALLEST_DEFECT
        least += f", 1/{across} of a frame's width and 1/{down} of its height"
    told = f"{spec.width}x{spec.height} pixels"
    if grid is not None:
        peaks = [graph.peak_bytes for graph in graphs.values() if isinstance(graph, GraphFacts)]
        memory = f" and {max(peaks) / 1e6:.0f} MB of tensors at most" if peaks else ""
        told += f" in {grid}, which takes about {grid.count} times as long as one{memory}"
    return f"{told}; {least}"


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


def _graph(bundle: Bundle, precision: Precision) -> GraphFacts | BundleError:
    """What a graph holds, or why no engine is given it."""
    try:
        return bundle.examine_graph(precision)
    except BundleError as exc:
        return exc


def _graph_line(graph: GraphFacts | BundleError) -> str:
    if isinstance(graph, BundleError):
        return f"refused: {graph}"
    return f"clean: {graph.nodes} nodes of {len(graph.operators)} operators, opset {graph.opset}"


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
