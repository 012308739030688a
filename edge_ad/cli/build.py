"""`edge-ad build`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.option import text_option
from edge_ad.cli.printable import console_on, say

if TYPE_CHECKING:
    from pathlib import Path

    from edge_ad.runtime.engines.tensorrt.builder.build import Job
    from edge_ad.runtime.engines.tensorrt.builder.options import BuildOptions
    from edge_ad.runtime.engines.tensorrt.builder.progress import Progress


@click.command(name="build", short_help="Build a TensorRT engine from a bundle.")
@click.argument("bundle")
@text_option("-o", "--output", metavar="FILE", help="File for the engine (default: in the engine cache).")
@text_option("--flavour", metavar="NAME", help="tensorrt (default: JetPack, data centre) or rtx (RTX PCs).")
@text_option("--sm", metavar="A,B", help="Compute capabilities to build for, such as 86,89 (rtx; default: this GPU's).")
@text_option("--precision", metavar="P", help="fp32, fp16 or int8, where the bundle holds it.")
@text_option("--batch", metavar="N", help="Most images per call (default: 1, or what the graph has fixed).")
@text_option("--optimum", metavar="N", help="Images per call to be fastest at (default: --batch).")
@text_option("--workspace", metavar="MB", help="Most memory for a layer's intermediate results, in MiB.")
@text_option("--timing-cache", metavar="FILE", help="Remembers how fast layers were, so that the next build is quick.")
@text_option("--device", metavar="N", help="GPU to build on (default: 0).")
@text_option("--dla", metavar="CORE", help="Build for a core of the deep learning accelerator (fp16 only).")
@click.option("--hardware-compatible", is_flag=True, default=None, help="For every GPU from SM80 on; slower.")
@click.option("--version-compatible", is_flag=True, default=None, help="For later TensorRT of this major number too.")
@click.option("--tf32", is_flag=True, default=None, help="Let float32 layers multiply with 10 bits of mantissa.")
@text_option("--tail", metavar="WHAT", help="What makes the maps: graph (default), or kernel.")
@click.option("--dry-run", is_flag=True, default=None, help="Say what would be built and whether it can be.")
@text_option("--engine-cache", metavar="DIR", help="Folder for engines (default: the user's cache folder).")
@text_option("--adopt", metavar="FILE", help="Build nothing: vouch for an engine from elsewhere, and keep it here.")
@click.option("--force", is_flag=True, default=None, help="Build anew and replace what is there.")
def command(**given: Any) -> None:
    """Compile BUNDLE's graph with TensorRT for this machine's GPU, or with TensorRT-RTX for the GPUs of --sm.

    Beside the engine lies what it was built for; 'edge-ad run --engine tensorrt' never loads one that does not fit, or
    that another user or machine built. An engine is a program: --adopt only what you or somebody you trust has built.
    """
    from edge_ad.runtime.engines.tensorrt.builder.options import build_options

    options = build_options(given, "build options")
    path = build(options) if options.adopt is None else _adopt(options.adopt, options)
    if path is not None:
        click.echo(str(path))


def build(options: BuildOptions) -> Path | None:
    """Build the engine and say what came of it. Returns: its path; None after a dry run. Raises: EdgeAdError."""
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.runtime.engines.tensorrt.builder.build import build_job, graph_of, plan_job
    from edge_ad.runtime.engines.tensorrt.builder.payload import describe_payload

    job = plan_job(graph_of(Bundle.read(options.bundle), options.precision), options)
    if options.dry_run:
        _foresee(job)
        return None
    with _progress() as progress:
        built = build_job(job, force=options.force, say=say, progress=progress)
    for note in built.notes:
        say(f"note: {note}")
    holds = f": {describe_payload(built.payload)}" if built.payload else ""
    say(f"{'found' if built.from_cache else 'wrote'} {built.size_bytes / 1e6:.1f} MB{holds}")
    return built.path


def _adopt(path: Path, options: BuildOptions) -> Path:
    from edge_ad.runtime.engines.tensorrt.builder.adopt import adopt_plan

    built = adopt_plan(path, options)
    say(f"took over {built.size_bytes / 1e6:.1f} MB from {path}")
    return built.path


def _foresee(job: Job) -> None:
    from edge_ad.runtime.engines.tensorrt.builder.build import foresee_job, is_there

    outlook = foresee_job(job)
    click.echo(f"{outlook.builder} reads the {job.request.precision} graph: {outlook.layers} layers")
    for line in (*outlook.tensors, *outlook.settings):
        click.echo(f"  {line}")
    click.echo(f"{'is there already' if is_there(job) else 'would be written'}: {job.place.path}")
    for note in outlook.notes:
        say(f"note: {note}")


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Bars on stderr, where that is a terminal: one for each phase that the builder is in."""
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    console = console_on(sys.stderr)
    if not console.is_terminal:
        yield None
        return
    tasks: dict[str, TaskID] = {}
    with Bars(console=console, transient=True) as bars:

        class Shown:
            def begin(self, phase: str, parent: str | None, steps: int) -> None:
                tasks[phase] = bars.add_task(f"{'  ' if parent else ''}{phase}", total=steps)

            def step(self, phase: str, step: int) -> None:
                bars.update(tasks[phase], completed=step + 1)

            def end(self, phase: str) -> None:
                bars.remove_task(tasks.pop(phase))

        yield Shown()
