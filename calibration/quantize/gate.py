"""The gate: a quantized graph agrees with its float one on held-out images, or it does not ship.

Where the tolerances do not hold, every layer is quantized alone to see how much of the error is its own; the worst ones
are put back to float one after another until they hold, or until so many are float that int8 is not worth its name.

A graph that cannot be made or computed (float16 ends at 65504, then it is infinity and NaN) is one that breaches as
well, and the layer that makes it so is the worst of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edge_ad.calibration.agreement.answers import Answers, Lost, collect, pairs_of
from edge_ad.calibration.agreement.compute import agreement
from edge_ad.calibration.agreement.document import LayerSensitivity, RollbackStep
from edge_ad.calibration.agreement.figures import Agreement, ScoreNoise, ThresholdOf
from edge_ad.calibration.agreement.tolerances import Breach, Tolerances, breaches
from edge_ad.calibration.agreement.truths import Truths
from edge_ad.calibration.evaluation.evaluate import Judge, Watch, names_of
from edge_ad.calibration.tools import OpenGraph, Say
from edge_ad.datasets import Sample
from edge_ad.errors import EngineError, ExportError, GateError
from edge_ad.image.frame import ImageArray
from edge_ad.record.verdict import Verdict

MOST_FLOAT = 0.5  # of the layers: with more of them in float there is little left to gain
PROBES = 8  # held-out images that the layers are tried on, those whose maps are furthest off

Build = Callable[[frozenset[str]], bytes]
"""Makes the graph in which the named layers stay float."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Subject:
    """What is tried.

    Attributes:
        layers: names of the layers that can be put back to float, in the order of computation.
        build: makes the graph.
        open_graph: runs it.
    """

    layers: tuple[str, ...]
    build: Build
    open_graph: OpenGraph


