"""The gate on made-up models: what it puts back to float, in which order, and when it stops."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import linalg

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.calibration.agreement.answers import collect
from edge_ad.calibration.agreement.tolerances import Tolerances
from edge_ad.calibration.evaluation.evaluate import Judge
from edge_ad.calibration.quantize.gate import PROBES, HeldOut, Outcome, Subject, hold, try_once
from edge_ad.datasets import Sample
from edge_ad.errors import EngineError, ExportError, GateError, SourceError
from edge_ad.image.frame import ImageArray
from edge_ad.image.geometry import place
from edge_ad.record.verdict import Maps, Verdict

SPEC = PreprocessSpec(8, 8, "stretch")
ANY_LABEL = {"flips": 1.0, "auroc_drop": 1.0}


def pass_on(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples


# Made-up models: each quantized layer adds its own pattern to the map, so errors and order are known.


@dataclass
class Model:
    """Layers with the error that each makes when it is quantized, and a diary of what the gate did.

    Attributes:
        errors: root mean square of what a layer adds to the map of image 0; image n gets (n + 1) times as much.
        broken: images that fail while a layer of that name is quantized; None for the whole graph.
        unbuildable: layers that no graph can be made with.
    """

    errors: dict[str, float]
    broken: dict[str, int | None] = field(default_factory=dict)
    unbuildable: frozenset[str] = frozenset()
    built: list[frozenset[str]] = field(default_factory=list)
    judged: list[list[int]] = field(default_factory=list)

    @property
    def subject(self) -> Subject:
        return Subject(tuple(self.errors), self.build, self.open_graph)

    def build(self, float_layers: frozenset[str]) -> bytes:
        self.built.append(float_layers)
        quantized = [layer for layer in self.errors if layer not in float_layers]
        if self.unbuildable.intersection(quantized):
            raise ExportError("the weights do not fit")
        return json.dumps(quantized).encode()

    @contextmanager
    def open_graph(self, graph: bytes) -> Iterator[Judge]:
        quantized = json.loads(graph)
        for layer in quantized:
            if layer in self.broken and self.broken[layer] is None:
                raise EngineError("returned values that are not finite")
        images: list[int] = []
        self.judged.append(images)

        def judge(image_hwc: ImageArray) -> Verdict:
            index = int(image_hwc[0, 0, 0])
            images.append(index)
            if any(self.broken.get(layer) == index for layer in quantized):
                raise EngineError("returned values that are not finite")
            return self.verdict(index, quantized)

        yield judge

    def maps(self, index: int, quantized: Sequence[str]) -> np.ndarray:
        names = list(self.errors)
        added = sum((self.errors[each] * pattern(names.index(each)) for each in quantized), np.zeros((8, 8)))
        return np.asarray(pattern(60) + 0.02 * index + (index + 1) * added, np.float32)

    def verdict(self, index: int, quantized: Sequence[str]) -> Verdict:
        found = self.maps(index, quantized)
        maps = Maps(found, found, place(SPEC, (8, 8)), PostprocessSpec(), None)
        # The float model takes 10 ms, and each quantized layer saves one.
        return Verdict("ok", score=float(found.max()), maps=maps, timings_ms={"infer": 10.0 - len(quantized)})


def pattern(number: int) -> np.ndarray:
    """8×8 rows of a Hadamard matrix: ±1, orthogonal to each other, with mean 0."""
    return np.asarray(linalg.hadamard(64)[number + 1].reshape(8, 8), np.float64)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """12 images whose first value is their number; the last two are black."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(12):
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(folder / f"{index:02}.png")
    return [Sample(folder / f"{index:02}.png", "good") for index in range(12)]


def held_out(model: Model, samples: Sequence[Sample], lost: Sequence[int] = ()) -> HeldOut:
    def judge(image_hwc: ImageArray) -> Verdict:
        index = int(image_hwc[0, 0, 0])
        return Verdict("unusable", reason="black") if index in lost else model.verdict(index, ())

    answers = collect(samples, judge)
    return HeldOut(answers, labelled=False, threshold=None, threshold_of="quantile", noise=None, truths=None)


def correlation(model: Model, images: int, quantized: Sequence[str]) -> float:
    """Of the maps with those layers quantized and the float ones, over all pixels, by NumPy in float64."""
    ours, theirs = (
        np.stack([model.maps(index, layers) for index in range(images)]).astype(np.float64)
        for layers in ((), quantized)
    )
    return float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])


ERRORS = {"stem": 0.02, "block": 0.3, "shortcut": 0.01, "neck": 0.1, "head": 0.03, "last": 0.05}
WORST_FIRST = ["block", "neck", "last", "head", "stem", "shortcut"]


