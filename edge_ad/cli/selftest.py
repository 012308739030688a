"""`edge-ad selftest`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import click

from edge_ad.cli.option import text_option
from edge_ad.cli.printable import console_on, say
from edge_ad.errors import DeadlineError, GateError, OutputError


@click.command(name="selftest", short_help="Prove an engine on this machine, and find what is fastest on it.")
@click.argument("bundle")
@text_option("--engine", metavar="NAME", help="tensorrt (default, where there is a GPU), openvino or onnxruntime.")
@text_option("--precision", metavar="P", help="fp32, fp16 or int8, where the bundle holds it.")
@text_option("--device", metavar="N", help="GPU to test (tensorrt; default: 0).")
@text_option("--dla", metavar="CORE", help="Core of the deep learning accelerator to test (tensorrt).")
@text_option("--engine-cache", metavar="DIR", help="Folder for compiled models (default: the user's cache folder).")
@text_option("--images", metavar="DIR", help="Pictures of your own (default: made-up ones).")
@text_option("--frames", metavar="N", help="Frames to time, of each way to compute (default: 200).")
@text_option("--budget-ms", metavar="MS", help="Fail when 1 of 100 frames takes longer than this.")
@text_option("--seed", metavar="N", help="Of the made-up pictures (default: 0).")
@click.option(
    "--build", is_flag=True, default=None, help="Build the TensorRT engines that are missing, for both tails."
)
@click.option("--record/--no-record", default=None, help="Let 'edge-ad run' use what was fastest (default), or not.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of a page.")
def command(as_json: bool, **given: Any) -> None:
    """Compare an engine with a reference on this machine, find the fastest way to run it, and print a page about it.

    Scores, maps, masks and verdicts are compared with another engine's, the CUDA kernels with the operators that they
    stand for. What passed is timed in turns; the fastest is recorded for 'edge-ad run'. The exit code is 0 when all of
    it passed, and 13 when something is outside of its tolerance.
    """
    from edge_ad.calibration.agreement.tolerances import Tolerances
    from edge_ad.runtime.host.opencv import load_cv2
    from edge_ad.runtime.instruments.selftest.machine import without_home
    from edge_ad.runtime.instruments.selftest.options import selftest_options
    from edge_ad.runtime.instruments.selftest.page import page
    from edge_ad.runtime.instruments.selftest.report import report_json
    from edge_ad.runtime.instruments.selftest.run import selftest

    options = selftest_options(given, "selftest options")
    load_cv2()  # before anything else does, so that it is silent, and its absence is said in one line
    report = selftest(
        options,
        least_correlation=Tolerances().map_correlation,
        say=say,
        watch=_watch,
    )
    click.echo(json.dumps(report_json(report), indent=2) if as_json else page(report), nl=as_json)
    if report.failures:
        raise GateError(str(without_home(f"selftest: {report.verdict}")))
    if report.over_budget is not None:
        raise DeadlineError(f"selftest: {report.over_budget}; take a faster engine or precision, or a larger budget")
    if report.record_error is not None:
        raise OutputError(report.record_error)


def _watch(things: Iterable[Any], what: str, count: int) -> Iterable[Any]:
    """Shows how far it is, on stderr, where that is a terminal."""
    from rich.progress import track

    console = console_on(sys.stderr)
    return track(things, what, total=count, console=console, transient=True, disable=not console.is_terminal)
