"""Quantizers side by side: what graph each writes, whether TensorRT takes it, how fast it is, how close to float.

    python benchmarks/quantizers.py [--rounds 15] [--bundle GLASS.edgead --data DIR] [--skip-wide-resnet]

WideResNet50-2 at 288×288 has random weights (speed does not depend on them) and made pictures; its agreement with float
says how a quantizer treats an untrained network. A bundle and its data set add a trained network: calibrated on good
training images, judged on the test images. One image at a time, OpenVINO, all cores, in turns. nncf and nvidia-modelopt
are peers for comparison and no dependency of edge-ad; a missing one is named.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from interleaved import medians_ms
from numpy.typing import NDArray

from edge_ad.calibration.quantize.lint import qdq_faults
from edge_ad.openvino_core import openvino_core

Image = NDArray[np.uint8]
"""(1, H, W, 3) RGB at model size."""
KINDS = {
    "operator set": "opset",
    "its type is": "type",
    "zero point": "zero point",
    "dequantizes int32": "int32 bias",
    "stored quantized": "weights without a pair",
    "not quantized": "half a pair",
    "has no Dequantize": "half a pair",
    "shared by": "shared pairs",
    "scales": "scales",
    "float": "tail",
}
"""Words of the lint and what the table calls them; the first that fits."""


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
    """The options that TensorRT accepts: symmetric int8, pairs on float weights, float biases."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        task.path,
        output,
        ImageReader(task.images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=[task.last],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": ["Conv"],
        },
    )


def with_onnxruntime_uint8(task: Task, output: Path) -> None:
    """What onnxruntime recommends for its own CPU kernels: asymmetric uint8 activations."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        task.path,
        output,
        ImageReader(task.images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "Add"],
        nodes_to_exclude=[task.last, *task.outside],
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


def compiled(
    path: Path, shape: tuple[int, ...], *, logits: bool = False
) -> Callable[[Image], list[NDArray[np.float32]]]:
    """The graph on OpenVINO in float32 or int8: image → patch_map, pred_score, and the patch logits when wanted."""
    model = onnx.load_model(path)
    names = ["patch_map", "pred_score"]
    if logits:
        sigmoid = next(node for node in model.graph.node if "patch_map" in node.output)
        names.append(sigmoid.input[0])
        model.graph.output.append(onnx.helper.make_tensor_value_info(names[-1], onnx.TensorProto.FLOAT, None))
    core = openvino_core()
    network = core.read_model(model.SerializeToString())
    network.reshape(list(shape))
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", options).create_infer_request()

    def run(image: Image) -> list[NDArray[np.float32]]:
        request.infer({0: image}, share_inputs=True)
        return [np.array(request.get_tensor(name).data) for name in names]

    return run


def sqnr_db(reference: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """Variance of the reference over the mean squared difference, in dB."""
    wanted = reference.astype(np.float64)
    return float(10 * np.log10(wanted.var() / ((got - wanted) ** 2).mean()))


def activation_types(model: onnx.ModelProto) -> str:
    """Types that activations are quantized to, by the zero points of their QuantizeLinear nodes."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {
        onnx.TensorProto.DataType.Name(stored[node.input[2]].data_type).lower()
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored and node.input[2] in stored
    }
    return "/".join(sorted(types)) or "–"


def lint_summary(model: onnx.ModelProto) -> str:
    """Kinds of faults with their number, or `ok`."""
    kinds = Counter(next((k for words, k in KINDS.items() if words in f), "other") for f in qdq_faults(model))
    return ", ".join(f"{kind} ×{count}" for kind, count in kinds.items()) or "ok"


