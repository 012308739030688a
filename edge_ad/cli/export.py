"""`edge-ad export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_ad.cli.option import text_option
from edge_ad.errors import MissingExtraError
from edge_ad.validation import read_yaml


@click.command(name="export", short_help="Turn a trained checkpoint into a bundle.")
@click.argument("checkpoint", required=False)
@text_option("-o", "--output", metavar="BUNDLE", help="Directory to write, such as bottle.edgead.")
@text_option("--family", metavar="NAME", help="Model family (default: glass).")
@text_option("--backbone", metavar="NAME", help="torchvision network, or timm:<name> (default: wide_resnet50_2).")
@text_option(
    "--backbone-weights",
    metavar="FILE",
    help="State dict of the backbone, whole or trunk alone, or packaged (default: torchvision's).",
)
@text_option("--layers", metavar="A,B", help="Layers that give the features (default: layer2,layer3).")
@text_option("--imgsz", metavar="N|HxW", help="Model input in pixels (default: 288).")
@text_option("--resize", metavar="N", help="Shorter side before the centre crop (default: imgsz).")
@text_option("--resize-mode", metavar="MODE", help="shorter_side_crop (default), stretch or letterbox.")
@text_option("--embed-dim", metavar="N", help="Patch embedding (default: read from the checkpoint).")
@text_option("--pretrain-embed-dim", metavar="N", help="Pooled vector of one layer (default: embed-dim).")
@text_option("--hidden-dim", metavar="N", help="Discriminator's hidden layer (default: read from the checkpoint).")
@text_option("--score", metavar="KIND", help="map_max (the paper, default) or patch_max (the authors' code).")
@text_option("--threshold", metavar="SCORE", help="Raw score from which on a frame is anomalous.")
@text_option("--format", metavar="FORMAT", help="onnx (default), openvino (IR beside it) or engine.")
@text_option("--batch", metavar="N", help="Fixed batch size (default: dynamic).")
@text_option("--opset", metavar="N", help="ONNX operator set, 13 to 17 (default: 17).")
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
    options = export_options(values, where, given)
    export_bundle(options, say=lambda line: click.echo(line, err=True))
    click.echo(str(options.output))
