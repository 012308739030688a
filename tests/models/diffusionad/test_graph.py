"""The exported graph of DiffusionAD: one graph, weights once, noise a constant, a form that engines fuse."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from edge_ad.bundle.bundle import Bundle
from edge_ad.calibration.evaluation.evaluate import ImageResult, judge_images
from edge_ad.calibration.evaluation.noise_seeds import noise_of, noise_spread, redrawn, with_noise
from edge_ad.datasets import open_dataset
from edge_ad.errors import ConfigError, ExportError
from edge_ad.export.options import export_options
from edge_ad.export.parity import probe_images
from edge_ad.export.to_bundle import export_bundle
from edge_ad.models.diffusionad.noise import NOISES, fixed_noise
from edge_ad.openvino_core import openvino_core
from edge_ad.runtime.judge.loader import open_detector

Outputs = list[np.ndarray]


def run(data: bytes, images: np.ndarray) -> Outputs:
    return list(onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"image": images}))


@pytest.fixture(scope="module")
def graph(tiny_diffusionad: Path) -> bytes:
    return Bundle.read(tiny_diffusionad).read_graph("fp32")


def exported(tiny: Path, output: Path, **options: object) -> Bundle:
    given = {"family": "diffusionad", "checkpoint": tiny.parent / "params-best.pt", "output": output, **options}
    return export_bundle(export_options(given, "test"))


def test_weights_are_in_the_file_once(graph: bytes, tiny_diffusionad: Path) -> None:
    """Beside the noise, the biases of each pass, and the constants of the contract."""
    state = torch.load(tiny_diffusionad.parent / "params-best.pt", weights_only=False)
    weights = sum(
        tensor.numel()
        for half in ("unet_model_state_dict", "seg_model_state_dict")
        for name, tensor in state[half].items()
        if tensor.ndim > 1 and not name.startswith("time_embedding") and "embed_layers" not in name
    )
    model = onnx.load_model_from_string(graph)
    matrices = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 1 and "noise" not in tensor.name]
    held = sum(prod(tensor.dims) for tensor in matrices if tensor.dims[0] > 1 and prod(tensor.dims[1:]) > 1)
    assert weights <= held <= weights + 2 * 64 * 64, "but for the two matrices that would smooth the map"
    convolutions = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    shared = [name for name, count in Counter(convolutions).items() if count == 2]
    assert len(convolutions) - len(shared) == len(set(convolutions))
    assert len(shared) > 80, "every convolution of the UNet, in both passes"


def test_nothing_of_time_or_chance_is_left(graph: bytes) -> None:
    model = onnx.load_model_from_string(graph)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17}
    found = Counter(node.op_type for node in model.graph.node)
    assert not {"Sin", "Cos", "Exp", "RandomNormal", "RandomNormalLike", "Gemm", "Einsum", "GroupNormalization"} & set(
        found
    )
    assert found["Sigmoid"] - 1 == found["InstanceNormalization"] - found["Softmax"], "SiLU behind each but attention's"
    assert found["Shape"] <= 2, "of the score alone"


@pytest.mark.parametrize("number", [0, 1])
def test_the_noise_is_the_usual_one_at_its_level(graph: bytes, number: int) -> None:
    tensors = {tensor.name: tensor for tensor in onnx.load_model_from_string(graph).graph.initializer}
    found = numpy_helper.to_array(tensors[f"logits.noise_{number}"])
    level = (0.586219, 0.898013)[number]  # of the design's table, t = 200 and 400
    np.testing.assert_allclose(found, level * fixed_noise(NOISES[number], (64, 64)), atol=3e-6)


def test_a_picture_has_one_score_in_any_batch_and_engine(graph: bytes) -> None:
    images = probe_images((64, 64), count=3)
    whole = run(graph, images)
    for index in range(3):
        for one, all_of in zip(run(graph, images[index : index + 1]), whole, strict=True):
            np.testing.assert_allclose(one[0], all_of[index], atol=2e-5)
    np.testing.assert_allclose(whole[2], np.sort(whole[0].reshape(3, -1), 1)[:, -50:].mean(1), atol=1e-6)
    np.testing.assert_array_equal(whole[0], whole[1])
    core = openvino_core()
    network = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(network([images])["patch_map"], whole[0], atol=2e-5)


def test_a_seed_draws_other_noise_and_the_manifest_keeps_it(
    graph: bytes, tiny_diffusionad: Path, tmp_path: Path
) -> None:
    """What the evaluation puts into a graph is what an export with that seed has."""
    usual, other = Bundle.read(tiny_diffusionad), exported(tiny_diffusionad, tmp_path / "b.edgead", noise_seed=1)
    assert (usual.manifest.model.config["noise_seed"], other.manifest.model.config["noise_seed"]) == (None, 1)
    images = probe_images((64, 64), count=2)
    wanted = run(other.read_graph("fp32"), images)
    found = run(with_noise(graph, noise_of(usual, 1)), images)
    np.testing.assert_array_equal(found[0], wanted[0])
    assert np.abs(run(graph, images)[2] - wanted[2]).max() > 1e-3, "control: the noise is seen"


def test_one_pass_takes_half_of_the_work(graph: bytes, tiny_diffusionad: Path, tmp_path: Path) -> None:
    one = exported(tiny_diffusionad, tmp_path / "b.edgead", passes=1)
    assert one.manifest.model.config["passes"] == 1
    counts = [
        sum(node.op_type == "Conv" for node in onnx.load_model_from_string(data).graph.node)
        for data in (graph, one.read_graph("fp32"))
    ]
    segmentation = 28
    assert counts[0] - segmentation == 2 * (counts[1] - segmentation)
    assert set(noise_of(one, 0)) == {"logits.noise_0"}


def test_a_graph_without_noise_is_refused(graph: bytes, tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="noise_seeds: graphs of family 'glass' hold no noise"):
        noise_of(Bundle.read(tiny_bundle), 0)
    with pytest.raises(ExportError, match=r"no constant 'logits\.noise_0'"):
        with_noise(
            Bundle.read(tiny_bundle).read_graph("fp32"), {"logits.noise_0": np.zeros((1, 3, 64, 64), np.float32)}
        )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_spread_over_draws(
    precision: str, tiny_diffusionad: Path, parts: Path, tmp_path: Path, engine_cache: Path
) -> None:
    """Against scores that are computed draw by draw on another engine."""
    bundle, samples = Bundle.read(tiny_diffusionad), open_dataset(parts).test
    judged: list[list[float]] = []

    def judge(drawn: Bundle) -> tuple[ImageResult, ...]:
        with open_detector(drawn, engine="onnxruntime", engine_cache=engine_cache) as detector:
            found = judge_images(samples, detector.judge, drawn.manifest.preprocess).results
        judged.append([float(result.score) for result in found if result.score is not None])
        return found

    spread = noise_spread(redrawn(bundle, precision, 3, tmp_path), judge)  # type: ignore[arg-type]
    scores = np.array(judged)
    assert scores.shape == (3, len(samples)) and len({tuple(row) for row in judged}) == 3
    assert spread.score_std == pytest.approx(scores.std(0).mean())
    assert spread.shift_std == pytest.approx(scores.mean(1).std())
    defective = np.array([sample.anomalous for sample in samples])
    ranks = [np.mean([a > b for a in row[defective] for b in row[~defective]]) for row in scores]
    assert list(spread.image_auroc) == pytest.approx(ranks)
    assert any("varies by" in line for line in spread.lines)


def test_int8_keeps_what_the_float_graph_says(tiny_diffusionad: Path, graph: bytes) -> None:
    """Of drawn weights, which make more of every error than a training does."""
    images = probe_images((64, 64), count=3)
    float_map, int8_map = run(graph, images)[0], run(Bundle.read(tiny_diffusionad).read_graph("int8"), images)[0]
    assert float(np.corrcoef(float_map.ravel(), int8_map.ravel())[0, 1]) > 0.9