def between(model: Model, images: int, back: int) -> Tolerances:
    """Tolerances that hold once the `back` worst layers are float, and not before."""
    kept = [correlation(model, images, [each for each in ERRORS if each not in WORST_FIRST[:n]]) for n in range(6)]
    return Tolerances(**ANY_LABEL, map_correlation=(kept[back - 1] + kept[back]) / 2)


def test_a_graph_that_holds_is_taken_at_once(samples: list[Sample]) -> None:
    model, said = Model(ERRORS), []
    tolerances = Tolerances(**ANY_LABEL, map_correlation=correlation(model, 5, list(ERRORS)) - 1e-6)
    outcome = hold(model.subject, held_out(model, samples[:5]), tolerances, pass_on, said.append)
    assert model.built == [frozenset()]
    assert json.loads(outcome.graph) == list(ERRORS)
    assert outcome.holds and outcome.breaches == ()
    assert (outcome.float_layers, outcome.sensitivities, said) == ((), (), [])
    assert [(step.layer, step.sensitivity, step.candidate_ms) for step in outcome.steps] == [(None, None, 4.0)]


def test_the_worst_layers_go_back_one_after_another_until_it_holds(samples: list[Sample]) -> None:
    model, said = Model(ERRORS), []
    outcome = hold(model.subject, held_out(model, samples[:5]), between(model, 5, back=2), pass_on, said.append)
    assert outcome.holds
    assert outcome.float_layers == ("block", "neck")
    assert json.loads(outcome.graph) == ["stem", "shortcut", "head", "last"]
    # All at once, then each alone, then the worst ones back: nothing is built for nothing.
    alone = [frozenset(ERRORS) - {layer} for layer in ERRORS]
    assert model.built == [frozenset(), *alone, frozenset({"block"}), frozenset({"block", "neck"})]
    # Mean square over images of ((n + 1) · error)², of patterns that are ±1: 11 for n = 0..4.
    assert [each.layer for each in outcome.sensitivities] == WORST_FIRST
    for each in outcome.sensitivities:
        assert each.error == pytest.approx(11 * ERRORS[each.layer] ** 2, rel=1e-4)
    assert [(step.layer, step.candidate_ms) for step in outcome.steps] == [(None, 4.0), ("block", 5.0), ("neck", 6.0)]
    assert [step.sensitivity for step in outcome.steps[1:]] == [each.error for each in outcome.sensitivities[:2]]
    assert [[breach.key for breach in step.breaches] for step in outcome.steps] == [
        ["map_correlation"],
        ["map_correlation"],
        [],
    ]
    for step, quantized in zip(outcome.steps, (list(ERRORS), [e for e in ERRORS if e != "block"]), strict=False):
        assert f"{correlation(model, 5, quantized):.4f} over all pixels" in step.breaches[0].text
    assert outcome.agreement.map_correlation == pytest.approx(
        correlation(model, 5, ["stem", "shortcut", "head", "last"]), abs=1e-9
    )
    assert len(said) == 3
    assert said[0].startswith("all 6 layers in lower precision: correlation of the maps: ")
    assert said[1].startswith("block back in float, 5.00 ms: correlation of the maps: ")
    assert said[2] == "neck back in float, 6.00 ms: holds"


