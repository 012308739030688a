"""The gate: a quantized graph agrees with its float one on held-out images, or it does not ship.

Where the tolerances do not hold, every layer is quantized alone to see how much of the error is its own; the worst ones
are put back to float one after another until they hold, or until so many are float that int8 is not worth its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from edge_ad.calibration.agreement.answers import Answers, collect, pairs_of
from edge_ad.calibration.agreement.compute import agreement
from edge_ad.calibration.agreement.document import LayerSensitivity, RollbackStep
from edge_ad.calibration.agreement.figures import Agreement, ScoreNoise, ThresholdOf
from edge_ad.calibration.agreement.tolerances import Breach, Tolerances, breaches
from edge_ad.calibration.agreement.truths import Truths
from edge_ad.calibration.evaluate import Judge, Watch, names_of

MOST_FLOAT = 0.5  # of the layers: with more of them in float there is little left to gain
PROBES = 8  # held-out images that the layers are tried on, those whose maps are furthest off

Build = Callable[[frozenset[str]], bytes]
"""Makes the graph in which the named layers stay float."""
OpenGraph = Callable[[bytes], AbstractContextManager[Judge]]
"""Opens a judge that computes a graph."""
Item = TypeVar("Item")
Say = Callable[[str], None]


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
        sensitivities: mean square error of the maps with one layer quantized alone, worst first; empty where the
            first graph was good enough.
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


def try_once(subject: Subject, held_out: HeldOut, tolerances: Tolerances, watch: Watch) -> Outcome:
    """Compare the graph with all of its layers quantized, and put none back."""
    return _tried(subject, held_out, tolerances, watch, None, ())


def hold(
    subject: Subject, held_out: HeldOut, tolerances: Tolerances, watch: Watch, say: Say = lambda _: None
) -> Outcome:
    """Put layers back to float until the tolerances hold, or MOST_FLOAT of them are.

    Args:
        say: receives a line for each step.

    Returns: the first outcome that holds, or the last one that was tried.
    """
    outcome = _tried(subject, held_out, tolerances, watch, None, ())
    if outcome.holds:
        return outcome
    say(f"all {len(subject.layers)} layers in lower precision: {'; '.join(b.text for b in outcome.breaches)}")
    ranked = _sensitivities(subject, held_out, outcome)
    for layer in ranked[: int(MOST_FLOAT * len(subject.layers))]:
        before = outcome
        outcome = _tried(subject, held_out, tolerances, watch, layer, before.float_layers)
        outcome = replace(outcome, steps=(*before.steps, *outcome.steps), sensitivities=ranked)
        state = "holds" if outcome.holds else "; ".join(b.text for b in outcome.breaches)
        say(f"{layer.layer} back in float, {outcome.agreement.candidate_ms:.2f} ms: {state}")
        if outcome.holds:
            break
    return replace(outcome, sensitivities=ranked)


def _tried(
    subject: Subject,
    held_out: HeldOut,
    tolerances: Tolerances,
    watch: Watch,
    layer: LayerSensitivity | None,
    float_layers: tuple[str, ...],
) -> Outcome:
    """The outcome with one more layer in float."""
    chosen = float_layers if layer is None else (*float_layers, layer.layer)
    graph = subject.build(frozenset(chosen))
    with subject.open_graph(graph) as judge:
        answers = collect(held_out.answers.samples, judge, watch)
    figures = held_out.against(answers)
    failed = breaches(figures, tolerances)
    step = RollbackStep(
        layer=None if layer is None else layer.layer,
        sensitivity=None if layer is None else layer.error,
        breaches=failed,
        candidate_ms=figures.candidate_ms,
    )
    return Outcome(graph, chosen, answers, figures, failed, (step,))


def _sensitivities(subject: Subject, held_out: HeldOut, outcome: Outcome) -> tuple[LayerSensitivity, ...]:
    """Mean square error of the maps that each layer makes alone, worst first."""
    probes = _furthest_off(held_out.answers, outcome.answers)
    found = []
    for layer in subject.layers:
        with subject.open_graph(subject.build(frozenset(subject.layers) - {layer})) as judge:
            alone = collect(probes.samples, judge)
        errors = [
            float(((pair.candidate.anomaly_map.astype(np.float64) - pair.reference.anomaly_map) ** 2).mean())
            for pair in pairs_of(probes, alone)
        ]
        found.append(LayerSensitivity(layer, float(np.mean(errors)) if errors else float("inf")))
    return tuple(sorted(found, key=lambda each: -each.error))


def _furthest_off(reference: Answers, candidate: Answers) -> Answers:
    """The reference's answers to those images whose maps differ most."""
    differences = {
        pair.name: float(np.abs(pair.candidate.anomaly_map - pair.reference.anomaly_map).mean())
        for pair in pairs_of(reference, candidate)
    }
    worst = set(sorted(differences, key=lambda name: -differences[name])[:PROBES])
    if not worst:
        worst = set(reference.names[:PROBES])
    samples = _kept(reference.samples, reference.names, worst)
    return Answers(tuple(names_of(samples)), samples, _kept(reference.answers, reference.names, worst), lost=())


def _kept(values: Iterable[Item], names: Iterable[str], wanted: set[str]) -> tuple[Item, ...]:
    return tuple(value for value, name in zip(values, names, strict=True) if name in wanted)
