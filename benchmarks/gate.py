"""Whether our own benchmarks became slower between two releases, by the statistics of `edge-ad bench`.

    python benchmarks/gate.py OLD.json NEW.json [--fail-above 10%]

Both files are what `pytest benchmarks --benchmark-json FILE` stores. Each benchmark notes one ratio to its yardstick
for every round in `extra_info["yardstick_ratio_rounds"]`; where it also notes `extra_info["yardstick"]`, that has to be
the same in both. Exit code 16 when a benchmark is slower than allowed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edge_ad.errors import ConfigError, EdgeAdError, RegressionError, os_reason
from edge_ad.runtime.instruments.bench.options import share_of
from edge_ad.runtime.instruments.bench.statistics import RULE, Change, compare

ROUNDS = "yardstick_ratio_rounds"
YARDSTICK = "yardstick"
MACHINE = ("node", "machine", "system", "python_version")


@dataclass(frozen=True)
class Stored:
    """Attributes:
    rounds: ratios of every benchmark that noted them, by its full name.
    yardsticks: what they are ratios to, where that was noted.
    without: names of those that noted none.
    machine: what pytest-benchmark says about it.
    """

    rounds: dict[str, list[float]]
    yardsticks: dict[str, str]
    without: list[str]
    machine: dict[str, str]


def read_stored(path: Path) -> Stored:
    """Read what pytest-benchmark stored. Raises: ConfigError when it cannot be read or holds no benchmarks."""
    try:
        data = json.loads(path.read_bytes())
        found = {str(each["fullname"]): each.get("extra_info", {}) for each in data["benchmarks"]}
        machine = {name: str(data.get("machine_info", {}).get(name)) for name in MACHINE}
        cpu = data.get("machine_info", {}).get("cpu", {})
        machine["processor"] = str(cpu.get("brand_raw"))
    except OSError as exc:
        raise ConfigError(str(path), [f"cannot be read: {os_reason(exc)}"]) from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigError(str(path), ["wanted JSON of pytest-benchmark, as --benchmark-json stores it"]) from exc
    rounds, faults = {}, []
    for name, extra in found.items():
        if ROUNDS in extra:
            rounds[name] = extra[ROUNDS]
            if not _are_ratios(extra[ROUNDS]):
                faults.append(f"{name}: {ROUNDS}: wanted a list of numbers above 0")
    if faults:
        raise ConfigError(str(path), faults)
    yardsticks = {name: str(extra[YARDSTICK]) for name, extra in found.items() if YARDSTICK in extra}
    return Stored(rounds, yardsticks, sorted(found.keys() - rounds.keys()), machine)


def compare_stored(old: Stored, new: Stored, limit: float) -> dict[str, Change]:
    """Every benchmark that both have, by name. Raises: ConfigError when there is none, or the yardstick is another."""
    names = [name for name in old.rounds if name in new.rounds]
    if not names:
        raise ConfigError("benchmarks", [f"wanted at least one with {ROUNDS} that both files hold, got none"])
    faults = [
        f"{name}: measured against another yardstick; measure the old release again"
        for name in names
        if old.yardsticks.get(name) != new.yardsticks.get(name)
    ]
    if faults:
        raise ConfigError("benchmarks", faults)
    return {name: compare(old.rounds[name], new.rounds[name], limit=limit, comparisons=len(names)) for name in names}


def notes(old: Stored, new: Stored) -> list[str]:
    """What was not compared, and what about the machine is not the same: one line each."""
    lines = [f"only in the old file: {name}" for name in sorted(old.rounds.keys() - new.rounds.keys())]
    lines += [f"only in the new file: {name}" for name in sorted(new.rounds.keys() - old.rounds.keys())]
    lines += [f"without ratios, not compared: {name}" for name in sorted({*old.without, *new.without})]
    lines += [
        f"another {name}: {value} became {new.machine[name]}; a change may come from that"
        for name, value in old.machine.items()
        if value != new.machine[name]
    ]
    return lines


def _are_ratios(values: object) -> bool:
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    return numbers and bool(values) and all(0 < value < float("inf") for value in values)  # type: ignore[attr-defined]


def print_changes(changes: Mapping[str, Change]) -> None:
    """One line for each, the slowest first."""
    width = max(map(len, changes))
    for name, change in sorted(changes.items(), key=lambda item: -item[1].ratio):
        ratio, low, high = ((value - 1) * 100 for value in (change.ratio, change.low, change.high))
        print(f"{name:{width}}  {ratio:+7.1f} %  ({low:+.1f} to {high:+.1f} %)  {change.finding}")


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--fail-above", default="10%", help="Share by which a benchmark may be slower.")
def main(old: Path, new: Path, fail_above: str) -> None:
    """Compare two files of pytest-benchmark."""
    try:
        gate(old, new, fail_above)
    except EdgeAdError as exc:
        print(f"gate: error: {' '.join(str(exc).split())}", file=sys.stderr)
        sys.exit(exc.exit_code)


def gate(old: Path, new: Path, fail_above: str) -> dict[str, Any]:
    """Print the comparison. Raises: RegressionError where something is slower than allowed; ConfigError."""
    limit = share_of(fail_above)
    before, after = read_stored(old), read_stored(new)
    changes: dict[str, Any] = compare_stored(before, after, limit)
    print_changes(changes)
    print(RULE)
    for line in notes(before, after):
        print(f"note: {line}")
    slower = [name for name, change in changes.items() if change.finding == "slower"]
    if slower:
        raise RegressionError(f"slower by more than {limit:.0%}: {', '.join(slower)}")
    return changes


if __name__ == "__main__":
    main()
