"""EfficientAD-S: weights that anomalib's model draws and fits, in its own export and, by its checkpoint, in bundles.

Nobody trained them: scores tell no defects, and only how far the two sides differ. Mean, deviation and quantiles are
those of the good pictures, measured by anomalib.
"""

from __future__ import annotations

from contenders import edge_ad, quantized
from exports import exported
from made import FLOAT, INT8, Made, Wanted

SIDE = 256
CHECKPOINT = "efficientad.ckpt"


def make(wanted: Wanted) -> Made:
    """Raises: UnavailableError without anomalib, for the weights are its."""
    wanted.say("drawing, fitting and exporting with anomalib")
    folder = wanted.folder / "anomalib"
    good, checkpoint = wanted.data / "train" / "good", folder / CHECKPOINT
    told = {"good": str(good), "checkpoint": str(checkpoint), "side": SIDE, "frames": dict(wanted.frames)}
    exports = exported(wanted.available(), "anomalib_efficientad.py", told, folder)
    wanted.say("exporting and quantizing with edge-ad")
    plain = wanted.folder / "plain.edgead"
    edge_ad("export", checkpoint, "-o", plain)
    both = quantized(plain, wanted.data, wanted.folder / "both.edgead")
    bundles = {FLOAT: (both, "fp32"), INT8: (both, "int8")}
    return Made(bundles, exports, trained=False, what="EfficientAD-S, drawn weights")