@pytest.mark.parametrize(("layers", "back"), [(6, 3), (5, 2), (1, 0)])
def test_it_gives_up_when_half_of_the_layers_are_float(samples: list[Sample], layers: int, back: int) -> None:
    model = Model(dict(list(ERRORS.items())[:layers]))
    impossible = Tolerances(**ANY_LABEL, map_correlation=1.0)
    outcome = hold(model.subject, held_out(model, samples[:3]), impossible, pass_on)
    ranked = [layer for layer in WORST_FIRST if layer in model.errors]
    assert not outcome.holds
    assert [breach.key for breach in outcome.breaches] == ["map_correlation"]
    assert outcome.float_layers == tuple(ranked[:back])
    assert [step.layer for step in outcome.steps] == [None, *ranked[:back]]
    assert all(step.breaches for step in outcome.steps)
    assert [each.layer for each in outcome.sensitivities] == ranked


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=7, unique=True),
    st.floats(0.9, 1.0, exclude_max=True),
)
def test_what_is_put_back_is_the_shortest_run_of_the_worst(
    samples: list[Sample], thousandths: list[int], least: float
) -> None:
    model = Model({f"layer{number}": error / 1000 for number, error in enumerate(thousandths)})
    outcome = hold(model.subject, held_out(model, samples[:2]), Tolerances(1, 1, 1, least), pass_on)
    worst_first = sorted(model.errors, key=lambda layer: -model.errors[layer])
    runs = [worst_first[:count] for count in range(len(model.errors) // 2 + 1)]
    holding = [
        run for run in runs if correlation(model, 2, [each for each in model.errors if each not in run]) >= least
    ]
    assert outcome.float_layers == tuple(holding[0] if holding else runs[-1])
    assert outcome.holds == bool(holding)


def test_layers_are_tried_on_the_images_that_suffer_most(samples: list[Sample]) -> None:
    """Image n has (n + 1) times the error of image 0, so it is the last ones; those without an answer are none."""
    model = Model(ERRORS)
    reference = held_out(model, samples, lost=[10])
    hold(model.subject, reference, Tolerances(**ANY_LABEL, map_correlation=1.0), pass_on)
    first, *alone = model.judged[: 1 + len(ERRORS)]
    assert first == list(range(12))
    assert len(alone) == len(ERRORS)
    assert all(images == [3, 4, 5, 6, 7, 8, 9, 11] for images in alone)
    assert len(alone[0]) == PROBES


def test_looking_once_puts_nothing_back(samples: list[Sample]) -> None:
    model = Model(ERRORS)
    outcome = try_once(
        model.subject, held_out(model, samples[:3]), Tolerances(**ANY_LABEL, map_correlation=1.0), pass_on
    )
    assert model.built == [frozenset()]
    assert not outcome.holds
    assert (outcome.float_layers, outcome.sensitivities, len(outcome.steps)) == ((), (), 1)


# Graphs that cannot be computed


def test_a_layer_that_breaks_one_image_is_the_worst(samples: list[Sample]) -> None:
    """The image is none of those with the largest errors, so it is looked for."""
    model = Model(ERRORS, broken={"head": 0})
    tolerant = Tolerances(**ANY_LABEL, map_correlation=-1.0)
    outcome = hold(model.subject, held_out(model, samples[:10]), tolerant, pass_on)
    assert outcome.holds
    assert outcome.float_layers == ("head",)
    (breach,) = outcome.steps[0].breaches
    assert breach.key == "lost" and "00.png" in breach.text
    assert outcome.sensitivities[0].error == float("inf")
    assert [each.layer for each in outcome.sensitivities[1:3]] == ["block", "neck"]
    assert all(0 in images for images in model.judged)


@pytest.mark.parametrize("how", ["engine", "build"])
def test_a_graph_that_cannot_be_made_or_loaded_is_put_right(samples: list[Sample], how: str) -> None:
    model = Model(ERRORS, broken={"stem": None}) if how == "engine" else Model(ERRORS, unbuildable=frozenset({"stem"}))
    reason = "values that are not finite" if how == "engine" else "the weights do not fit"
    said: list[str] = []
    outcome = hold(model.subject, held_out(model, samples[:4]), between(model, 4, back=1), pass_on, said.append)
    assert outcome.holds
    assert outcome.float_layers == ("stem", "block")
    first = outcome.steps[0]
    assert (first.breaches[0].key, first.candidate_ms) == ("lost", None)
    assert "all 4 that the float model judged" in first.breaches[0].text and reason in first.breaches[0].text
    assert reason in said[0]
    assert said[1].startswith("stem back in float, 5.00 ms: ")


@pytest.mark.parametrize("look", [hold, try_once])
def test_a_graph_that_never_runs_is_refused_in_one_line(samples: list[Sample], look: Callable[..., Outcome]) -> None:
    model = Model(ERRORS, broken=dict.fromkeys(ERRORS))
    with pytest.raises(GateError, match="not finite") as caught:
        look(model.subject, held_out(model, samples[:4]), Tolerances(), pass_on)
    line = str(caught.value)
    assert "the float model stays as it is" in line and "\n" not in line
    assert ("most sensitive: stem, block, shortcut" in line) == (look is hold)


def test_a_float_model_that_judged_nothing_is_not_the_candidates_fault(samples: list[Sample]) -> None:
    model = Model(ERRORS)
    reference = held_out(model, samples[:3], lost=[0, 1, 2])
    with pytest.raises(SourceError, match="none of 3 images was judged by both models"):
        hold(model.subject, reference, Tolerances(), pass_on)


def test_missing_packages_and_the_like_pass_through(samples: list[Sample]) -> None:
    """Only what a graph can cause is put down to the graph."""
    model = Model(ERRORS)

    def open_graph(graph: bytes) -> AbstractContextManager[Judge]:
        raise SourceError("no such camera")

    with pytest.raises(SourceError, match="no such camera"):
        hold(replace(model.subject, open_graph=open_graph), held_out(model, samples[:3]), Tolerances(), pass_on)
