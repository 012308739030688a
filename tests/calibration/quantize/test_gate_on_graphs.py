"""The gate on real graphs and the engines that ship: broken quantizations are found and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import Precision
from edge_ad.calibration.agreement.answers import Answers, collect
from edge_ad.calibration.agreement.noise import measure_noise
from edge_ad.calibration.agreement.tolerances import Tolerances
from edge_ad.calibration.evaluation.evaluate import Judge
from edge_ad.calibration.quantize.calibrate import Calibration, calibrate
from edge_ad.calibration.quantize.gate import HeldOut, OpenGraph, Subject, hold, try_once
from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.half import with_half
from edge_ad.calibration.quantize.half_arithmetic import rounded_to_half
from edge_ad.calibration.quantize.images import CalibrationImages
from edge_ad.calibration.quantize.lint import check_qdq
from edge_ad.datasets import Sample, open_dataset
from edge_ad.errors import ExportError
from edge_ad.runtime.judge.loader import open_detector, open_graph

pytestmark = pytest.mark.rung(1)

ANY_LABEL = {"flips": 1.0, "auroc_drop": 1.0}
FIRST, SECOND, HEAD = "trunk/conv1/Conv", "trunk/conv1_1/Conv", "heads.0.1/Conv"
TIGHT = Tolerances(map_correlation=0.999)
"""The small bundle reaches 0.9998 on good pictures."""


def pass_on(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples


@dataclass(frozen=True)
class Real:
    """A bundle, its calibration, and the float model's answers to good pictures."""

    bundle: Bundle
    calibration: Calibration
    answers: Answers
    held_out: HeldOut

    def subject(self, calibration: Calibration | None = None, *, engine: str = "onnxruntime") -> Subject:
        chosen = calibration or self.calibration
        return Subject(chosen.layers, chosen.build, opener(self.bundle, "int8", engine))

    def layer(self, end: str) -> str:
        (found,) = (name for name in self.calibration.layers if name.endswith(end))
        return found

    def scaled(self, layer: str, factor: float) -> Calibration:
        """The calibration with the range of what a layer reads wrong by a factor."""
        (source,) = (each.source for each in self.calibration.graph.layers if each.name == layer)
        ranges = {**self.calibration.ranges, source: factor * self.calibration.ranges[source]}
        return replace(self.calibration, ranges=ranges)


def opener(bundle: Bundle, precision: Precision, engine: str = "onnxruntime") -> OpenGraph:
    @contextmanager
    def opened(graph: bytes) -> Iterator[Judge]:
        with open_graph(bundle, graph, precision, engine=engine) as detector:
            yield detector.judge

    return opened


def float_side(bundle: Bundle, samples: Sequence[Sample]) -> HeldOut:
    with open_detector(bundle, engine="onnxruntime", precision="fp32") as detector:
        answers = collect(samples, detector.judge)
        noise = measure_noise(samples, detector.judge, answers)
    return HeldOut(answers, labelled=False, threshold=None, threshold_of="quantile", noise=noise, truths=None)


@pytest.fixture(scope="module")
def real(tiny_bundle: Path, checked_parts: Path) -> Real:
    bundle, dataset = Bundle.read(tiny_bundle), open_dataset(checked_parts)
    images = CalibrationImages(dataset.train, bundle.manifest.preprocess)
    calibration, _ = calibrate(
        bundle.read_file(bundle.model_file("fp32")), lambda _: (image for _, image in images), "min-max"
    )
    reference = float_side(bundle, [sample for sample in dataset.test if not sample.anomalous])
    return Real(bundle, calibration, reference.answers, reference)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_sound_quantization_passes(real: Real, engine: str) -> None:
    """The control of what follows: without it, a gate that refuses everything would do."""
    outcome = hold(real.subject(engine=engine), real.held_out, TIGHT, pass_on)
    assert outcome.holds and outcome.float_layers == ()
    check_qdq(outcome.graph)


