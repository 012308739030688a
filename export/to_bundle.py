"""Checkpoint and options → bundle on disk: load, fold, trace, check, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from platform import python_version

from edge_ad.bundle.bundle import Bundle, check_destination, write_bundle
from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.manifest import ModelInfo, Parity
from edge_ad.bundle.specs import Thresholds
from edge_ad.errors import BundleError, ConfigError, ExportError
from edge_ad.export.onnx_graph import OnnxGraph, graph_from_module
from edge_ad.export.options import ExportOptions
from edge_ad.export.parity import check_parity, describe
from edge_ad.models import model_family
from edge_ad.models.contract import fast_module, published_module
from edge_ad.models.recognise import loaded_as
from edge_ad.models.references import References

MODEL_FILE = "model.onnx"


def export_bundle(options: ExportOptions, say: Callable[[str], None] = lambda _: None) -> Bundle:
    """Export a trained network.

    Args:
        options: what to export and how.
        say: receives a line for each step and each assumption.

    Raises: EdgeAdError; then nothing has been written.
    """
    check_destination(options.output, replace=options.force)
    family = model_family(options.family)
    references = References.of(options.network, options.preprocess, say, options.grid_of(options.preprocess))
    loaded = loaded_as(family, options.checkpoint, options.network, references)
    for note in (*options.notes, *loaded.notes, *references.notes):
        say(f"note: {note}")
    say(f"loaded {options.checkpoint}")
    tile = options.preprocess_from(loaded.preprocess or family.preprocess)
    postprocess = options.postprocess_from(loaded.postprocess or family.postprocess)
    if options.resize is not None and tile.resize is None:
        mode = tile.resize_mode
        raise ConfigError(
            "resize", [f"the checkpoint's default is {mode}; give --resize-mode shorter_side_crop with it"]
        )
    if loaded.channel_order is not None:
        tile = replace(tile, channel_order=loaded.channel_order)
    grid = options.grid_of(tile)
    preprocess = tile if grid is None else grid.canvas(tile)
    if grid is not None:
        say(f"the model's input of {preprocess.width}x{preprocess.height} pixels is {grid}")
    module = fast_module(family, loaded, tile, postprocess, grid)
    graph = graph_from_module(module, preprocess.size_hw, batch=options.batch, opset=options.opset)
    say(f"traced to ONNX opset {graph.opset}, {len(graph.data) / 1e6:.1f} MB, batch {options.batch or 'dynamic'}")
    check_fit(family.operators, graph)
    reference = published_module(family, loaded, tile, postprocess, grid)
    check = partial(
        check_parity,
        graph,
        reference,
        relative=postprocess.activation != "sigmoid",
        unit=family.rounding_unit,
    )
    parity = check()
    say(describe(parity))
    files = {MODEL_FILE: graph.data}
    ir: dict[str, str] = {}
    ir_parity: Parity | None = None
    if options.format == "openvino":
        from edge_ad.export.openvino_ir import ir_from_onnx, ir_runner

        ir_files = ir_from_onnx(graph.data, "model")
        ir_parity = check(run=ir_runner(ir_files, "model"))
        say(f"the same for OpenVINO IR: {describe(ir_parity)}")
        files |= ir_files
        ir = {"fp32": "model.xml"}
    bundle = write_bundle(
        options.output,
        {
            "model": ModelInfo(family.name, loaded.config, loaded.checkpoint_sha256),
            "preprocess": preprocess,
            "postprocess": postprocess,
            "tiles": grid,
            "input": graph.image,
            "outputs": graph.outputs,
            "opset": graph.opset,
            "models": {"fp32": MODEL_FILE},
            "openvino_ir": ir,
            "thresholds": Thresholds(image=options.threshold),
            "parity": parity,
            "openvino_ir_parity": ir_parity,
            "tools": {"python": python_version()}
            | {name: version(name) for name in ("edge-ad", "torch", "onnx", "onnxruntime")},
        },
        files,
        replace=options.force,
    )
    say(f"wrote {bundle.path} ({bundle.sha256[:12]})")
    return bundle


def check_fit(operators: frozenset[str], graph: OnnxGraph) -> None:
    """Raise ExportError for a graph that no engine would be given from the bundle, or that holds other operators."""
    try:
        checked_graph(graph.data, GraphContract(graph.image, graph.outputs, graph.opset, operators))
    except BundleError as exc:
        raise ExportError(
            f"the network writes a graph that no bundle may hold: {exc}; take another backbone or other layers"
        ) from exc
