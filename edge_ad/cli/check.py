"""`edge-ad check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_ad.cli.option import text_option
from edge_ad.errors import ConfigError


@click.command(name="check", short_help="Say what is wrong with a line's file, without opening a camera.")
@click.option("-c", "--config", "config", metavar="FILE", required=True, help="The file of 'edge-ad run -c'.")
@text_option("--bundle", metavar="DIR", help="In place of the file's.")
@text_option("--engine", metavar="NAME", help="In place of the file's.")
@text_option("--output", metavar="DIR", help="In place of the file's.")
def command(config: str, **given: Any) -> int:
    """Look at a line before it runs: its file, bundle, engine, sources, folders, secrets and thresholds.

    Says everything that stands in its way, one line each, with the key path in the file. The exit code is that of the
    first kind of them, in the order of the codes: 3 the file, 5 the bundle, 7 a source, 10 a missing package, 11 a
    folder. No camera is opened, no model loaded, nothing written.
    """
    from edge_ad.runtime.station.check import Finding, check_line
    from edge_ad.runtime.station.file import examine_line

    options = {key: value for key, value in given.items() if value is not None}
    settings, faults = examine_line(Path(config), options)
    report = check_line(settings, unknown_bundle=any(fault.startswith("bundle:") for fault in faults))
    findings = [*(Finding(*_split(fault)) for fault in faults), *report.findings]
    for finding in findings:
        click.echo(f"edge-ad: error: {config}: {finding.line}", err=True)
    for hint in report.remarks:
        click.echo(f"warning: {config}: {hint}", err=True)
    if findings:
        return min(finding.error.exit_code for finding in findings)
    cameras = f"{len(settings.cameras)} camera{'s' if len(settings.cameras) > 1 else ''}"
    click.echo(f"{config}: nothing stands in the way of this line ({cameras}, engine {settings.engine})")
    return 0


def _split(fault: str) -> tuple[str, ConfigError]:
    where, _, what = fault.partition(": ")
    return where, ConfigError(where, [what])
