"""PatchCore: a bank that edge-ad fits, in anomalib's model, and in bundles that are exported as its checkpoints are.

`edge-ad train --family patchcore --preset fast` fits it: MobileNetV2 at 256², stretched. Map and score of the bundles
are anomalib's (nearest resize, mirrored border, re-weighted score), but for one as the run has them (`map_max`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from contenders import edge_ad, quantized
from environment import UnavailableError
from exports import Exports, exported
from made import FLOAT, INT8, Made, Wanted

from edge_ad.models.patchcore.source import ANOMALIB_BANK

SIDE = 256


def make(wanted: Wanted) -> Made:
    """Fit, export and quantize with the command line, as users do, and let anomalib export."""
    folder = wanted.folder
    run, plain, best = folder / "run", folder / "plain.edgead", folder / "map_max.edgead"
    wanted.say("fitting, exporting and quantizing with edge-ad")
    fitted = ("--family", "patchcore", "--preset", "fast", "--coreset", wanted.coreset)
    edge_ad("train", wanted.data, *fitted, "-o", run)
    edge_ad("export", anomalib_like(run, folder), "--backbone-weights", run / "backbone.pth", "-o", plain)
    edge_ad("export", run, "-o", best)
    both = quantized(plain, wanted.data, folder / "both.edgead")
    best_both = quantized(best, wanted.data, folder / "map_max_both.edgead")
    entries = len(torch.load(run / "ckpt_best_0.pth", weights_only=True)["memory_bank"])
    return Made(
        {FLOAT: (both, "fp32"), INT8: (both, "int8"), "edge-ad, int8, map_max": (best_both, "int8")},
        _exports(wanted, run),
        trained=True,
        what=f"PatchCore, a bank of {entries} ({wanted.coreset})",
    )


def anomalib_like(run: Path, folder: Path) -> Path:
    """The run's checkpoint in anomalib's form, so that it is exported with anomalib's defaults."""
    data = torch.load(run / "ckpt_best_0.pth", weights_only=True)
    config = data["config"]
    told = {"backbone": config["backbone"], "layers": config["layers"], "num_neighbors": config["neighbours"]}
    path = folder / "anomalib.ckpt"
    torch.save({"state_dict": {ANOMALIB_BANK: data["memory_bank"]}, "hyper_parameters": told}, path)
    return path


def _exports(wanted: Wanted, run: Path) -> Exports | UnavailableError:
    wanted.say("exporting with anomalib")
    told = {
        "checkpoint": str(run / "ckpt_best_0.pth"),
        "weights": str(run / "backbone.pth"),
        "side": SIDE,
        "frames": dict(wanted.frames),
    }
    try:
        return exported(wanted.available(), "anomalib_patchcore.py", told, wanted.folder / "anomalib")
    except UnavailableError as exc:
        return exc
