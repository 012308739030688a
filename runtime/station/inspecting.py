"""What a camera of a line inspects: its own section of the file, or what the bundle says."""

from __future__ import annotations

from dataclasses import replace

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.inspection import EVERYTHING
from edge_ad.image.inspected import Inspector, path_in
from edge_ad.runtime.station.settings import CameraSettings


def inspector_for(camera: CameraSettings, bundle: Bundle) -> Inspector | None:
    """What looks at the frames of a camera; None where it is what the bundle says.

    Raises: ImageError for a picture that cannot be read; ConfigError for what cannot be done with the bundle's scores.
    """
    if camera.inspect is None and not camera.polygons:
        return None
    own = camera.inspect is not None
    spec = camera.inspect or bundle.manifest.inspection or EVERYTHING
    if camera.polygons:
        spec = replace(spec, polygons=camera.polygons)
    inspector = Inspector(spec) if own else Inspector(spec, path_in(bundle))
    inspector.check(bundle.manifest.postprocess)
    return inspector
