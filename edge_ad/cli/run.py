"""`edge-ad run`."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.logs import Log, log_options, logging_to_stderr
from edge_ad.cli.main import EXIT_INTERRUPTED
from edge_ad.cli.option import text_option
from edge_ad.errors import EngineError, ImageError
from edge_ad.image.notices import noticing
from edge_ad.text import without_secrets

if TYPE_CHECKING:
    from edge_ad.runtime.engines.process.launch import Launched

ENVIRONMENT = "put the address into a variable of the environment, and name that with --source-env"


@click.command(name="run", short_help="Judge frames of a camera, video, stream, picture or folder.")
@click.argument("bundle", required=False)
@text_option("-c", "--config", "config", metavar="FILE", help="Describes the whole line; options here take the place.")
@click.option(
    "--source",
    metavar="SOURCE",
    multiple=True,
    default=None,
    help="Picture, folder, 'glob', video, rtsp:// or http:// URL, camera:N, csi://N, v4l2://DEVICE, gst:PIPELINE,"
    " genicam:SERIAL, sim:?fps=30, or a .streams file with one source on each line; may be given several times.",
)
@click.option(
    "--source-env",
    metavar="NAME",
    multiple=True,
    default=None,
    help="Environment variable that holds a source, such as an address with a password, which every user of this"
    " machine could read in --source; may be given several times.",
)
@text_option("--camera", metavar="N", help="Camera number, short for --source camera:N.")
@text_option(
    "--engine",
    metavar="NAME",
    help="openvino (default), onnxruntime or tensorrt; fake computes brightness, to size a line.",
)
@text_option(
    "--engine-process",
    metavar="on|off",
    help="on: the engine computes in a process of its own, so that a crash of it costs the frames in hand and not the"
    " line (default: on with --config, else off).",
)
@text_option("--precision", metavar="P", help="fp32, fp16 or int8, where the bundle holds it.")
@text_option(
    "--threshold", metavar="SCORE", help="Raw score from which on a frame is anomalous (default: the bundle's)."
)
@text_option("--budget-ms", metavar="MS", help="Time from capture to verdict; frames that miss it are marked.")
@text_option(
    "--buffer",
    metavar="RULE",
    help="freshest: a newer frame takes the place of one that waits; every_frame: the source waits; auto (default):"
    " freshest for live sources. No frame of a file is ever dropped.",
)
@text_option("--max-fps", metavar="FPS", help="Frames of each source to capture per second at most.")
@text_option("--vid-stride", metavar="N", help="Capture every Nth frame of each source.")
@text_option(
    "--max-miss-rate", metavar="SHARE", help="Fail (exit code 14) when more of the frames were late or skipped, 0 to 1."
)
@text_option(
    "--silence",
    "silence_s",
    metavar="SECONDS",
    help="Report a live source that gives no frame for so long: seconds (5) or never.",
)
@text_option(
    "--reconnect",
    "reconnect_s",
    metavar="SECONDS",
    help="How long to try to open a live source again that was lost: seconds, never, or forever (default).",
)
@click.option(
    "--wait-for-source",
    is_flag=True,
    default=None,
    help="Wait for a source that is absent at the start in the same way (default: exit code 7).",
)
@text_option(
    "--watchdog",
    "watchdog_s",
    metavar="SECONDS",
    help="Give up a live source that gives no frame for so long, and open it anew: seconds (15) or never.",
)
@click.option("--loop", is_flag=True, default=None, help="Begin again at the end of videos and pictures.")
@click.option("--watch", is_flag=True, default=None, help="Wait for further pictures in a folder; judge each once.")
@text_option("--batch", metavar="N", help="Frames that the engine takes at once, for several cameras (1).")
@text_option(
    "--output", metavar="DIR", help="Folder for verdicts.jsonl and pictures (default: records on standard output)."
)
@text_option("--save", metavar="KINDS", help="Pictures to save: masks, overlays, or masks,overlays.")
@text_option(
    "--save-which",
    metavar="WHICH",
    help="Frames that get one: all (default), rejects, or the rejects and a share of the others, 0 to 1.",
)
@text_option("--rotate-mb", metavar="MB", help="Size from which on verdicts.jsonl goes on in a new file.")
@text_option(
    "--max-megapixels",
    metavar="MP",
    help="Largest frame that is decoded (66); a larger one is an error. EDGE_AD_MAX_MEGAPIXELS: for all commands.",
)
@text_option("--max-frames", metavar="N", help="End after N captured frames of each source.")
@text_option("--engine-cache", metavar="DIR", help="Folder for compiled models (default: the user's cache folder).")
@text_option("--device", metavar="N", help="GPU to run on (tensorrt; default: 0).")
@text_option("--dla", metavar="CORE", help="Core of the deep learning accelerator to run on (tensorrt).")
@text_option("--http", metavar="ADDRESS", help="Serve health, metrics, triggers, thresholds: PORT or HOST:PORT.")
@text_option("--http-token-env", metavar="NAME", help="Environment variable that holds the token for --http.")
@text_option(
    "--blur-check",
    metavar="WHAT",
    help="bundle (default): frames far blurrier than its good ones are unusable; off: they are judged.",
)
@click.option("--show", is_flag=True, default=None, help="Show the frames in a window.")
@log_options
def command(config: str | None, log_format: str, log_level: str, **given: Any) -> int:
    """Judge every frame of a source with BUNDLE: one line of JSON for each captured frame.

    Ctrl-C ends the run after the frame in hand. 'edge-ad check' says what is wrong with a file of the line; while it
    runs, SIGHUP has its thresholds read again.
    """
    with logging_to_stderr("run", log_format, log_level) as log, ExitStack() as stack:
        stack.enter_context(noticing(log.say))
        launched = None
        if _may_want_process(config, given):
            from edge_ad.runtime.engines.process.launch import launch

            with suppress(EngineError):  # which is said by whoever needs it
                launched = stack.enter_context(launch())  # it loads what it needs while settings are read here
        return _run(log, config, given, launched)


def _may_want_process(config: str | None, given: dict[str, Any]) -> bool:
    """Whether the engine is likely to get a process of its own; the settings, once they are read, know for certain."""
    asked = given.get("engine_process")
    return os.name == "posix" and (asked == "on" or (asked is None and config is not None))


def _run(log: Log, config: str | None, given: dict[str, Any], launched: Launched | None) -> int:
    from edge_ad.cli.summary import check_lost, check_miss_rate, print_summary
    from edge_ad.runtime.station.file import read_line, run_options
    from edge_ad.runtime.station.run import run

    options = {key: value for key, value in given.items() if value not in (None, ())}
    if config is None:
        if "bundle" not in options:
            raise click.UsageError("Missing argument 'BUNDLE', or --config with a file that names one.")
        reread = None
        settings = run_options(options, "run options")
    else:
        reread = partial(read_line, Path(config), options)
        settings = reread()
    for source in options.get("source", ()):
        if "@" in source and without_secrets(source) != source:
            log.say(f"warning: every user of this machine can read the password in --source; {ENVIRONMENT}")
            break
    result = run(settings, say=log.say, reread=reread, launched=launched)
    if log.is_json:
        log.counters(result.telemetry)
    else:
        print_summary(result.telemetry, [camera.budget_ms for camera in settings.cameras])
    if settings.output is not None:
        log.say(f"wrote {settings.output}")
    if result.failure is not None:
        raise result.failure
    if result.interrupted:
        log.say("stopped by the user")
    check_lost(result.telemetry, result.hung)
    if result.interrupted:
        return EXIT_INTERRUPTED
    check_miss_rate(result.telemetry, settings.limits.max_miss_rate)
    if result.telemetry.frames and set(result.telemetry.statuses) == {"error"}:
        raise ImageError(f"none of {result.telemetry.frames} frames could be judged; each record says why")
    return 0
