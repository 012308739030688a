"""Running the float graph on calibration images, and what is kept of its activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.quantize.graph import Convolution, Floats, Graph
from edge_ad.errors import ExportError, one_line

BINS = 2048  # of a histogram; TensorRT's former calibrator used as many
SAMPLED_POSITIONS = 256  # of a feature map, per image: neighbours say nearly the same
MAX_COLUMNS = 1152  # inputs of one output that second moments are kept of: 128 channels under a 3×3 kernel
IN_OTHER_UNITS = frozenset({"Cast", "Transpose", "Mul", "Add", "Sub", "Div"})
"""Operators that, with constants beside it, leave a picture what it is: black and white stay its ends."""

ModelInputs = Iterable[NDArray[np.uint8]]
"""Images at model size, (H, W, 3) uint8 RGB."""
Activations = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ChannelRange:
    """What was seen of every channel of an activation.

    Attributes:
        low, high: (C,) least and greatest value.
        power: (C,) mean square.
    """

    low: Floats
    high: Floats
    power: Floats

    @property
    def reach(self) -> Floats:
        """(C,) greatest absolute value."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


@dataclass(frozen=True)
class InputMoments:
    """First and second moments of what the outputs of a convolution are computed from.

    Attributes:
        mean: (groups, inputs) of every input of an output: channels of its group times the kernel's positions.
        second: (groups, inputs, inputs), not centred; None where it would be larger than MAX_COLUMNS.
    """

    mean: Floats
    second: Floats | None


def observe(graph: Graph, tensors: Sequence[str], images: ModelInputs) -> Iterable[Activations]:
    """Compute inner tensors for one image after the other with ONNX Runtime.

    Raises: ExportError when the graph cannot be run, or a tensor is not finite.
    """
    import onnx
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        raise ExportError(f"the float graph cannot be run for calibration: {one_line(exc)}") from exc
    image_input = session.get_inputs()[0]
    batch = image_input.shape[0] if isinstance(image_input.shape[0], int) else 1
    for image in images:
        try:
            values = session.run(list(tensors), {image_input.name: np.repeat(image[None], batch, axis=0)})
        except Exception as exc:
            raise ExportError(f"the float graph cannot be run for calibration: {one_line(exc)}") from exc
        for name, value in zip(tensors, values, strict=True):
            if not np.isfinite(value).all():
                raise ExportError(f"the float graph gives values that are not finite in {name}; check its training")
        yield {name: value[:1] for name, value in zip(tensors, values, strict=True)}


def channel_ranges(graph: Graph, layers: Sequence[Convolution], images: ModelInputs) -> dict[str, ChannelRange]:
    """Ranges of the channels of everything that the layers read, by tensor. Raises: ExportError without an image."""
    tensors = sorted({layer.source for layer in layers})
    found: dict[str, tuple[Floats, Floats, Floats]] = {}
    count = 0
    for activations in observe(graph, tensors, images):
        count += 1
        for name, value in activations.items():
            axes = (0, 2, 3)
            low, high = value.min(axes).astype(np.float64), value.max(axes).astype(np.float64)
            power = np.einsum("nchw,nchw->c", value, value, dtype=np.float64) / (value.size / value.shape[1])
            if name in found:
                before = found[name]
                low, high, power = np.minimum(before[0], low), np.maximum(before[1], high), before[2] + power
            found[name] = (low, high, power)
    if not count:
        raise ExportError("calibration: wanted images to measure ranges on, got no image; name a folder with some")
    return {name: ChannelRange(low, high, power / count) for name, (low, high, power) in found.items()}


