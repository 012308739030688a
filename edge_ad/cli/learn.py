"""`edge-ad learn`."""

from __future__ import annotations

from typing import Any

import click

from edge_ad.cli.extras import require_extra
from edge_ad.cli.judging import judging_tools
from edge_ad.cli.option import text_option
from edge_ad.cli.printable import say


@click.command(name="learn", short_help="Teach a bundle good pictures that it rejects, or take that back.")
@click.argument("bundle")
@text_option("--good", metavar="DIR", help="Good pictures that were falsely rejected.")
@text_option("--bad", metavar="DIR", help="Defective pictures, to see what it costs.")
@text_option("--undo", metavar="ID", help="Lesson to take back, in place of --good; 'edge-ad info' lists them.")
@text_option("-o", "--output", metavar="NEW", help="Directory of the bundle to write.")
@click.option("--in-place", is_flag=True, default=None, help="Replace BUNDLE instead.")
@text_option("--max-recall-drop", metavar="SHARE", help="Of --bad that may pass because of it (default: 0.02).")
@text_option("--engine", metavar="NAME", help="openvino (default) or onnxruntime.")
@text_option("--engine-cache", metavar="DIR", help="Folder for compiled models (default: the user's cache folder).")
@click.option("--force", is_flag=True, default=None, help="Replace an existing bundle at NEW.")
def command(**given: Any) -> None:
    """Let BUNDLE know patches of good pictures that are at or above its threshold, as few as bring them below it.

    A bank gets them as further entries; other networks get a small bank beside them, which lowers the map only where a
    patch looks like a learned one. No map rises. What was learned, when and from which pictures stands in the
    manifest, and each lesson can be taken back. Where more of the defective pictures would pass than allowed, the exit
    code is 13 and nothing is written. The new bundle holds the float model; int8 is made from it with 'edge-ad
    calibrate'.
    """
    from edge_ad.bundle.bundle import Bundle, check_destination, write_changed
    from edge_ad.calibration.learn.learn import learn, unlearn
    from edge_ad.calibration.learn.options import learn_options
    from edge_ad.runtime.host.opencv import load_cv2

    options = learn_options(given, "learn options")
    require_extra("edge-ad learn", ("onnx", "onnxruntime"), "learn")
    bundle = Bundle.read(options.bundle)
    check_destination(options.destination, replace=options.replaces)
    load_cv2()
    if options.undo is not None:
        made = unlearn(bundle, options)
    else:
        made = learn(bundle, options, judging_tools(bundle, options.engine, options.engine_cache, "fp32"))
    written = write_changed(
        bundle, options.destination, made.changes, files=made.files, without=made.without, replace=options.replaces
    )
    for line in made.lines:
        say(line)
    click.echo(str(written.path))
