"""Families x presets x data sets, and anomalib's models beside them: accuracy, time and memory, in one command.

    python benchmarks/quality/quality.py -o FOLDER [DATA ...] [--only NAME ...] [--seeds 3] [--minutes 10]
                                         [--anomalib PYTHON]

DATA are folders in the layout of MVTec AD, by default the cookies, aliens and ball screws of EDGE_AD_SHARED. Every
configuration (`configurations.py`) goes through the command line: train, export, eval, calibrate, eval, bench;
anomalib's train and judge in an environment of their own (`../peers/anomalib.txt`; `--anomalib make` makes it). Each
result is a file FOLDER/results/DATA.CONFIGURATION.SEED.json as soon as it is there: what was killed goes on where it
was, and a deleted file is measured again. FOLDER/quality.{md,csv,json,svg} are made of all of them.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

from configurations import ANOMALIB, OURS, Configuration, chosen
from results import as_csv, as_json, as_markdown, better_peers, place, points, read_all, rows, write
from runs import Setting, environment, measured

SETS = ("cookies", "aliens", "ballscrew")


@click.command(help=__doc__.split("\n")[0])
@click.argument("data", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--only", multiple=True, help="Configurations, by name (default: all).")
@click.option("--seeds", default=3, type=click.IntRange(min=1))
@click.option("--minutes", default=10.0, help="That one training may take at most.")
@click.option("--rounds", default=25, help="Frames of anomalib's that are timed.")
@click.option("--threads", default=2)
@click.option("--anomalib", default="none", help="make, none, or the Python of an environment that has it.")
@click.option("--tables-only", is_flag=True, help="Measure nothing.")
def main(
    data: tuple[Path, ...],
    output: Path,
    only: tuple[str, ...],
    seeds: int,
    minutes: float,
    rounds: int,
    threads: int,
    anomalib: str,
    tables_only: bool,
) -> None:
    try:
        configurations = chosen(only)
    except ValueError as exc:
        raise click.UsageError(f"--only {exc}") from exc
    (output / "results").mkdir(parents=True, exist_ok=True)
    environment(threads)
    if not tables_only:
        with ExitStack() as stack:
            python = environment_of(anomalib, configurations, stack)
            setting = Setting(output / "work", python, minutes, rounds, threads)
            measure_all(configurations, data or default_sets(), seeds, output / "results", setting)
    conclude(output)


def environment_of(choice: str, configurations: list[Configuration], stack: ExitStack) -> Path | None:
    """anomalib's Python, where one is needed and there is one."""
    from environment import UnavailableError, chosen_environment

    if all(each.side != ANOMALIB for each in configurations):
        return None
    try:
        return stack.enter_context(chosen_environment(choice, say))
    except UnavailableError as exc:
        say(f"anomalib is left out: {exc}")
        return None


def default_sets() -> tuple[Path, ...]:
    from contenders import shared_folder

    shared = shared_folder()
    if shared is None:
        raise click.UsageError("EDGE_AD_SHARED names no folder with data/cookies; give DATA")
    return tuple(shared / "data" / name for name in SETS)


def measure_all(
    configurations: list[Configuration], data: tuple[Path, ...], seeds: int, folder: Path, setting: Setting
) -> None:
    """Seed by seed, so that whoever stops early has all configurations with fewer seeds."""
    for seed in range(seeds):
        for each in data:
            for configuration in configurations:
                path = place(folder, configuration.name, each.name, seed)
                if path.exists() or (configuration.side == ANOMALIB and setting.python is None):
                    continue
                say(f"{each.name}, {configuration.name}, seed {seed}")
                result = measured(configuration, each.resolve(), seed, setting)
                write(path, result)
                if result.reason:
                    say(f"warning: {result.reason}")


def conclude(output: Path) -> None:
    """Tables and chart of all results that there are."""
    from plot import pareto

    found = rows(read_all(output / "results"))
    names = list(dict.fromkeys(row.data for row in found))
    charted = {name: points(found, name) for name in names}
    text = as_markdown(found)
    for name, each in charted.items():
        pairs = better_peers(each, OURS)
        told = [f"{peer.name} ({peer.auroc:.3f}, {peer.ms:.1f} ms) beats {mine.name}" for peer, mine in pairs]
        text += f"\n\n{name}: {'; '.join(told) or 'no peer is both more accurate and faster than a model on our front'}"
    (output / "quality.md").write_text(text + "\n", "utf-8")
    (output / "quality.csv").write_text(as_csv(found), "utf-8")
    (output / "quality.json").write_text(as_json(found), "utf-8")
    (output / "quality.svg").write_bytes(pareto(charted))
    print(text)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