@pytest.mark.parametrize(
    ("end", "factor", "engine"),
    [(FIRST, 10, "onnxruntime"), (SECOND, 10, "openvino"), (SECOND, 0.1, "onnxruntime")],
)
def test_a_layer_with_a_wrong_range_is_found_and_named(real: Real, end: str, factor: float, engine: str) -> None:
    layer = real.layer(end)
    said: list[str] = []
    subject = real.subject(real.scaled(layer, factor), engine=engine)
    outcome = hold(subject, real.held_out, TIGHT, pass_on, said.append)
    assert "map_correlation" in [breach.key for breach in outcome.steps[0].breaches]
    assert outcome.sensitivities[0].layer == layer
    assert outcome.sensitivities[0].error > 10 * outcome.sensitivities[1].error
    assert outcome.float_layers == (layer,) and outcome.holds
    assert f"{layer} back in float" in said[1]


@pytest.mark.parametrize("end", [FIRST, HEAD])
def test_a_range_that_is_too_narrow_breaks_the_usual_tolerances(real: Real, end: str) -> None:
    layer = real.layer(end)
    outcome = hold(real.subject(real.scaled(layer, 0.1)), real.held_out, Tolerances(), pass_on)
    assert outcome.steps[0].breaches
    assert outcome.float_layers == (layer,) and outcome.holds


def test_a_wrong_range_of_what_several_layers_read_puts_these_back_first(real: Real) -> None:
    layer = real.layer("downsample.0/Conv")
    source = next(each.source for each in real.calibration.graph.layers if each.name == layer)
    readers = {each.name for each in real.calibration.graph.layers if each.source == source}
    assert len(readers) == 3
    outcome = hold(real.subject(real.scaled(layer, 0.1)), real.held_out, Tolerances(), pass_on)
    assert outcome.holds
    assert 1 <= len(outcome.float_layers) <= 3 and readers.issuperset(outcome.float_layers)


@pytest.mark.parametrize("factor", [10, 0.1])
def test_a_trained_detector_with_a_wrong_range_breaks_the_usual_tolerances(tmp_path: Path, factor: float) -> None:
    """The bundle of the demo on its own pictures, first convolution."""
    from importlib import resources

    from edge_ad.runtime.sources.sim_scene import Scene

    scene = Scene(1280, 720, 1)
    for number in range(10):
        frame = Image.fromarray(scene.paint(number, 0.0)[0][:, :, ::-1])
        frame.resize((640, 360), Image.Resampling.BILINEAR, reducing_gap=2.0).save(tmp_path / f"{number}.jpg")
    samples = open_dataset(tmp_path).train
    bundle = Bundle.read(Path(str(resources.files("edge_ad.demo") / "disc.edgead")))
    images = CalibrationImages(samples[:4], bundle.manifest.preprocess)
    calibration, _ = calibrate(
        bundle.read_file(bundle.model_file("fp32")), lambda _: (image for _, image in images), "min-max"
    )
    reference = float_side(bundle, samples[4:])
    disc = Real(bundle, calibration, reference.answers, reference)
    assert try_once(disc.subject(), reference, Tolerances(), pass_on).holds  # control
    broken = try_once(disc.subject(disc.scaled(calibration.layers[0], factor)), reference, Tolerances(), pass_on)
    assert "map_correlation" in [breach.key for breach in broken.breaches]


def test_ranges_as_from_black_pictures_are_refused_or_put_back(real: Real) -> None:
    """Forced past the check that refuses such pictures: a lens cap in place of parts."""
    black = np.zeros((*real.bundle.manifest.preprocess.size_hw, 3), np.uint8)
    graph = real.bundle.read_file(real.bundle.model_file("fp32"))
    calibration, _ = calibrate(graph, lambda _: iter([black, black]), "min-max")
    outcome = hold(real.subject(calibration), real.held_out, Tolerances(), pass_on)
    assert "map_correlation" in [breach.key for breach in outcome.steps[0].breaches]
    assert outcome.float_layers
    assert outcome.float_layers == tuple(each.layer for each in outcome.sensitivities[: len(outcome.float_layers)])
    if not outcome.holds:
        assert len(outcome.float_layers) == len(calibration.layers) // 2


