"""Our bank → anomalib's Patchcore → anomalib's own export to OpenVINO and ONNX.

    python anomalib_patchcore.py '{"checkpoint": …}'

Runs in the environment of `anomalib.txt`, which has no edge-ad. The argument is the JSON of `told` in
`family_patchcore.py`; the last line of standard output is JSON with the paths.
"""

from __future__ import annotations

import json
import sys
import warnings

from anomalib_export import TIMM_NAMES, in_order, write_exports


def main() -> None:
    warnings.simplefilter("ignore")
    told = json.loads(sys.argv[1])
    import torch
    from anomalib.models import Patchcore
    from anomalib.post_processing import PostProcessor

    data = torch.load(told["checkpoint"], map_location="cpu", weights_only=True)
    config = data["config"]
    backbone, renamed = TIMM_NAMES[config["backbone"]]
    layers = [renamed.get(layer, layer) for layer in config["layers"]]
    side = told["side"]
    model = Patchcore(
        backbone=backbone,
        layers=layers,
        pre_trained=False,  # else it is fetched; the weights follow
        num_neighbors=config["neighbours"],
        pre_processor=Patchcore.configure_pre_processor((side, side)),
        post_processor=PostProcessor(enable_normalization=False),  # it clips, and a score that is clipped ranks nothing
    )
    weights = torch.load(told["weights"], map_location="cpu", weights_only=True)
    features = model.model.feature_extractor.feature_extractor
    features.load_state_dict(in_order(features.state_dict(), weights, layers[-1]))
    model.model.memory_bank = data["memory_bank"]
    write_exports(model, told)


if __name__ == "__main__":
    main()
