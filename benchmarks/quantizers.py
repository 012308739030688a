"""Quantizers side by side: what graph each writes, whether TensorRT takes it, how fast it is, how close to float.

    python benchmarks/quantizers.py [--rounds 15] [--bundle GLASS.edgead --data DIR] [--skip-wide-resnet]

WideResNet50-2 at 288×288 has random weights (speed does not depend on them) and made pictures; its agreement with float
says how a quantizer treats an untrained network. A bundle and its data set add a trained network: calibrated on good
training images, judged on the test images. One image at a time, OpenVINO, all cores, in turns. nncf and nvidia-modelopt
are peers for comparison and no dependency of edge-ad; a missing one is named.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from interleaved import medians_ms
from quantized_graph import activation_types, compiled, lint_summary, sqnr_db
from ways_to_quantize import QUANTIZERS, Image, Task


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

    from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
    from edge_ad.export.onnx_graph import graph_from_module
    from edge_ad.export.parity import probe_images
    from edge_ad.models.contract import fast_module
    from edge_ad.models.family import LoadedNetwork
    from edge_ad.models.glass.family import FAMILY
    from edge_ad.models.glass.network import Glass
    from edge_ad.models.patch_head.config import HeadConfig

    torch.manual_seed(0)
    network = Glass(HeadConfig()).eval().requires_grad_(False)
    loaded = LoadedNetwork(network, {}, "")
    module = fast_module(FAMILY, loaded, PreprocessSpec(288, 288, resize=288), PostprocessSpec())
    path = folder / "wide_resnet.onnx"
    path.write_bytes(graph_from_module(module, (288, 288), batch=None, opset=17).data)
    # The first probe is white noise, which no camera delivers.
    images = [image[None] for image in probe_images((288, 288), count=13)[1:]]
    compare("WideResNet50-2, 288×288, random weights", Task.of(path, images[:8]), images[8:], None, rounds)


def trained(bundle_path: Path, data: Path, count: int, folder: Path, rounds: int) -> None:
    """A bundle on its own data set."""
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.datasets import open_dataset, read_image
    from edge_ad.image.preprocess import Preprocessor

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
