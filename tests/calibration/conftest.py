"""Small float graphs that are put together node by node, and ONNX Runtime and NumPy to compute them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


class SmallNet:
    """A graph that grows by one node for every call; each call returns the name of the tensor that it adds.

    It reads `image` (N, H, W, 3) uint8 as the contract has it, and starts with `pixels` (N, 3, H, W) float in [0, 1].
    Weights and biases are drawn with the seed. `channels` holds the number of channels of every tensor.
    """

    def __init__(self, size_hw: tuple[int, int] = (8, 8), seed: int = 0, batch: int | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.size_hw, self.batch = size_hw, batch
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.channels: dict[str, int] = {}
        self.op("Cast", "image", to=TensorProto.FLOAT)
        nchw = self.op("Transpose", "tensor0", perm=[0, 3, 1, 2])
        self.pixels = self.op("Mul", nchw, self.constant(np.float32(1 / 255)), out="pixels", channels=3)

    def constant(self, value: Any, name: str | None = None) -> str:
        name = name or f"constant{len(self.constants)}"
        self.constants[name] = np.asarray(value, None if np.asarray(value).dtype != np.float64 else np.float32)
        return name

    def op(
        self, kind: str, *inputs: str, out: str | None = None, channels: int | None = None, **attributes: Any
    ) -> str:
        out = out or f"tensor{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], f"{kind}_of_{out}", **attributes))
        known = [self.channels[name] for name in inputs if name in self.channels]
        self.channels[out] = channels or (max(known) if known else 3)
        return out

    def conv(
        self,
        source: str,
        channels: int,
        kernel: int = 1,
        *,
        pads: int = 0,
        strides: int = 1,
        dilations: int = 1,
        groups: int = 1,
        bias: bool | float = True,
        weight: np.ndarray | None = None,
        out: str | None = None,
    ) -> str:
        """A convolution of drawn weights whose outputs have about the power of its inputs; `bias`: spread of them."""
        shape = (channels, self.channels[source] // groups, kernel, kernel)
        drawn = self.rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        inputs = [source, self.constant(drawn if weight is None else weight)]
        if bias:
            inputs.append(self.constant(float(bias) * self.rng.standard_normal(channels)))
        return self.op(
            "Conv",
            *inputs,
            out=out,
            channels=channels,
            kernel_shape=[kernel] * 2,
            pads=[pads] * 4,
            strides=[strides] * 2,
            dilations=[dilations] * 2,
            group=groups,
        )

    def clip(self, source: str, low: float = 0.0, high: float = 6.0) -> str:
        return self.op("Clip", source, self.constant(np.float32(low)), self.constant(np.float32(high)))

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [self.batch or "N", *self.size_hw, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model

    def data(self, *outputs: str) -> bytes:
        return bytes(self.model(*outputs).SerializeToString())


def run_graph(data: bytes, images: np.ndarray, names: Sequence[str] = ()) -> list[np.ndarray]:
    """Outputs of a graph for (N, H, W, 3) uint8, or any of its tensors, computed with one thread."""
    import onnxruntime

    if names:
        model = onnx.load_model_from_string(data)
        present = {value.name for value in model.graph.output}
        model.graph.output.extend(
            helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(names) if name not in present
        )
        data = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(list(names) or None, {"image": images}))


def drawn_images(count: int, size_hw: tuple[int, int] = (8, 8), seed: int = 0) -> np.ndarray:
    """Smooth pictures with some noise, (N, H, W, 3) uint8: neighbours and colours go together as in photographs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size_hw[0], 0 : size_hw[1]] / max(size_hw)
    pictures = []
    for _ in range(count):
        phase, slope = rng.uniform(0, 6, 3), rng.uniform(-6, 6, (2, 3))
        waves = np.sin(y[..., None] * slope[0] + x[..., None] * slope[1] + phase)
        pictures.append(127 + rng.uniform(40, 110) * waves + 10 * rng.standard_normal((*size_hw, 3)))
    return np.asarray(np.clip(np.stack(pictures), 0, 255).astype(np.uint8))


def patches_of(value: np.ndarray, layer: Any, kernel: tuple[int, int]) -> np.ndarray:
    """What each output of a convolution is computed from, in float64: (C, H, W) → (groups, inputs, positions)."""
    top, left, bottom, right = layer.pads
    padded = np.pad(value.astype(np.float64), ((0, 0), (top, bottom), (left, right)))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, layer.dilations, strict=True)]
    columns = []
    for y in range(0, padded.shape[1] - reach[0] + 1, layer.strides[0]):
        for x in range(0, padded.shape[2] - reach[1] + 1, layer.strides[1]):
            window = padded[:, y : y + reach[0] : layer.dilations[0], x : x + reach[1] : layer.dilations[1]]
            columns.append(window.reshape(layer.groups, -1))
    return np.stack(columns, axis=2)


def convolved(value: np.ndarray, weight: np.ndarray, bias: np.ndarray, layer: Any) -> np.ndarray:
    """A convolution in float64: (C, H, W) → (out, positions)."""
    patches = patches_of(value, layer, weight.shape[2:])
    grouped = weight.astype(np.float64).reshape(layer.groups, len(weight) // layer.groups, -1)
    return np.asarray((grouped @ patches).reshape(len(weight), -1) + bias[:, None])


@pytest.fixture(scope="session")
def small_net() -> type[SmallNet]:
    """Builder of small float graphs."""
    return SmallNet


@pytest.fixture(scope="session")
def run() -> Callable[..., list[np.ndarray]]:
    """(graph, images, names) → arrays, with ONNX Runtime."""
    return run_graph


@pytest.fixture(scope="session")
def pictures() -> Callable[..., np.ndarray]:
    """(count, size_hw, seed) → (N, H, W, 3) uint8."""
    return drawn_images


@pytest.fixture(scope="session")
def im2col() -> Callable[..., np.ndarray]:
    """(value_chw, layer, kernel_hw) → (groups, inputs, positions) in float64."""
    return patches_of


@pytest.fixture(scope="session")
def convolve() -> Callable[..., np.ndarray]:
    """(value_chw, weight, bias, layer) → (out, positions) in float64."""
    return convolved
