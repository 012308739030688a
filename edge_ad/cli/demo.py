"""`edge-ad demo`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli import demo_training
from edge_ad.cli.main import EXIT_INTERRUPTED
from edge_ad.cli.option import text_option
from edge_ad.cli.summary import check_lost, print_summary
from edge_ad.errors import OutputError

if TYPE_CHECKING:
    from edge_ad.image.frame import Box
    from edge_ad.runtime.line.telemetry import Telemetry
    from edge_ad.runtime.station.run import RunResult

BUNDLE = "disc.edgead"
DEFECTS = 0.3  # far more than any line makes, so that a short demonstration shows some
SAVED = "masks,overlays"
SHIPPED_ROI = (282, 0, 1002, 720)
"""Of a 1280x720 frame: what the shipped bundle was trained on, to the pixel."""
LINE_FILE, LINE_HEAD = "line.yaml", "# A line of 'edge-ad demo', which writes this file anew."


@click.command(name="demo", short_help="Show the whole chain on a simulated line.")
@click.option("--frames", type=click.IntRange(1, 100_000), default=60, show_default=True, help="Parts on the line.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="Which line is simulated.")
@click.option("--quick", is_flag=True, help="Train nothing: judge with the bundle that ships with edge-ad.")
@text_option("--output", metavar="DIR", help="Folder for the results (default: edge-ad-demo).")
def command(frames: int, seed: int, quick: bool, output: str | None) -> int:
    """Judge a simulated line of machined parts, whose defects are known.

    With the extras train and eval, all of it happens here, in about a minute: pictures, training, export, threshold,
    the line, a report; each step shows its command. Without them, or with --quick, a bundle that ships with edge-ad
    judges the line. Needs no network, no camera and no GPU.
    """
    folder, plan = Path(output or "edge-ad-demo"), demo_training.PLAN
    missing = demo_training.missing_extras()
    trains = not quick and not missing
    if trains:
        bundle = demo_training.make_detector(folder, plan)
    else:
        bundle = Path(str(resources.files("edge_ad.demo") / BUNDLE))
        click.echo("A simulated line: one machined disc in each frame, 1280x720, three in ten with a defect.")
        if not quick:
            click.echo(demo_training.offer(missing))
    width, height = plan.size
    roi = plan.roi if trains else SHIPPED_ROI
    source = f"sim:?size={width}x{height}&defects={DEFECTS}&seed={seed}&frames={frames}"
    result = _judge(_line_file(folder, bundle, source, roi), folder)
    if result.interrupted:
        click.echo("stopped by the user", err=True)
    check_lost(result.telemetry, result.hung)
    if result.interrupted:
        return EXIT_INTERRUPTED
    if trains:
        demo_training.report(folder)
        click.echo(f"\nreport     {folder / demo_training.REPORT / 'report.html'}")
        click.echo(f"training   {folder / demo_training.RUN} (metrics.csv, TensorBoard)")
    click.echo(f"records    {folder / 'verdicts.jsonl'}")
    click.echo(f"pictures   {folder / 'overlays'} (heat, regions, score), {folder / 'masks'}")
    click.echo(f"the bundle 'edge-ad info {bundle}'")
    return 0


def _line_file(folder: Path, bundle: Path, source: str, roi: Box) -> Path:
    """Write the line as a file. Raises: OutputError for one that is not the demo's."""
    from edge_ad.disk.storage import write_atomically
    from edge_ad.validation import dump_yaml

    path = folder / LINE_FILE
    if path.is_symlink() or (path.exists() and not path.read_text("utf-8", "replace").startswith(LINE_HEAD)):
        raise OutputError(f"{path} exists and is not the demo's; choose another --output")
    told = {"bundle": str(bundle.absolute()), "cameras": [{"name": "disc", "source": source, "roi": list(roi)}]}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{LINE_HEAD}\n{dump_yaml(told)}".encode())
    return path


def _judge(line: Path, folder: Path) -> RunResult:
    """Run the bundle on the line and say how often it was right."""
    from edge_ad.runtime.station.file import read_line
    from edge_ad.runtime.station.run import run

    click.echo("The part lies in the middle of the frame, so the line's file makes that its region of interest:")
    click.echo("".join(f"   {text}\n" for text in line.read_text("utf-8").splitlines()[1:]))
    click.echo(f"$ edge-ad run -c {line} --output {folder} --save {SAVED}\n")
    result = run(read_line(line, {"output": folder, "save": SAVED}), say=click.echo)
    print_summary(result.telemetry, [None])
    click.echo()
    click.echo(_confusion(result.telemetry))
    return result


def _confusion(telemetry: Telemetry) -> str:
    """Verdicts against the truth, as text."""
    count = telemetry.confusion
    hits, misses = count[True, "anomalous"], count[True, "normal"]
    false_alarms, passed = count[False, "anomalous"], count[False, "normal"]
    lines = [
        "                      judged anomalous   judged normal",
        f"  truly defective     {hits:16d} {misses:15d}",
        f"  truly good          {false_alarms:16d} {passed:15d}",
        f"  {hits + passed} of {sum(count.values())} right; defects missed: {misses}, false alarms: {false_alarms}",
    ]
    return "\n".join(lines)
