"""`edge-ad demo`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.main import EXIT_INTERRUPTED
from edge_ad.cli.option import text_option
from edge_ad.cli.summary import print_summary

if TYPE_CHECKING:
    from edge_ad.runtime.telemetry import Telemetry

BUNDLE = "disc.edgead"
DEFECTS = 0.3  # far more than any line makes, so that a short demonstration shows some


@click.command(name="demo", short_help="Show the whole chain on a simulated line.")
@click.option("--frames", type=click.IntRange(1, 100_000), default=60, show_default=True, help="Parts on the line.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="Which line is simulated.")
@text_option("--output", metavar="DIR", help="Folder for the results (default: edge-ad-demo).")
def command(frames: int, seed: int, output: str | None) -> int:
    """Judge a simulated line of machined parts, whose defects are known, with a bundle that ships with edge-ad.

    Needs no network, no camera and no GPU.
    """
    from edge_ad.runtime.options import run_options
    from edge_ad.runtime.run import run

    bundle = Path(str(resources.files("edge_ad.demo") / BUNDLE))
    folder = Path(output or "edge-ad-demo")
    source = f"sim:?size=1280x720&defects={DEFECTS}&seed={seed}&frames={frames}"
    click.echo("A simulated line: one machined disc in each frame, 1280x720, three in ten with a defect.")
    click.echo(f"edge-ad run {bundle} --source '{source}' --output {folder} --save masks,overlays\n")
    values = {"bundle": bundle, "source": source, "output": folder, "save": "masks,overlays"}
    result = run(run_options(values, "demo"), say=click.echo)
    print_summary(result.telemetry, budget_ms=None)
    click.echo()
    click.echo(_confusion(result.telemetry))
    click.echo(f"\nrecords    {folder / 'verdicts.jsonl'}")
    click.echo(f"pictures   {folder / 'overlays'} (heat, regions, score), {folder / 'masks'}")
    click.echo(f"the bundle 'edge-ad info {bundle}'")
    return EXIT_INTERRUPTED if result.interrupted else 0


def _confusion(telemetry: Telemetry) -> str:
    """Verdicts against the truth, as text."""
    count = telemetry.confusion
    hits, misses = count[True, "anomalous"], count[True, "normal"]
    false_alarms, passed = count[False, "anomalous"], count[False, "normal"]
    lines = [
        "                      judged anomalous   judged normal",
        f"  truly defective     {hits:16d} {misses:15d}",
        f"  truly good          {false_alarms:16d} {passed:15d}",
        f"  {hits + passed} of {sum(count.values())} right: {misses} defects missed, {false_alarms} false alarms",
    ]
    return "\n".join(lines)
