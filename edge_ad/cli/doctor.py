"""`edge-ad doctor`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edge_ad.cli.option import text_option

if TYPE_CHECKING:
    from edge_ad.runtime.instruments.doctor.check import Check, State
    from edge_ad.runtime.instruments.doctor.examine import Report

COLORS: dict[State, str] = {"ok": "green", "missing": "yellow", "broken": "red", "note": "cyan"}


@click.command(name="doctor", short_help="Say what this machine has, what is missing and what brings it.")
@click.argument("bundle", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--require",
    metavar="NAME",
    multiple=True,
    help="Fail (exit code 9) unless this check is ok, such as tensorrt or cameras; may be given several times.",
)
@text_option("--engine-cache", metavar="DIR", help="Folder for engines (default: the user's cache folder).")
def command(bundle: str | None, as_json: bool, require: tuple[str, ...], engine_cache: str | None) -> None:
    """Look at everything that edge-ad can use on this machine, and print a page for a bug report.

    With BUNDLE, say also whether it is sound and which engines in the cache are made from it and fit this machine.
    Nothing is changed, no camera is opened, and what hangs or crashes is a finding. The exit code is 0 when OpenVINO
    and the base packages work.
    """
    from edge_ad.runtime.instruments.doctor.examine import examine_here
    from edge_ad.runtime.instruments.doctor.storage import Wanted

    report = examine_here(Wanted(bundle, engine_cache), require)
    click.echo(_as_json(report) if as_json else _page(report))
    report.raise_failure()


def _as_json(report: Report) -> str:
    facts = {
        "sections": [asdict(section) for section in report.sections],
        "required": list(report.required),
        "failed": [check.name for check in report.failed()],
    }
    return json.dumps(facts, indent=2)


def _page(report: Report) -> str:
    width = max(len(check.name) for check in report.checks)
    lines = []
    for section in report.sections:
        lines.append(click.style(section.title, bold=True))
        for check in section.checks:
            lines += _lines(check, width)
        lines.append("")
    counts = Counter(check.state for check in report.checks)
    lines.append(", ".join(f"{counts[state]} {state}" for state in COLORS if counts[state]))
    failed = report.failed()
    if failed:
        lines.append(f"needed, and not working: {', '.join(check.name for check in failed)}")
    else:
        lines.append("what edge-ad needs is there")
    return "\n".join(lines)


def _lines(check: Check, width: int) -> list[str]:
    state = click.style(f"{check.state:7}", fg=COLORS[check.state])
    indent = " " * (width + 13)
    lines = [f"  {state}  {check.name:{width}}  {check.found}"]
    lines += [f"{indent}- {detail}" for detail in check.details]
    if check.remedy is not None:
        lines.append(f"{indent}fix: {check.remedy}")
    return lines
