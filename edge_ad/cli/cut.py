"""`edge-ad cut`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.inspection_options import place_options, png_bytes, with_given
from edge_ad.cli.option import text_option
from edge_ad.cli.printable import say
from edge_ad.errors import ConfigError, ImageError, OutputError, SourceError, os_reason

if TYPE_CHECKING:
    from edge_ad.image.inspected import Inspector

WHERE = "cut options"


@click.command(name="cut", short_help="Cut the part out of frames, as the line will, for training.")
@click.argument("sources", nargs=-1, required=True)
@place_options
@text_option("-o", "--output", metavar="DIR", help="Folder for the cut pictures; below it names stay as they were.")
def command(sources: tuple[str, ...], output: str | None, **given: Any) -> None:
    """Cut from the pictures and folders in SOURCES what a model that is trained on it will be shown at the line.

    Pictures are written as PNG, without loss, and none is replaced. Those in which the part is not found, or lies
    partly outside, are named and left out. The bundle gets the same --roi, --align and --at with 'edge-ad inspect'.
    """
    from edge_ad.image.inspected import Inspector
    from edge_ad.runtime.host.opencv import load_cv2

    spec = with_given({}, given, WHERE)
    faults = [] if output else ["output: missing; wanted a folder for the cut pictures"]
    if spec.is_everything:
        faults.append("roi: wanted --roi or --align, else nothing is cut")
    if faults:
        raise ConfigError(WHERE, faults)
    load_cv2()
    inspector = Inspector(spec)
    wanted = _targets(sources, Path(output or ""))
    if not wanted:
        raise SourceError(f"{', '.join(sources)}: no picture; name pictures or folders of them")
    lost = sum(_is_left_out(inspector, path, target) for target, path in wanted.items())
    if lost == len(wanted):
        raise SourceError(f"{', '.join(sources)}: none of {lost} pictures could be cut")
    say(f"{len(wanted) - lost} of {len(wanted)} pictures are cut" + (f"; {lost} are left out" if lost else ""))
    click.echo(output)


def _targets(sources: Iterable[str], output: Path) -> dict[Path, str]:
    """Where each picture goes. Raises: SourceError; OutputError where something would be replaced."""
    from edge_ad.image.pictures import pictures_below

    targets: dict[Path, str] = {}
    for source in sources:
        if not os.path.exists(source):
            raise SourceError(f"{source}: does not exist; name pictures or folders of them")
        paths = pictures_below(source) if os.path.isdir(source) else [source]
        root = source if os.path.isdir(source) else os.path.dirname(source)
        for path in paths:
            target = output / Path(os.path.relpath(path, root or ".")).with_suffix(".png")
            if target in targets:
                raise OutputError(f"{path} and {targets[target]} would both become {target}; cut them one by one")
            if target.exists():
                raise OutputError(f"{target} exists; nothing is replaced, choose another folder with --output")
            targets[target] = path
    return targets


def _is_left_out(inspector: Inspector, path: str, target: Path) -> bool:
    """Cut one picture, or say why not."""
    from edge_ad.disk.storage import write_new
    from edge_ad.image.boxes import cropped, holds
    from edge_ad.image.pictures import read_picture

    try:
        image = read_picture(path)
        placed = inspector.place(image)
    except ImageError as exc:
        say(f"left out: {exc}" if path in str(exc) else f"left out: {path}: {exc}")
        return True
    reason = placed.reason
    if reason is None and not holds((image.shape[0], image.shape[1]), placed.box):
        reason = "the part has moved, and what would be cut out reaches beyond the frame; give --roi around the part"
    if reason is not None:
        say(f"left out: {path}: {reason}")
        return True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_new(target, png_bytes(cropped(image, placed.box)))
    except OSError as exc:
        raise OutputError(f"{target}: cannot be written: {os_reason(exc)}") from exc
    return False
