"""The quantizers that `quantizers.py` compares, each as a function from a float graph to a file in int8."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_ad.calibration.quantize.qdq import OPTIONS

Image = NDArray[np.uint8]
"""(1, H, W, 3) RGB at model size."""


@dataclass(frozen=True)
class Task:
    """What a quantizer is given: the float graph in a file, calibration images, and names of nodes to leave float."""

    path: Path
    images: Sequence[Image]
    last: str
    outside: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, images: Sequence[Image]) -> Task:
        """`last` is the last convolution; `outside`, nodes before the first convolution and behind all but the last."""
        nodes = onnx.load_model(path).graph.node
        last = [node.name for node in nodes if node.op_type == "Conv"][-1]
        convolutions = [node for node in nodes if node.op_type == "Conv" and node.name != last]
        behind = _reached(nodes, {name for node in convolutions for name in node.output})
        before = _reached(
            [_reversed(node) for node in reversed(nodes)], {name for node in convolutions for name in node.input}
        )
        outside = tuple(
            n.name for n in nodes if n.op_type != "Constant" and not (n.name in behind and n.name in before)
        )
        inner = {node.name for node in convolutions}
        return cls(path, images, last, tuple(name for name in outside if name not in inner))


def _reached(nodes: Sequence[onnx.NodeProto], tensors: set[str]) -> set[str]:
    names = set()
    for node in nodes:
        if tensors.intersection(node.input):
            tensors = tensors | set(node.output)
            names.add(node.name)
    return names


def _reversed(node: onnx.NodeProto) -> onnx.NodeProto:
    return onnx.helper.make_node(node.op_type, list(node.output), list(node.input), node.name)


class ImageReader:
    """Calibration images for onnxruntime's quantizer."""

    def __init__(self, images: Sequence[Image]) -> None:
        self._images: Iterator[Image] = iter(images)

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def with_onnxruntime(task: Task, output: Path) -> None:
    """The options that TensorRT accepts and edge-ad places its pairs with: symmetric int8, float biases."""
    from onnxruntime.quantization import QuantType

    _quantize(
        task,
        output,
        activation_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=[task.last],
        extra_options=dict(OPTIONS),
    )


def with_onnxruntime_uint8(task: Task, output: Path) -> None:
    """What onnxruntime recommends for its own CPU kernels: asymmetric uint8 activations."""
    from onnxruntime.quantization import QuantType

    _quantize(
        task,
        output,
        activation_type=QuantType.QUInt8,
        op_types_to_quantize=["Conv", "Add"],
        nodes_to_exclude=[task.last, *task.outside],
    )


def _quantize(task: Task, output: Path, **options: Any) -> None:
    """onnxruntime's static quantizer with explicit pairs and an int8 scale for each output channel."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        task.path,
        output,
        ImageReader(task.images),
        quant_format=QuantFormat.QDQ,
        weight_type=QuantType.QInt8,
        per_channel=True,
        **options,
    )


def with_edge_ad(task: Task, output: Path) -> None:
    """What `edge-ad calibrate` writes before its gate: onnxruntime's quantizer on a prepared graph."""
    from edge_ad.calibration.quantize.calibrate import calibrate

    images = [image[0] for image in task.images]
    output.write_bytes(calibrate(task.path.read_bytes(), lambda _: images, "min-max")[0].build())


def with_nncf(task: Task, output: Path) -> None:
    """Symmetric preset, with its own bias correction."""
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    dataset = nncf.Dataset(task.images, lambda image: {"image": image})
    quantized = nncf.quantize(
        onnx.load_model(task.path),
        dataset,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(task.images),
        ignored_scope=nncf.IgnoredScope(names=list(task.outside)),
    )
    onnx.save_model(quantized, output)


def with_modelopt(task: Task, output: Path, method: str = "entropy") -> None:
    """NVIDIA's, for TensorRT; float32 where it does not quantize."""
    from modelopt.onnx.quantization import quantize

    quantize(
        onnx_path=str(task.path),
        quantize_mode="int8",
        calibration_data={"image": np.concatenate(task.images)},
        calibration_method=method,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        nodes_to_exclude=[task.last, *task.outside],
        output_path=str(output),
        log_level="ERROR",
    )


def with_modelopt_max(task: Task, output: Path) -> None:
    """The same with the whole range instead of its default, entropy."""
    with_modelopt(task, output, "max")


@dataclass(frozen=True)
class Quantizer:
    """A row of the table.

    Attributes:
        write: quantizes a task into a file.
        module: has to be importable.
        package: what pip calls it.
    """

    write: Callable[[Task, Path], None]
    module: str
    package: str


QUANTIZERS: dict[str, Quantizer] = {
    "edge-ad": Quantizer(with_edge_ad, "edge_ad", "edge-ad[quantize]"),
    "onnxruntime": Quantizer(with_onnxruntime, "onnxruntime", "onnxruntime"),
    "onnxruntime, uint8": Quantizer(with_onnxruntime_uint8, "onnxruntime", "onnxruntime"),
    "nncf": Quantizer(with_nncf, "nncf", "nncf"),
    "nvidia-modelopt": Quantizer(with_modelopt, "modelopt", "nvidia-modelopt[onnx]"),
    "nvidia-modelopt, max": Quantizer(with_modelopt_max, "modelopt", "nvidia-modelopt[onnx]"),
}
"""The rows; a further quantizer is a function and a line here."""