@dataclass(frozen=True)
class HeldOut:
    """The reference's side of the comparison, on images that nothing was calibrated with.

    Attributes:
        answers: of the float model.
        labelled: whether it is known which images are good.
        threshold, threshold_of: where flips are counted; the 99 % quantile of the good scores for None.
        noise: of the float model's scores.
        truths: masks; None for no figure of pixels.
        seed: of the bootstrap.
    """

    answers: Answers
    labelled: bool
    threshold: float | None
    threshold_of: ThresholdOf
    noise: ScoreNoise | None
    truths: Truths | None
    seed: int = 0

    def against(self, candidate: Answers) -> Agreement:
        return agreement(
            self.answers,
            candidate,
            labelled=self.labelled,
            threshold=self.threshold,
            threshold_of=self.threshold_of,
            noise=self.noise,
            truths=self.truths,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        graph: the last one that was tried: it holds the tolerances if `holds`.
        float_layers: layers that are float in it, in the order in which they were put back.
        answers, agreement, breaches: of that graph.
        steps: every graph that was tried.
        sensitivities: mean square error of the maps with one layer quantized alone, worst first, infinite for a layer
            that cannot be computed; empty where the first graph was good enough.
    """

    graph: bytes
    float_layers: tuple[str, ...]
    answers: Answers
    agreement: Agreement
    breaches: tuple[Breach, ...]
    steps: tuple[RollbackStep, ...]
    sensitivities: tuple[LayerSensitivity, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.breaches


@dataclass(frozen=True)
class _Try:
    """One graph: `agreement` is None where it judged nothing."""

    graph: bytes
    answers: Answers
    agreement: Agreement | None
    breaches: tuple[Breach, ...]

    def step(self, layer: LayerSensitivity | None) -> RollbackStep:
        return RollbackStep(
            layer=None if layer is None else layer.layer,
            sensitivity=None if layer is None else layer.error,
            breaches=self.breaches,
            candidate_ms=None if self.agreement is None else self.agreement.candidate_ms,
        )

    @property
    def text(self) -> str:
        return "; ".join(breach.text for breach in self.breaches) or "holds"


def try_once(subject: Subject, held_out: HeldOut, tolerances: Tolerances, watch: Watch) -> Outcome:
    """Compare the graph with all of its layers quantized, and put none back. Raises: as `hold`."""
    tried = _tried(subject, held_out, tolerances, watch, ())
    return _outcome(tried, (), (tried.step(None),), ())


def hold(
    subject: Subject, held_out: HeldOut, tolerances: Tolerances, watch: Watch, say: Say = lambda _: None
) -> Outcome:
    """Put layers back to float until the tolerances hold, or MOST_FLOAT of them are.

    Args:
        say: receives a line for each step.

    Returns: the first outcome that holds, or the last one that was tried.

    Raises: GateError when the last one judged no image at all, so that there is nothing to compare; SourceError when
        the float model judged none.
    """
    last = _tried(subject, held_out, tolerances, watch, ())
    steps, chosen = [last.step(None)], []
    ranked: tuple[LayerSensitivity, ...] = ()
    if last.breaches:
        say(f"all {len(subject.layers)} layers in lower precision: {last.text}")
        ranked = _sensitivities(subject, held_out, last.answers)
    for layer in ranked[: int(MOST_FLOAT * len(subject.layers))]:
        chosen.append(layer.layer)
        last = _tried(subject, held_out, tolerances, watch, chosen)
        steps.append(last.step(layer))
        time = "" if last.agreement is None else f", {last.agreement.candidate_ms:.2f} ms"
        say(f"{layer.layer} back in float{time}: {last.text}")
        if not last.breaches:
            break
    return _outcome(last, tuple(chosen), tuple(steps), ranked)


def _outcome(
    last: _Try, chosen: tuple[str, ...], steps: tuple[RollbackStep, ...], ranked: tuple[LayerSensitivity, ...]
) -> Outcome:
    if last.agreement is None:
        worst = f"; most sensitive: {', '.join(each.layer for each in ranked[:3])}" if ranked else ""
        raise GateError(
            f"the model of lower precision cannot be used, with {len(chosen)} layers back in float: {last.text}{worst};"
            " the float model stays as it is; try another precision or another engine"
        )
    return Outcome(last.graph, chosen, last.answers, last.agreement, last.breaches, steps, ranked)


def _tried(
    subject: Subject, held_out: HeldOut, tolerances: Tolerances, watch: Watch, float_layers: Iterable[str]
) -> _Try:
    graph, answers = _judged(subject, frozenset(float_layers), held_out.answers.samples, watch)
    reasons = {lost.name: lost.reason for lost in answers.lost}
    judged = [name for name, ours in zip(answers.names, held_out.answers.answers, strict=True) if ours is not None]
    if judged and all(name in reasons for name in judged):
        text = f"lost images: all {len(judged)} that the float model judged: {reasons[judged[0]]}"
        return _Try(graph, answers, None, (Breach("lost", text),))
    figures = held_out.against(answers)
    return _Try(graph, answers, figures, breaches(figures, tolerances))


def _judged(
    subject: Subject, float_layers: frozenset[str], samples: Sequence[Sample], watch: Watch = lambda samples: samples
) -> tuple[bytes, Answers]:
    """The graph and its answers; all images are lost where it cannot be made or loaded, and the graph is empty then."""
    try:
        graph = subject.build(float_layers)
        with subject.open_graph(graph) as judge:
            return graph, collect(samples, _surviving(judge), watch)
    except (EngineError, ExportError) as exc:
        names = tuple(names_of(samples))
        lost = tuple(Lost(name, "error", str(exc)) for name in names)
        return b"", Answers(names, tuple(samples), (None,) * len(names), lost)


def _surviving(judge: Judge) -> Judge:
    """A judge for which an image that the engine fails on is one that was not judged."""

    def surviving(image_hwc: ImageArray) -> Verdict:
        try:
            return judge(image_hwc)
        except EngineError as exc:
            return Verdict("error", reason=str(exc))

    return surviving


def _sensitivities(subject: Subject, held_out: HeldOut, answers: Answers) -> tuple[LayerSensitivity, ...]:
    """Mean square error of the maps that each layer makes alone, worst first."""
    probes = _furthest_off(held_out.answers, answers)
    found = []
    for layer in subject.layers:
        _, alone = _judged(subject, frozenset(subject.layers) - {layer}, probes.samples)
        found.append(LayerSensitivity(layer, _map_error(probes, alone)))
    return tuple(sorted(found, key=lambda each: -each.error))


def _map_error(reference: Answers, candidate: Answers) -> float:
    """Mean square difference of the maps; infinite where the candidate lost an image."""
    if None in candidate.answers:
        return float("inf")
    errors = [
        float(((pair.candidate.anomaly_map.astype(np.float64) - pair.reference.anomaly_map) ** 2).mean())
        for pair in pairs_of(reference, candidate)
    ]
    return float(np.mean(errors))


def _furthest_off(reference: Answers, candidate: Answers) -> Answers:
    """The reference's answers to those images whose maps differ most; to those that the candidate lost before them."""
    differences = {
        name: float("inf") if theirs is None else float(np.abs(theirs.anomaly_map - ours.anomaly_map).mean())
        for name, ours, theirs in zip(reference.names, reference.answers, candidate.answers, strict=True)
        if ours is not None
    }
    worst = set(sorted(differences, key=lambda name: -differences[name])[:PROBES])
    samples = _kept(reference.samples, reference.names, worst)
    return Answers(tuple(names_of(samples)), samples, _kept(reference.answers, reference.names, worst), lost=())


def _kept(values: Iterable[Item], names: Iterable[str], wanted: set[str]) -> tuple[Item, ...]:
    return tuple(value for value, name in zip(values, names, strict=True) if name in wanted)
