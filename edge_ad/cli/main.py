"""`edge-ad`: the command line's front door. Commands load when they are called, so help is instant."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from edge_ad.cli.printable import printing, say
from edge_ad.errors import EdgeAdError, OutputError, os_reason
from edge_ad.image.notices import noticing
from edge_ad.signals.supervisor import EXIT_INTERRUPTED as EXIT_INTERRUPTED
from edge_ad.signals.supervisor import supervise_process, supervised, was_interrupted

COMMANDS = {
    "train": "Train a detector on good pictures.",
    "export": "Turn a trained checkpoint into a bundle.",
    "calibrate": "Give a bundle an int8 or fp16 model that is proven on images.",
    "build": "Build a TensorRT engine from a bundle.",
    "selftest": "Prove an engine on this machine, and find what is fastest on it.",
    "run": "Judge frames of a camera, video, stream, picture or folder.",
    "soak": "Run a simulated line with injected faults and check its promises.",
    "check": "Say what is wrong with a line's file, without opening a camera.",
    "eval": "Measure a bundle or a training run on labelled images.",
    "threshold": "Choose a bundle's threshold on images or scores.",
    "inspect": "Say what of a frame a bundle inspects, and how the part is found.",
    "cut": "Cut the part out of frames, as the line will, for training.",
    "learn": "Teach a bundle good pictures that it rejects, or take that back.",
    "bench": "Measure how fast a bundle is here, and whether it became slower.",
    "compare": "Say how far two models agree.",
    "info": "Say what is in a bundle, or which model families there are.",
    "doctor": "Say what this machine has and what is missing.",
    "demo": "Show the whole chain on a simulated line.",
}
EXIT_INTERNAL = 70  # BSD's EX_SOFTWARE
EXIT_PIPE_CLOSED = 141  # 128 + SIGPIPE


class PipeClosedError(Exception):
    """Whoever read standard output has left."""


class LazyGroup(click.Group):
    """A group whose commands are modules of this package, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"edge_ad.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:  # click would end the process with code 1
            raise PipeClosedError from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"edge-ad {version('edge-ad')}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def cli() -> None:
    """Anomaly detection on the factory floor."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: of this process by default, which hears signals up to its end then.

    Returns: the exit code; every failure is one line on stderr.
    """
    try:
        if arguments is None:
            supervise_process()
        with supervised() as supervisor, printing():
            try:
                code = _run(arguments)
                if supervisor is not None:
                    supervisor.finish(code)
            except KeyboardInterrupt:
                if supervisor is not None:
                    supervisor.finish(EXIT_INTERRUPTED)
                code = _fail("interrupted", EXIT_INTERRUPTED)
            return code
    except KeyboardInterrupt:  # before there was a command
        return _fail("interrupted", EXIT_INTERRUPTED)


def _run(arguments: list[str] | None) -> int:
    """Raises: KeyboardInterrupt, also in place of what an interrupt has been turned into on its way."""
    try:
        with noticing(_say):
            code = cli.main(args=arguments, prog_name="edge-ad", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        return 2
    except click.ClickException as exc:
        where = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else "edge-ad"
        return _fail(f"{exc.format_message()} (see '{where} --help')", exc.exit_code)
    except click.Abort as exc:
        raise KeyboardInterrupt from exc
    except PipeClosedError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except Exception as exc:
        if was_interrupted():
            raise KeyboardInterrupt from exc
        return _failed(exc)
    return code if isinstance(code, int) else 0


def _failed(exc: Exception) -> int:
    if isinstance(exc, EdgeAdError):
        return _fail(str(exc), exc.exit_code)
    if isinstance(exc, OSError):
        return _fail(f"{exc.filename or 'output'}: {os_reason(exc)}", OutputError.exit_code)
    if os.environ.get("EDGE_AD_TRACEBACK"):
        raise exc
    return _fail(
        f"internal error, a defect in edge-ad: {type(exc).__name__}: {exc}; EDGE_AD_TRACEBACK=1 shows where",
        EXIT_INTERNAL,
    )


def _say(line: str) -> None:
    with suppress(OSError):
        say(line)


def _fail(message: str, code: int) -> int:
    with suppress(OSError):  # where stderr is full or gone, the exit code has to say it
        say("edge-ad: error: " + " ".join(message.split()))
    return code
