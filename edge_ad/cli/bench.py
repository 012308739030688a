"""`edge-ad bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.option import text_option
from edge_ad.cli.printable import console_on
from edge_ad.errors import OutputError, os_reason

if TYPE_CHECKING:
    from edge_ad.runtime.instruments.bench.options import BenchOptions
    from edge_ad.runtime.instruments.bench.run import BenchResult


@click.command(name="bench", short_help="Measure how fast a bundle is here, and whether it became slower.")
@click.argument("bundle")
@text_option("--duration", "duration_s", metavar="SECONDS", help="Time to measure for (10).")
@text_option("--warmup", "warmup_s", metavar="SECONDS", help="Time to judge frames before that (1).")
@text_option("--percentile", "percentiles", metavar="P,P", help="Percentiles to report (50,90,95,99).")
@text_option("--engine", metavar="NAME", help="openvino (default), onnxruntime, tensorrt or fake.")
@text_option("--precision", metavar="P", help="fp32, fp16 or int8, where the bundle holds it.")
@text_option("--device", metavar="N", help="GPU to run on (tensorrt; default: 0).")
@text_option("--dla", metavar="CORE", help="Core of the deep learning accelerator to run on (tensorrt).")
@text_option("--engine-cache", metavar="DIR", help="Folder for compiled models (default: the user's cache folder).")
@text_option("--batch", metavar="N", help="Frames that the engine takes at once (1).")
@text_option("--frame", "frame_hw", metavar="WxH", help="Size of the made-up frame (1920x1080).")
@text_option("--image", metavar="FILE", help="Picture to judge in place of it.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of tables.")
@text_option("--export-json", metavar="FILE", help="Write the results as JSON.")
@text_option("--export-times", metavar="FILE", help="Write the times of every call, as JSON or (FILE.csv) CSV.")
@text_option("--html", metavar="FILE", help="Write the results as a page, with histograms and times by layer.")
@text_option("--save-baseline", metavar="FILE", help="Write what later runs are compared with.")
@text_option("--baseline", metavar="FILE", help="Compare with such a file.")
@text_option("--fail-above", metavar="SHARE", help="Fail (exit code 16) where a stage is slower by more (10%).")
@click.option("--force", is_flag=True, default=None, help="Replace files that exist.")
def command(as_json: bool, **given: Any) -> None:
    """Judge one frame again and again with BUNDLE, from the decoded frame to the verdict, and say what it takes.

    In turns with the frames a fixed piece of work is timed. Ratios to it are what a baseline holds, so a machine that
    is slow today raises no alarm. With --baseline a regression ends with exit code 16, after everything was written.
    """
    from edge_ad.cli.bench_tables import print_result
    from edge_ad.runtime.instruments.bench.options import bench_options
    from edge_ad.runtime.instruments.bench.record import json_text, result_json
    from edge_ad.runtime.instruments.bench.run import bench

    options = bench_options(given, "bench options")
    _check_places(options)
    with _progress(options.duration_s) as watch:
        result = bench(options, watch)
    if as_json:
        click.echo(json_text(result_json(result, options.percentiles)), nl=False)
    else:
        print_result(result, options.percentiles)
    for path in _write(result, options):
        click.echo(f"wrote {path}", err=True)
    if result.gate is not None:
        result.gate.raise_failure()


def _check_places(options: BenchOptions) -> None:
    """Raises: OutputError before anything is measured for nothing."""
    for name, path in options.outputs.items():
        option = "--" + name.replace("_", "-")
        if path.is_dir() or not path.absolute().parent.is_dir():
            what = "is a folder" if path.is_dir() else "lies in no folder that exists"
            raise OutputError(f"{option} {path}: {what}; choose another name")
        if path.exists() and not options.force:
            raise OutputError(f"{option} {path}: exists; choose another name, or replace it with --force")


def _write(result: BenchResult, options: BenchOptions) -> list[Path]:
    """Write what was asked for. Returns: the files. Raises: OutputError."""
    from edge_ad.disk.storage import write_atomically
    from edge_ad.runtime.instruments.bench.baseline import baseline_bytes
    from edge_ad.runtime.instruments.bench.page import page
    from edge_ad.runtime.instruments.bench.record import json_text, result_json, times_bytes
    from edge_ad.runtime.instruments.bench.run import baseline_of

    made: dict[str, Callable[[Path], bytes]] = {
        "export_times": lambda path: times_bytes(result.measurement, path),
        "export_json": lambda _: json_text(result_json(result, options.percentiles)).encode("ascii"),
        "html": lambda _: page(result, options.percentiles),
        "save_baseline": lambda _: baseline_bytes(baseline_of(result)),
    }
    written = []
    for name, path in options.outputs.items():
        if name == "save_baseline" and result.gate is not None and result.gate.slower:
            click.echo(f"{path}: no baseline is saved of a run that is slower than the old one allows", err=True)
            continue
        try:
            write_atomically(path, made[name](path))
        except OSError as exc:
            raise OutputError(f"{path}: cannot be written: {os_reason(exc)}") from exc
        written.append(path)
        if name == "save_baseline" and not result.side.is_calm:
            click.echo(f"{path}: the machine was busy, so it is a poor baseline; save one on a quiet machine", err=True)
    return written


@contextmanager
def _progress(duration_s: float) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, where that is a terminal."""
    from rich.progress import Progress

    console = console_on(sys.stderr)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"measuring for {duration_s:g} s", total=1.0)
        yield lambda share: bar.update(task, completed=share)