def of_any_picture(graph: Graph, ranges: Mapping[str, ChannelRange]) -> dict[str, ChannelRange]:
    """The ranges, but for tensors that are the picture in other units: these reach as far as black and white do.

    Good pictures may all be dull; a defect that glares would be cut off before the first layer.
    """
    (image,) = graph.model.graph.input
    pictures = {image.name}
    for node in graph.model.graph.node:
        read = [name for name in node.input if not graph.is_constant(name)]
        if node.op_type in IN_OTHER_UNITS and len(read) == 1 and read[0] in pictures:
            pictures.add(node.output[0])
    found = dict(ranges)
    tensors = sorted(pictures & ranges.keys())
    if tensors:
        height, width = (size.dim_value for size in image.type.tensor_type.shape.dim[1:3])
        for activations in observe(graph, tensors, (np.full((height, width, 3), end, np.uint8) for end in (0, 255))):
            for name, value in activations.items():
                seen, axes = found[name], (0, 2, 3)
                low, high = np.minimum(seen.low, value.min(axes)), np.maximum(seen.high, value.max(axes))
                found[name] = ChannelRange(low, high, seen.power)
    return found


def histograms_and_moments(
    graph: Graph, layers: Sequence[Convolution], reaches: Mapping[str, float], images: ModelInputs, seed: int
) -> tuple[dict[str, NDArray[np.int64]], dict[str, InputMoments]]:
    """Histograms of the absolute values by tensor, and moments by name of the layer.

    Args:
        reaches: greatest absolute value of each tensor: the upper edge of its histogram of BINS bins.
        seed: which positions of the feature maps are looked at for the moments.
    """
    histograms = {name: np.zeros(BINS, np.int64) for name in reaches}
    kernels = {layer.name: graph.constant(layer.weight).shape for layer in layers}
    sums: dict[str, tuple[Floats, Floats | None]] = {}
    rng = np.random.default_rng(seed)
    count = 0
    for activations in observe(graph, sorted(reaches), images):
        count += 1
        for name, value in activations.items():
            histograms[name] += _histogram(value, reaches[name])
        for layer in layers:
            columns = _columns(activations[layer.source][0], layer, kernels[layer.name], rng)
            mean = columns.mean(axis=2, dtype=np.float64)
            second = None
            if columns.shape[1] <= MAX_COLUMNS:
                second = (columns @ columns.transpose(0, 2, 1)).astype(np.float64) / columns.shape[2]
            if layer.name in sums:
                before_mean, before_second = sums[layer.name]
                mean += before_mean
                second = None if second is None or before_second is None else second + before_second
            sums[layer.name] = (mean, second)
    moments = {
        name: InputMoments(mean / count, None if second is None else second / count)
        for name, (mean, second) in sums.items()
    }
    return histograms, moments


def _histogram(value: NDArray[np.float32], reach: float) -> NDArray[np.int64]:
    scale = np.float32(BINS / reach) if reach > 0 else np.float32(0)
    bins = np.minimum((np.abs(value) * scale).astype(np.int32), BINS - 1)
    return np.bincount(bins.ravel(), minlength=BINS).astype(np.int64)


def _columns(
    value_chw: NDArray[np.float32], layer: Convolution, kernel: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """What some outputs of a convolution are computed from: (groups, inputs, positions)."""
    top, left, bottom, right = layer.pads
    padded = np.pad(value_chw, ((0, 0), (top, bottom), (left, right)))
    (_, _, rows, columns), (row_step, column_step) = kernel, layer.dilations
    height = (padded.shape[1] - row_step * (rows - 1) - 1) // layer.strides[0] + 1
    width = (padded.shape[2] - column_step * (columns - 1) - 1) // layer.strides[1] + 1
    chosen = rng.choice(height * width, min(SAMPLED_POSITIONS, height * width), replace=False)
    y = (chosen // width * layer.strides[0])[None, None, :] + (np.arange(rows) * row_step)[:, None, None]
    x = (chosen % width * layer.strides[1])[None, None, :] + (np.arange(columns) * column_step)[None, :, None]
    patches = padded[:, y, x]  # (channels, rows, columns, positions)
    per_group = len(value_chw) // layer.groups * rows * columns
    return np.ascontiguousarray(patches.reshape(layer.groups, per_group, len(chosen)))


Progress = Callable[[ModelInputs, str], ModelInputs]
"""Passes images on and may show how far they are; the text says for what."""