def compare(title: str, task: Task, test: Sequence[Image], truth: Sequence[bool] | None, rounds: int) -> None:
    """Quantize one graph in every way and print the table."""
    from edge_ad.metrics.ranking import auroc

    folder = task.path.parent
    files = {"float": task.path}
    for name, quantizer in QUANTIZERS.items():
        if importlib.util.find_spec(quantizer.module) is None:
            print(f"{name}: not installed; pip install '{quantizer.package}'")
            continue
        files[name] = folder / f"{name.replace(', ', '-')}.onnx"
        # In a process of its own: nvidia-modelopt changes onnxruntime's quantizer for whoever comes after it.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(quantizer.write, task, files[name]).result()
    shape = test[0].shape
    timed = {name: compiled(path, shape) for name, path in files.items()}
    medians = medians_ms(
        {name: lambda run=run: run(test[0]) for name, run in timed.items()},  # type: ignore[misc]
        rounds=rounds,
        pause_s=0.02,
    )
    print(f"\n{title}; calibrated on {len(task.images)} images, judged on {len(test)}\n")
    print("| quantizer | opset | activations | TensorRT 8.6 to 11 (lint) | ms | faster | SQNR of logits | AUROC |")
    print("|---|---|---|---|---|---|---|---|")
    reference = None
    for name, path in files.items():
        run = compiled(path, shape, logits=True)
        _, scores, logits = (np.concatenate(part) for part in zip(*map(run, test), strict=True))
        reference = logits if reference is None else reference
        model = onnx.load_model(path)
        shown = [
            name,
            str(next(entry.version for entry in model.opset_import if not entry.domain)),
            activation_types(model),
            "–" if name == "float" else lint_summary(model),
            f"{medians[name]:.2f}",
            f"{medians['float'] / medians[name]:.2f}×",
            "–" if name == "float" else f"{sqnr_db(reference, logits):.1f} dB",
            "–" if truth is None else f"{auroc(scores, truth):.4f}",
        ]
        print(f"| {' | '.join(shown)} |")


def wide_resnet(folder: Path, rounds: int) -> None:
    """The published network with random weights, on made pictures."""
    import torch

    from edge_ad.export.onnx_graph import graph_from_module
    from edge_ad.export.parity import probe_images
    from edge_ad.models.family import LoadedNetwork
    from edge_ad.models.glass.family import FAMILY
    from edge_ad.models.glass.network import Glass, GlassConfig
    from edge_ad.specs import PostprocessSpec, PreprocessSpec

    torch.manual_seed(0)
    network = Glass(GlassConfig()).eval().requires_grad_(False)
    module = FAMILY.export_module(
        LoadedNetwork(network, {}, ""), PreprocessSpec(288, 288, resize=288), PostprocessSpec()
    )
    path = folder / "wide_resnet.onnx"
    path.write_bytes(graph_from_module(module, (288, 288), batch=None, opset=17).data)
    # The first probe is white noise, which no camera delivers.
    images = [image[None] for image in probe_images((288, 288), count=13)[1:]]
    compare("WideResNet50-2, 288×288, random weights", Task.of(path, images[:8]), images[8:], None, rounds)


def trained(bundle_path: Path, data: Path, count: int, folder: Path, rounds: int) -> None:
    """A bundle on its own data set."""
    from edge_ad.bundle import Bundle
    from edge_ad.datasets import open_dataset, read_image
    from edge_ad.preprocess import Preprocessor

    bundle = Bundle.read(bundle_path)
    dataset = open_dataset(data)
    preprocessor = Preprocessor(bundle.manifest.preprocess)

    def image_of(sample: Any) -> Image:
        return np.array(preprocessor(read_image(sample)).image_hwc)[None]

    chosen = np.random.default_rng(0).permutation(len(dataset.train))[:count]
    path = folder / "trained.onnx"
    path.write_bytes((bundle_path / bundle.model_file("fp32")).read_bytes())
    task = Task.of(path, [image_of(dataset.train[index]) for index in sorted(chosen)])
    truth = [sample.anomalous for sample in dataset.test]
    title = f"{bundle.manifest.model.config['backbone']}, {bundle_path.name} on {dataset.name}"
    compare(title, task, [image_of(sample) for sample in dataset.test], truth if any(truth) else None, rounds)


@click.command()
@click.option("--rounds", default=15)
@click.option("--bundle", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path))
@click.option("--images", default=100, help="Calibration images, at most.")
@click.option("--skip-wide-resnet", is_flag=True)
def main(rounds: int, bundle: Path | None, data: Path | None, images: int, skip_wide_resnet: bool) -> None:
    if (bundle is None) != (data is None):
        raise click.UsageError("--bundle and --data belong together")
    warnings.simplefilter("ignore")  # the peers deprecate things in each other
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not skip_wide_resnet:
            wide_resnet(folder, rounds)
        if bundle is not None and data is not None:
            trained(bundle, data, images, folder, rounds)


if __name__ == "__main__":
    main()
