"""What several test modules need: deterministic weights, a small checkpoint, a small bundle, the photographs."""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Before NumPy and PyTorch are loaded, and for the processes that tests start. The networks of the tests are so small
# that threads wait for each other longer than they compute: on two busy cores two of them take three times as long.
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
os.environ["OPENBLAS_NUM_THREADS"] = os.environ.get("OPENBLAS_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as edge_ad does, for test modules that load ONNX Runtime before it

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY_EXPORT = {"backbone": "resnet18", "layers": "layer1,layer2", "imgsz": 64, "pretrain_embed_dim": 48}


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder that is not the user's, for the processes that tests start too."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_support("ladder"))


def _support(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"edge_ad_tests_{name}", ROOT / "tests" / "support" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # before it runs: its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """SIGINT is heard, here and in processes started meanwhile, where the tests are a background job of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def kept_on_disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keeps what slow fixtures make for the processes of the other folders, as long as no file of the code changes."""
    support = _support("kept")
    cache = getattr(request.config, "cache", None)
    place = None if cache is None else cache.mkdir("fixtures") / support.state_of_code(ROOT)
    return support.Kept(place, tmp_path_factory.mktemp)


@pytest.fixture(scope="session")
def deterministic_state() -> Callable[[Any], dict[str, Any]]:
    """Weights drawn by tensor name, as tests/golden/README.md describes: state dict → state dict."""
    import torch

    def draw(state: Any) -> dict[str, Any]:
        drawn = {}
        for name, tensor in state.items():
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            shape = tuple(tensor.shape)
            if name.endswith("num_batches_tracked"):
                value = np.zeros(shape)
            elif name.endswith("running_mean"):
                value = 0.1 * rng.standard_normal(shape)
            elif name.endswith("running_var"):
                value = rng.uniform(0.5, 1.5, shape)
            elif len(shape) == 4:
                value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
            elif len(shape) == 2:
                value = rng.standard_normal(shape) * np.sqrt(1 / shape[1])
            elif len(shape) == 1 and name.endswith("weight"):
                value = rng.uniform(0.5, 1.0, shape)
            else:
                value = 0.1 * rng.standard_normal(shape)
            drawn[name] = torch.as_tensor(value).to(tensor.dtype)
        return drawn

    return draw


@pytest.fixture(scope="session")
def tiny_checkpoint(kept_on_disk: Any, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """An official-format GLASS checkpoint for resnet18 (layer1, layer2; 48/48/32), and its backbone's weights."""

    def fill(folder: Path) -> None:
        import torch

        from edge_ad.models.glass.network import Glass
        from edge_ad.models.patch_head.config import HeadConfig

        draw = request.getfixturevalue("deterministic_state")
        network = Glass(HeadConfig("resnet18", ("layer1", "layer2"), 48, 48, 32))
        parts = {"discriminator": network.discriminator, "pre_projection": network.adaptor}
        torch.save({key: draw(part.state_dict()) for key, part in parts.items()}, folder / "ckpt_best_1.pth")
        torch.save(draw(network.backbone.trunk.state_dict()), folder / "backbone.pth")

    folder = kept_on_disk.folder("checkpoint", fill)
    return folder / "ckpt_best_1.pth", folder / "backbone.pth"


@pytest.fixture(scope="session")
def tiny_bundle(kept_on_disk: Any, request: pytest.FixtureRequest) -> Path:
    """A bundle of the small checkpoint: 64×64 input, 16×16 patches, threshold 0.5, dynamic batch. Do not change it."""

    def fill(folder: Path) -> None:
        from edge_ad.export.options import export_options
        from edge_ad.export.to_bundle import export_bundle

        checkpoint, weights = request.getfixturevalue("tiny_checkpoint")
        given = {"checkpoint": checkpoint, "backbone_weights": weights, "output": folder / "tiny.edgead"}
        export_bundle(export_options({**TINY_EXPORT, **given, "threshold": 0.5}, "test"))

    return Path(kept_on_disk.folder("bundle", fill) / "tiny.edgead")


@pytest.fixture(scope="session")
def tiny_draem(kept_on_disk: Any) -> Path:
    """A bundle of DRAEM with weights drawn by name: 64×64 input, widths 8 and 4, float and int8. Do not change it."""

    def fill(folder: Path) -> None:
        import torch
        from golden_files import drawn

        from edge_ad.bundle.bundle import write_changed
        from edge_ad.calibration.quantize.calibrate import calibrate
        from edge_ad.export.options import export_options
        from edge_ad.export.parity import probe_images
        from edge_ad.export.to_bundle import export_bundle
        from edge_ad.models.draem.config import DraemConfig
        from edge_ad.models.draem.network import Draem

        network = Draem(DraemConfig(8, 4))
        halves = {"": (network.reconstruction, 0.5), "_seg": (network.segmentation, 15.0)}
        for suffix, (part, gain) in halves.items():
            torch.save(drawn(part.state_dict(), norm=(0.75, 1.25), gain=gain), folder / f"drawn{suffix}.pckl")
        given = {"family": "draem", "checkpoint": folder / "drawn.pckl", "imgsz": 64, "threshold": 0.5}
        exported = export_bundle(export_options({**given, "output": folder / "float.edgead"}, "test"))
        images = list(probe_images((64, 64), count=3))
        quantized = calibrate(exported.read_graph("fp32"), lambda _: images, "min-max")[0].build()
        models = {"models": {"fp32": "model.onnx", "int8": "model.int8.onnx"}}
        write_changed(exported, folder / "tiny.edgead", models, files={"model.int8.onnx": quantized})

    return Path(kept_on_disk.folder("draem", fill) / "tiny.edgead")


@pytest.fixture(scope="session")
def tiny_diffusionad(kept_on_disk: Any) -> Path:
    """A bundle of DiffusionAD with weights drawn by name: 64×64 input, widths 16 and 4, float and int8.

    Its checkpoint lies beside it, as the authors write it. Do not change it.
    """

    def fill(folder: Path) -> None:
        import collections

        import torch
        from golden_files import drawn_plainly

        from edge_ad.bundle.bundle import write_changed
        from edge_ad.calibration.quantize.calibrate import calibrate
        from edge_ad.export.options import export_options
        from edge_ad.export.parity import probe_images
        from edge_ad.export.to_bundle import export_bundle
        from edge_ad.models.diffusionad.config import DiffusionAdConfig, strides_of
        from edge_ad.models.diffusionad.network import DiffusionAd

        network = DiffusionAd(DiffusionAdConfig(16, (1, 2, 3, 4), strides_of(64), 4, groups=8))
        settings: Any = collections.defaultdict(str)
        settings.update(img_size=[64, 64], eval_normal_t=200, eval_noisier_t=400, condition_w=1, groups=8)
        gain = {"decoder_segment.fin_out.0.weight": -8.0}
        content = {
            "n_epoch": 1,
            "unet_model_state_dict": drawn_plainly(network.unet.state_dict(), {}),
            "seg_model_state_dict": drawn_plainly(network.segmentation.state_dict(), gain),
            "args": settings,
        }
        torch.save(content, folder / "params-best.pt")
        given = {"family": "diffusionad", "checkpoint": folder / "params-best.pt", "threshold": 0.5}
        exported = export_bundle(export_options({**given, "output": folder / "float.edgead"}, "test"))
        images = list(probe_images((64, 64), count=2))
        quantized = calibrate(exported.read_graph("fp32"), lambda _: images, "min-max")[0].build()
        models = {"models": {"fp32": "model.onnx", "int8": "model.int8.onnx"}}
        write_changed(exported, folder / "tiny.edgead", models, files={"model.int8.onnx": quantized})

    return Path(kept_on_disk.folder("diffusionad", fill) / "tiny.edgead")


@pytest.fixture(scope="session")
def halved_graph(tiny_bundle: Path) -> bytes:
    """The graph of the small bundle with all outputs halved, which floating point does exactly."""
    import onnx

    graph = onnx.load(tiny_bundle / "model.onnx")
    outputs = {output.name: f"{output.name}_whole" for output in graph.graph.output}
    for node in graph.graph.node:
        node.input[:] = [outputs.get(name, name) for name in node.input]
        node.output[:] = [outputs.get(name, name) for name in node.output]
    half = onnx.helper.make_tensor("half", onnx.TensorProto.FLOAT, [], [0.5])
    graph.graph.initializer.append(half)
    graph.graph.node.extend(onnx.helper.make_node("Mul", [whole, "half"], [name]) for name, whole in outputs.items())
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


@pytest.fixture(scope="session")
def overflowing() -> Callable[[bytes, float], bytes]:
    """(graph, factor) → one that computes the same, but gives `factor` times as much between two convolutions.

    These are the second and the third, with a ReLU between them. Float16 ends at 65504.
    """
    import onnx
    from onnx import numpy_helper

    def scale(data: bytes, factor: float) -> bytes:
        model = onnx.load_model_from_string(data)
        second, third = [node for node in model.graph.node if node.op_type == "Conv"][1:3]
        factors = {second.input[1]: factor, second.input[2]: factor, third.input[1]: 1 / factor}
        for tensor in model.graph.initializer:
            if tensor.name in factors:
                value = numpy_helper.to_array(tensor) * np.float32(factors.pop(tensor.name))
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        assert not factors, "a bias or weight is no initializer of its own"
        return bytes(model.SerializeToString())

    return scale


@pytest.fixture(scope="session")
def two_precisions(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, halved_graph: bytes) -> Path:
    """The small bundle with the halved graph as an unproven int8 one and no thresholds of its own. Do not change it."""
    from edge_ad.bundle.bundle import Bundle, write_changed

    files = {"model.int8.onnx": halved_graph}
    changes = {"models": {"fp32": "model.onnx", "int8": "model.int8.onnx"}}
    path = tmp_path_factory.mktemp("bundle") / "two.edgead"
    return write_changed(Bundle.read(tiny_bundle), path, changes, files=files).path


@pytest.fixture(scope="session")
def micro_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of edges that calibrates in a moment: 64×64 input, 16×16 patches, threshold 0.5. Do not change it.

    Six convolutions of eight channels: one for edges, four that spread what it finds, one for the logit.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from edge_ad.bundle.bundle import write_bundle
    from edge_ad.bundle.manifest import ModelInfo
    from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, Thresholds, contract

    rng = np.random.default_rng(1)
    edges = rng.standard_normal((8, 3, 3, 3))
    weights = [edges - edges.mean(axis=(2, 3), keepdims=True)]
    for size in (3, 3, 1, 1):
        spread = rng.uniform(0.2, 1.0, (8, 8, size, size))
        weights.append(spread / spread.sum(axis=(1, 2, 3), keepdims=True))
    weights.append(np.full((1, 8, 1, 1), 2.0))
    biases = [0.02 * rng.standard_normal(8) for _ in range(5)] + [np.array([-4.25])]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["nchw", "unit"], ["a0"]),
    ]
    constants = {"unit": np.float32(1 / 255), "axis": np.int64([1]), "whole": np.float32([1, 1, 4, 4])}
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        constants |= {f"w{index}": np.float32(weight), f"b{index}": np.float32(bias)}
        pads, strides = [weight.shape[2] // 2] * 4, [2 if index in (1, 2) else 1] * 2
        names = [f"a{index}", f"w{index}", f"b{index}"]
        nodes.append(helper.make_node("Conv", names, [f"c{index}"], f"conv{index}", pads=pads, strides=strides))
        nodes.append(helper.make_node("Relu" if index < 5 else "Sigmoid", [f"c{index}"], [f"a{index + 1}"]))
    nodes += [
        helper.make_node("Squeeze", ["a6", "axis"], ["patch_map"]),
        helper.make_node("Resize", ["a6", "", "whole"], ["large"], mode="linear"),
        helper.make_node("Squeeze", ["large", "axis"], ["anomaly_map"]),
        helper.make_node("ReduceMax", ["anomaly_map"], ["pred_score"], axes=[1, 2], keepdims=0),
    ]
    image, outputs = contract(64, 64, (16, 16), None)
    graph = helper.make_graph(
        nodes,
        "micro",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 64, 64, 3])],
        [helper.make_tensor_value_info(o.name, TensorProto.FLOAT, ["N", *o.shape[1:]]) for o in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    manifest = {
        "model": ModelInfo("glass", {}),
        "preprocess": PreprocessSpec(64, 64, resize=64),
        "postprocess": PostprocessSpec(sigma=0.0),  # its map is resized and not smoothed
        "input": image,
        "outputs": outputs,
        "opset": 17,
        "models": {"fp32": "model.onnx"},
        "thresholds": Thresholds(0.5),
    }
    path = tmp_path_factory.mktemp("bundle") / "micro.edgead"
    return write_bundle(path, manifest, {"model.onnx": model.SerializeToString()}).path


@pytest.fixture(scope="session")
def three_precisions(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """The small bundle with its graph in half precision and quantized beside the float one. Do not change it."""
    from edge_ad.bundle.bundle import Bundle, write_changed
    from edge_ad.calibration.quantize.calibrate import calibrate
    from edge_ad.calibration.quantize.graph import Graph
    from edge_ad.calibration.quantize.half import with_half
    from edge_ad.export.parity import probe_images

    bundle = Bundle.read(tiny_bundle)
    graph = bundle.read_file("model.onnx")
    images = list(probe_images((64, 64), count=3))
    files = {
        "model.fp16.onnx": with_half(Graph.parse(graph)),
        "model.int8.onnx": calibrate(graph, lambda _: images, "min-max")[0].build(),
    }
    models = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
    path = tmp_path_factory.mktemp("bundle") / "three.edgead"
    return write_changed(bundle, path, {"models": models}, files=files).path


@pytest.fixture(scope="session")
def tensorrt_rtx() -> None:
    """Skip where TensorRT-RTX is missing; fail where CI should have installed it."""
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return
    reason = "tensorrt_rtx is not installed: pip install tensorrt-rtx-cu13 (Linux and Windows on x86-64)"
    if os.environ.get("EDGE_AD_REQUIRE_LADDER") and (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        pytest.fail(f"{reason}; CI has to prove that NVIDIA's builder takes the graphs")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def checked_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that the small bundle tells apart by far, in MVTec layout, 70×90. Do not change them.

    16 good ones for training; for the test 10 good ones, and 8 with checks on them, with masks. Int8 agrees with float.
    """
    from PIL import Image

    rng = np.random.default_rng(0)
    checks = np.where(np.add.outer(np.arange(70) // 4, np.arange(90) // 4) % 2, 50, 205).astype(np.uint8)[..., None]
    root = tmp_path_factory.mktemp("data") / "parts"
    for folder, count in (("train/good", 16), ("test/good", 10), ("test/checks", 8), ("ground_truth/checks", 0)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            shading = Image.fromarray(rng.integers(40, 216, (5, 6, 3), dtype=np.uint8)).resize((90, 70), 2)
            picture = np.clip(np.asarray(shading) + rng.integers(-12, 13, (70, 90, 3)), 0, 255).astype(np.uint8)
            if folder == "test/checks":
                picture[20:45, 22 : 50 + 2 * index] = checks[20:45, 22 : 50 + 2 * index]
            Image.fromarray(picture).save(root / folder / f"{index:02}.png")
    for index in range(8):
        mask = np.zeros((70, 90), np.uint8)
        mask[20:45, 22 : 50 + 2 * index] = 255
        Image.fromarray(mask).save(root / "ground_truth" / "checks" / f"{index:02}_mask.png")
    return root


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of compiled engines that is not the user's."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with `data/` (photographs) and `checkpoints/`: EDGE_AD_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("EDGE_AD_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "cookies").is_dir():
        pytest.skip("no photographs: EDGE_AD_SHARED names no folder with data/cookies")
    return folder
