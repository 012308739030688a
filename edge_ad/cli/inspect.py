"""`edge-ad inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.inspection_options import place_options, png_bytes, with_given
from edge_ad.cli.option import text_option
from edge_ad.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.bundle.inspection import Inspection
    from edge_ad.image.inspected import Inspector

DROPPED = {
    "roi": ("roi",),
    "polygons": ("polygons",),
    "ignore": ("ignore",),
    "min-area": ("min_area_px", "min_area_mm2", "mm_per_px"),
    "align": ("align",),
}
WHERE = "inspect options"


@click.command(name="inspect", short_help="Say what of a frame a bundle inspects, and how the part is found.")
@click.argument("bundle")
@place_options
@click.option("--polygon", multiple=True, metavar="'X,Y X,Y X,Y'", help="Inspect what lies inside; any number of them.")
@text_option("--ignore", metavar="PNG", help="Mask of the frame's size; what is not black in it is ignored.")
@text_option("--min-area-px", metavar="N", help="Least area of a defect in frame pixels.")
@text_option("--min-area-mm2", metavar="A", help="The same on the part; needs --mm-per-px.")
@text_option("--mm-per-px", metavar="S", help="Side of a frame pixel on the part.")
@click.option("--drop", multiple=True, metavar="WHAT", help=f"Take out {', '.join(DROPPED)}, or all.")
@text_option("--frame", metavar="PICTURE", help="A frame to try it on; nothing is written where it does not fit.")
@text_option("-o", "--output", metavar="NEW", help="Directory of the bundle to write.")
@click.option("--in-place", is_flag=True, default=None, help="Replace BUNDLE instead.")
@click.option("--force", is_flag=True, default=None, help="Replace an existing bundle at NEW.")
def command(**given: Any) -> None:
    """Write into a bundle what of a frame counts: for scores, regions, masks, and all figures of 'eval'.

    What an option says takes the place of what BUNDLE said of that before; the rest of it stays. All is said for one
    frame, in its pixels, and moves along where --align finds the part elsewhere. Pictures go into the bundle. Frames
    that are judged are whole ones; pictures for training are cut with 'edge-ad cut' and the same --roi and --align.
    """
    from edge_ad.bundle.bundle import Bundle, check_destination, write_changed
    from edge_ad.calibration.destination import ChangedBundle
    from edge_ad.image.inspected import Inspector, path_in
    from edge_ad.runtime.host.opencv import load_cv2
    from edge_ad.validation import build, plain

    place = {key: given[key] for key in ("bundle", "output", "in_place", "force") if given[key] is not None}
    options = build(ChangedBundle, place, WHERE)
    faults = [*options.destination_faults(), *_drop_faults(given["drop"])]
    if faults:
        raise ConfigError(WHERE, faults)
    bundle = Bundle.read(options.bundle)
    check_destination(options.destination, replace=options.replaces)
    load_cv2()
    before = bundle.manifest.inspection
    dropped = {key for what in given["drop"] for key in (sum(DROPPED.values(), ()) if what == "all" else DROPPED[what])}
    kept = {key: value for key, value in (plain(before) if before else {}).items() if key not in dropped}
    spec = with_given(kept, given, WHERE)
    new = {name for name in (given["ignore"], given["align"]) if name is not None}
    held = path_in(bundle)
    inspector = Inspector(spec, lambda name: name if name in new else held(name))
    inspector.check(bundle.manifest.postprocess)
    if inspector.ignored is not None:  # which has the size of the frame
        inspector.check_frame((inspector.ignored.shape[0], inspector.ignored.shape[1]))
    spec, files = _stored(spec, inspector, new)
    if given["frame"] is not None:
        click.echo(_tried(inspector, bundle, given["frame"]), err=True)
    without = set(before.files if before else ()) - set(spec.files)
    changes = {"inspection": None if spec.is_everything else plain(spec)}
    written = write_changed(
        bundle, options.destination, changes, files=files, without=without, replace=options.replaces
    )
    if bundle.manifest.thresholds.image is not None or bundle.manifest.precision_thresholds:
        click.echo("note: the threshold was chosen before; choose it again with 'edge-ad threshold'", err=True)
    click.echo(str(written.path))


def _drop_faults(drop: tuple[str, ...]) -> list[str]:
    strange = [what for what in drop if what not in (*DROPPED, "all")]
    return [f"drop: wanted {', '.join(DROPPED)} or all, got {', '.join(map(repr, strange))}"] if strange else []


def _stored(spec: Inspection, inspector: Inspector, new: set[str]) -> tuple[Inspection, dict[str, bytes]]:
    """The inspection with names of files in the bundle, and their content where they are new."""
    from dataclasses import replace

    from edge_ad.bundle.inspection import IGNORE_FILE, TEMPLATE_FILE

    files: dict[str, bytes] = {}
    if spec.ignore in new and inspector.ignored is not None:
        files[IGNORE_FILE] = png_bytes(inspector.ignored.view("uint8") * 255)
        spec = replace(spec, ignore=IGNORE_FILE)
    if spec.align is not None and spec.align.template in new and inspector.template is not None:
        files[TEMPLATE_FILE] = png_bytes(inspector.template.grey)
        spec = replace(spec, align=replace(spec.align, template=TEMPLATE_FILE))
    return spec, files


def _tried(inspector: Inspector, bundle: Bundle, picture: str) -> str:
    """What became of one frame, in a line. Raises: ImageError where it does not fit."""
    import numpy as np

    from edge_ad.image.padding import frame_score
    from edge_ad.image.pictures import read_picture
    from edge_ad.image.preprocess import Preprocessor

    manifest = bundle.manifest
    preprocess = Preprocessor(manifest.preprocess)
    try:
        looked = inspector.look(preprocess, read_picture(picture))
    finally:
        preprocess.close()
    if looked.reason is not None:
        raise ImageError(f"picture {picture}: {looked.reason}")
    patches, pixels = (
        np.zeros([side or 1 for side in output.shape[1:]], np.float32) for output in manifest.outputs[:2]
    )
    try:
        frame_score(patches, pixels, 0.0, looked.model_input.geometry, manifest.postprocess)
    except ImageError as exc:
        raise ImageError(f"picture {picture}: {exc}") from exc
    said = [f"inspected: {list(looked.model_input.geometry.inspected_box)}"]
    if looked.inspected is not None:
        said += [f"{key} {value}" for key, value in looked.inspected.entries().items() if key != "polygons"]
    return f"{picture}: {', '.join(said)}"