def with_int8_tail(graph: bytes) -> bytes:
    """The graph with the patch probabilities in int8, four levels from 0 to 1."""
    model = onnx.load_model_from_string(graph)
    (sigmoid,) = (node for node in model.graph.node if node.op_type == "Sigmoid")
    whole = sigmoid.output[0]
    sigmoid.output[0] = "tail_float"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.25), "tail_scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.int8(0), "tail_zero"))
    place = list(model.graph.node).index(sigmoid) + 1
    pair = (
        ("QuantizeLinear", "tail_float", "tail_int8"),
        ("DequantizeLinear", "tail_int8", whole),
    )
    for offset, (kind, source, output) in enumerate(pair):
        node = onnx.helper.make_node(kind, [source, "tail_scale", "tail_zero"], [output], f"tail_{kind}")
        model.graph.node.insert(place + offset, node)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("linted", [False, True])
def test_a_tail_in_int8_is_found_and_named(real: Real, linted: bool) -> None:
    """By what it does to the maps, and where graphs are linted by that."""

    def build(float_layers: frozenset[str]) -> bytes:
        if float_layers.issuperset(real.calibration.layers):
            graph = real.calibration.graph.serialized()
        else:
            graph = real.calibration.build(float_layers - {"tail"})
        graph = graph if "tail" in float_layers else with_int8_tail(graph)
        if linted:
            check_qdq(graph)
        return graph

    with pytest.raises(ExportError, match="'tail_QuantizeLinear': quantizes what follows the last convolution"):
        check_qdq(with_int8_tail(real.calibration.build()))
    subject = replace(real.subject(), layers=(*real.calibration.layers, "tail"), build=build)
    outcome = hold(subject, real.held_out, Tolerances(), pass_on)
    assert outcome.steps[0].breaches[0].key == ("lost" if linted else "flips")
    assert outcome.float_layers == ("tail",) and outcome.holds
    assert outcome.sensitivities[0].layer == "tail"
    assert (outcome.sensitivities[0].error == float("inf")) == linted
    check_qdq(outcome.graph)


@pytest.mark.parametrize(("factor", "reason"), [(1.4e5, "not finite"), (1e6, "float16 ends at 65504")])
def test_float16_that_overflows_is_put_back(
    real: Real, overflowing: Callable[..., bytes], factor: float, reason: str
) -> None:
    """Once in the activations, once in the weights themselves. The float graph computes what it did before."""
    data = overflowing(real.bundle.read_file(real.bundle.model_file("fp32")), factor)
    graph = Graph.parse(data)
    layers = tuple(layer.name for layer in graph.layers)
    with opener(real.bundle, "fp32")(data) as judge:
        before = collect(real.answers.samples, judge)
    scores = [[each.score for each in found.answers if each is not None] for found in (real.answers, before)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)
    opened = opener(real.bundle, "fp16")
    subject = Subject(layers, partial(with_half, graph), lambda half: opened(rounded_to_half(half)))
    outcome = hold(subject, real.held_out, TIGHT, pass_on)
    (breach,) = outcome.steps[0].breaches
    assert breach.key == "lost" and reason in breach.text
    assert outcome.holds
    assert 1 <= len(outcome.float_layers) <= 2
    assert {real.layer(SECOND), real.layer("trunk/conv2/Conv")}.issuperset(outcome.float_layers)
    # Control: without the overflow nothing has to be put back.
    sound = Graph.parse(real.bundle.read_file(real.bundle.model_file("fp32")))
    assert try_once(replace(subject, build=partial(with_half, sound)), real.held_out, TIGHT, pass_on).holds
