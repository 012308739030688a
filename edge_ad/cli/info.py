"""`edge-ad info`."""

from __future__ import annotations

import json

import click

from edge_ad.bundle import Bundle
from edge_ad.validation import dump_yaml, plain


@click.command(name="info", short_help="Say what is in a bundle.")
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(bundle: str, as_json: bool) -> None:
    """Check every byte of BUNDLE and print what it holds."""
    opened = Bundle.read(bundle)
    facts = {"path": str(opened.path), "sha256": opened.sha256, **plain(opened.manifest)}
    facts["size_bytes"] = sum((opened.path / name).stat().st_size for name in opened.manifest.files)
    click.echo(json.dumps(facts, indent=2) if as_json else dump_yaml(facts).rstrip())
