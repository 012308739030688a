"""`edge-ad soak`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import resources
from typing import Any

import click

from edge_ad.cli.logs import log_options, logging_to_stderr
from edge_ad.cli.main import EXIT_INTERRUPTED
from edge_ad.cli.option import text_option
from edge_ad.errors import InvariantError

BUNDLE = "disc.edgead"


@click.command(name="soak", short_help="Run a simulated line with injected faults and check its promises.")
@click.argument("bundle", required=False)
@text_option("--engine", metavar="NAME", help="fake (default), or a real one, as of edge-ad run.")
@text_option(
    "--engine-process",
    metavar="on|off",
    help="on (default): the engine computes in a process, which faults strike too.",
)
@text_option("--precision", metavar="P", help="fp32, fp16 or int8, where the bundle holds it.")
@text_option("--threshold", metavar="SCORE", help="Raw score from which on a frame is anomalous.")
@text_option("--cameras", metavar="N", help="Simulated cameras (4).")
@text_option("--fps", metavar="FPS", help="Frames per second of each (15).")
@text_option("--budget-ms", metavar="MS", help="Time from capture to verdict (100).")
@text_option("--batch", metavar="N", help="Frames that the engine takes at once (1).")
@text_option("--minutes", metavar="M", help="How long it takes.")
@text_option("--seconds", metavar="S", help="How long it takes, or how much longer than --minutes (60).")
@text_option("--faults", metavar="KINDS", help="all (default), none, or some: freeze,disk-full,engine-error,...")
@text_option("--fault-rate", metavar="SHARE", help="Share of the calls of every part that meet a fault (0.01).")
@text_option("--max-faults", metavar="N", help="End after N faults.")
@text_option("--seed", metavar="N", help="Of pictures and faults (0).")
@text_option(
    "--restart-every", "round_s", metavar="SECONDS", help="Stop the line and start it anew after that time (60)."
)
@text_option("--memory-mib", metavar="MIB", help="Growth of memory that is forgiven (32).")
@text_option("--report-every", "every_s", metavar="SECONDS", help="Time between lines of counters (5).")
@text_option("--engine-cache", metavar="DIR", help="Folder for compiled models (default: the user's cache folder).")
@log_options
def command(log_format: str, log_level: str, **given: Any) -> int:
    """Run a line of simulated cameras whose parts fail at random, and hold it to its promises.

    Every frame, score and record is followed by books of its own, which trust none of the line's counters. BUNDLE is
    the one that ships with edge-ad when none is given. Exit code 15 says that a promise was broken.
    """
    with logging_to_stderr("soak", log_format, log_level) as log:
        if log_level != "debug":  # what the faults make the line say is no news
            logging.getLogger("edge_ad.runtime.line.scheduling").setLevel(logging.CRITICAL)
        try:
            return _soak(log.say if log.is_json else click.echo, given)
        finally:
            logging.getLogger("edge_ad.runtime.line.scheduling").setLevel(logging.NOTSET)


def _soak(say: Callable[[str], None], given: dict[str, Any]) -> int:
    from edge_ad.runtime.instruments.soak.options import soak_options
    from edge_ad.runtime.instruments.soak.report import closing_lines
    from edge_ad.runtime.instruments.soak.soak import Soak

    values = {key: value for key, value in given.items() if value is not None}
    values.setdefault("bundle", str(resources.files("edge_ad.demo") / BUNDLE))
    result = Soak(soak_options(values, "soak options"), say).run()
    for line in closing_lines(result):
        say(line)
    broken = result.findings.counts
    if broken:
        raise InvariantError(f"{len(broken)} of the line's promises were broken: {', '.join(broken)}; see above")
    return EXIT_INTERRUPTED if result.interrupted else 0
