"""A GLASS checkpoint in the authors' format → anomalib's Glass → anomalib's own export to OpenVINO and ONNX.

    python anomalib_export.py '{"checkpoint": …}'

Runs in the environment of `anomalib.txt`, which has no edge-ad. The argument is the JSON of `Exported` in `exports.py`;
the last line of standard output is JSON with the paths.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

TIMM_NAMES = {
    "mobilenet_v2": ("mobilenetv2_100", {"features.6": "blocks.2", "features.13": "blocks.4"}),
    "resnet18": ("resnet18", {}),
    "wide_resnet50_2": ("wide_resnet50_2", {}),
}
"""Name of a torchvision backbone in timm, which anomalib takes it from, and of its layers where they differ."""

ONE_IMAGE: dict[str, Any] = {"dynamic_axes": None}
"""Without it the export of 2.7.0 leaves a graph that takes two images, and its inferencer cannot judge one."""


def in_order(target: dict[str, Any], source: dict[str, Any], last_layer: str) -> dict[str, Any]:
    """Tensors of `source` under the names of `target`, of the same network in another package: by order and shape.

    Counters of batches are left out. Behind the last layer that is tapped either may have more than the other: what
    `target` has there stays, for no output depends on it. Raises: ValueError.
    """
    ignored = "num_batches_tracked"
    names = [name for name in target if not name.endswith(ignored)]
    values = [value for name, value in source.items() if not name.endswith(ignored)]
    for name, value in zip(names, values, strict=False):
        if target[name].shape != value.shape:
            raise ValueError(f"{name}: wanted {tuple(target[name].shape)}, got {tuple(value.shape)}")
    needed = max(number for number, name in enumerate(names, 1) if name.startswith(f"{last_layer}."))
    if needed > len(values):
        raise ValueError(f"wanted {needed} tensors, got {len(values)}")
    return {**target, **dict(zip(names, values, strict=False))}


def unscaled(post_processor: Any) -> None:
    """Let probabilities through as they are: anomalib has no statistics of a validation set here, and scales by NaN."""
    for name, value in (("min", 0.0), ("max", 1.0), ("threshold", 0.5)):
        getattr(post_processor, f"_image_{name}" if name == "threshold" else f"image_{name}").fill_(value)
        getattr(post_processor, f"_pixel_{name}" if name == "threshold" else f"pixel_{name}").fill_(value)


def write_exports(model: Any, told: dict[str, Any]) -> None:
    """anomalib's own exports of a model, one for each size of `told["frames"]`: where they lie is the last line of
    standard output."""
    model.eval()
    paths: dict[str, dict[str, str]] = {}
    for name, frame_hw in told["frames"].items():
        size, output = tuple(frame_hw), Path(told["output"]) / name
        written = {
            "openvino": model.to_openvino(output, input_size=size, onnx_kwargs=dict(ONE_IMAGE)),
            "onnx": model.to_onnx(output, input_size=size, **ONE_IMAGE),
        }
        paths[name] = {form: str(path) for form, path in written.items()}
    print(json.dumps(paths))


def main() -> None:
    warnings.simplefilter("ignore")
    told = json.loads(sys.argv[1])
    import torch
    from anomalib.models import Glass

    backbone, renamed = TIMM_NAMES[told["backbone"]]
    side = told["side"]
    layers = [renamed.get(layer, layer) for layer in told["layers"]]
    model = Glass(
        input_shape=(side, side),
        backbone=backbone,
        layers=layers,
        pretrain_embed_dim=told["embed_dim"],
        target_embed_dim=told["embed_dim"],
        discriminator_hidden=told["hidden_dim"],
        pre_trained=False,  # else it is fetched; the weights follow
        pre_processor=Glass.configure_pre_processor(tuple(told["resize_hw"]), (side, side)),
    )
    network = model.model
    checkpoint = torch.load(told["checkpoint"], map_location="cpu", weights_only=True)
    weights = torch.load(told["weights"], map_location="cpu", weights_only=True)
    network.discriminator.load_state_dict(checkpoint["discriminator"])
    network.projection.load_state_dict(checkpoint["pre_projection"])
    features = network.forward_modules["feature_aggregator"].feature_extractor
    features.load_state_dict(in_order(features.state_dict(), weights, layers[-1]))
    unscaled(model.post_processor)
    write_exports(model, told)


if __name__ == "__main__":
    main()
