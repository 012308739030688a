"""anomalib's EfficientAd with drawn weights and fitted statistics → its checkpoint, and its exports.

    python anomalib_efficientad.py '{"checkpoint": …}'

Runs in the environment of `anomalib.txt`, which has no edge-ad. The argument is the JSON of `told` in
`family_efficientad.py`; the last line of standard output is JSON with the paths.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from anomalib_export import write_exports


def drawn(network: Any) -> None:
    """Weights that keep what pictures say: with torch's own, answers are biases, and all patches look alike."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


def batches(good: Path, side: int) -> list[Any]:
    """Good pictures as anomalib's data loaders give them, as far as its fitting looks."""
    import torch
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor, resize

    found = []
    for path in sorted(good.iterdir()):
        with Image.open(path) as opened:
            image = pil_to_tensor(opened.convert("RGB"))[None].float() / 255
        resized = resize(image, [side, side], antialias=True)
        found.append(SimpleNamespace(image=resized, gt_label=torch.zeros(1, dtype=torch.int64)))
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    told = json.loads(sys.argv[1])
    import torch
    from anomalib.models import EfficientAd
    from anomalib.post_processing import PostProcessor

    side = told["side"]
    model = EfficientAd(
        model_size="small",
        pre_processor=EfficientAd.configure_pre_processor((side, side)),
        post_processor=PostProcessor(enable_normalization=False),  # which clips, and a score that is clipped says less
    )
    drawn(model.model)
    model.eval()
    good = batches(Path(told["good"]), side)
    model.model.mean_std.update(model.teacher_channel_mean_std(good))
    model.model.quantiles.update(model.map_norm_quantiles(good))
    settings = {"padding": False, "pad_maps": True}
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": settings}, told["checkpoint"])
    write_exports(model, told)


if __name__ == "__main__":
    main()
