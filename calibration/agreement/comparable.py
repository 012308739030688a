"""Whether the maps of two bundles can be compared pixel by pixel."""

from __future__ import annotations

from edge_ad.bundle.inspection import EVERYTHING, Inspection
from edge_ad.bundle.manifest import Manifest
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import ConfigError


def check_comparable(reference: Manifest, candidate: Manifest) -> list[str]:
    """Refuse bundles whose model pixels show different parts of a frame.

    Returns: what else is different and may explain differences of the maps or of the scores, one line each.

    Raises: ConfigError with everything that is in the way.
    """
    ours, theirs = reference.preprocess, candidate.preprocess
    faults = []
    if ours.size_hw != theirs.size_hw:
        faults.append(f"model input: {_size(ours)} pixels in A, {_size(theirs)} in B")
    if ours.resize_mode != theirs.resize_mode:
        faults.append(f"resize mode: {ours.resize_mode} in A, {theirs.resize_mode} in B")
    elif not faults and _shorter_side(ours) != _shorter_side(theirs):
        faults.append(f"shorter side before the crop: {_shorter_side(ours)} pixels in A, {_shorter_side(theirs)} in B")
    one, other = (each.inspection or EVERYTHING for each in (reference, candidate))
    if one.roi != other.roi:
        faults.append(f"inspected box: {_box(one)} in A, {_box(other)} in B")
    if _place(one) != _place(other):
        faults.append("alignment: parts are looked for at other places in A than in B")
    if faults:
        raise ConfigError("compare", [*faults, "maps of different parts of a frame cannot be compared"])
    notes = [
        f"preprocessing: {name} is {getattr(ours, name)} in A and {getattr(theirs, name)} in B"
        for name in ("filter", "mean", "std", "pad_rgb")
        if getattr(ours, name) != getattr(theirs, name)
    ]
    notes += [
        f"inspection: {what} are not the same in A and B, so other pixels count"
        for what, name in (("polygons", "polygons"), ("ignore masks", "ignore"), ("least areas", "least_area_px"))
        if getattr(one, name) != getattr(other, name)
    ]
    return notes + [
        f"post-processing: {name} is {getattr(reference.postprocess, name)} in A and"
        f" {getattr(candidate.postprocess, name)} in B"
        for name in ("sigma", "truncate", "score")
        if getattr(reference.postprocess, name) != getattr(candidate.postprocess, name)
    ]


def _size(spec: PreprocessSpec) -> str:
    return f"{spec.width}×{spec.height}"


def _box(inspection: Inspection) -> str:
    return "all of the frame" if inspection.roi is None else str(list(inspection.roi))


def _place(inspection: Inspection) -> tuple[object, ...] | None:
    return None if inspection.align is None else (inspection.align.at, inspection.align.reach_px)


def _shorter_side(spec: PreprocessSpec) -> int | None:
    if spec.resize_mode != "shorter_side_crop":
        return None
    return spec.resize if spec.resize is not None else min(spec.size_hw)
