"""A bundle with a float model → what its quantized model adds to it: graph, record, thresholds and report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import Any

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.bundle.manifest import Quantization
from edge_ad.bundle.specs import GateVerdict
from edge_ad.calibration.agreement.answers import Answers, collect, pairs_of
from edge_ad.calibration.agreement.document import (
    ReportContent,
    report_json,
)
from edge_ad.calibration.agreement.noise import measure_noise
from edge_ad.calibration.agreement.pictures import draw_pairs, worst_frames
from edge_ad.calibration.agreement.report import agreement_html
from edge_ad.calibration.agreement.transfer import Transfer, rederive
from edge_ad.calibration.agreement.truths import read_truths
from edge_ad.calibration.evaluation.evaluate import Judge
from edge_ad.calibration.evaluation.results import json_bytes
from edge_ad.calibration.quantize.cache import CalibrationCache, cache_key
from edge_ad.calibration.quantize.calibrate import REVISION, calibrate, restored
from edge_ad.calibration.quantize.gate import HeldOut, Outcome, Subject, hold, try_once
from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.half import with_half
from edge_ad.calibration.quantize.half_arithmetic import rounded_to_half
from edge_ad.calibration.quantize.images import CalibrationImages, Chosen, chosen_images, content_sha256, few_images
from edge_ad.calibration.quantize.lint import check_qdq
from edge_ad.calibration.quantize.options import QuantizeOptions
from edge_ad.calibration.quantize.report import rejection, report_content
from edge_ad.calibration.tools import Tools
from edge_ad.datasets import read_image
from edge_ad.disk.blob_cache import default_cache_dir
from edge_ad.errors import BundleError, GateError
from edge_ad.image.inspected import inspector_of
from edge_ad.validation import plain

REPORT, REPORT_JSON = "report.html", "report.json"
TIMED_ROUNDS = 21  # of float and quantized in turns


@dataclass(frozen=True)
class Quantized:
    """What to write.

    Attributes:
        changes: fields of the manifest.
        files: the graph, and the report where the gate has looked.
        content: what the report says; None where it has not.
        obsolete: files of the bundle that speak of a graph that is replaced, and are to be left out.
    """

    changes: Mapping[str, Any]
    files: Mapping[str, bytes]
    content: ReportContent | None
    obsolete: frozenset[str] = frozenset()


class RejectedError(GateError):
    """The gate does not let the graph pass. `report` is the page that shows why."""

    def __init__(self, message: str, report: bytes) -> None:
        super().__init__(message)
        self.report = report


def quantize_bundle(bundle: Bundle, options: QuantizeOptions, tools: Tools) -> Quantized:
    """Make the model of lower precision that a bundle is to hold.

    Raises: RejectedError when the gate is enforced and cannot be held; SourceError for images that are none; other
        EdgeAdErrors. Nothing is written.
    """
    if "fp32" not in bundle.manifest.models:
        raise BundleError(f"bundle {bundle.path}: holds no float model to start from; export it again")
    chosen = chosen_images(options.data, options.val, count=options.images, seed=options.seed)
    for note in chosen.notes:
        tools.say(f"note: {note}")
    float_graph = bundle.read_graph("fp32")
    subject, used = _subject(bundle, float_graph, chosen, options, tools)
    tools.say(f"{len(subject.layers)} layers in {options.quantize}")
    if options.gate == "off":
        built = checked_graph(subject.build(frozenset()), bundle.graph_contract)
        tools.say(f"warning: the gate is off, nobody knows how far this {options.quantize} model is from the float one")
        record = _record(subject, chosen, used, options, "unproven", None, None)
        return Quantized(
            _changes(bundle, options, record, None), {_file(options): built}, None, _obsolete_report(bundle, options)
        )
    held_out = _held_out(bundle, chosen, options, tools)
    watch = tools.watch("comparing")
    if options.gate == "enforce":
        outcome = hold(subject, held_out, options.tolerances, watch, tools.say)
    else:
        outcome = try_once(subject, held_out, options.tolerances, watch)
    with tools.open_float() as float_judge:
        with tools.open_graph(outcome.graph) as judge:
            speed_up = _speed_up(held_out.answers, outcome.answers, (float_judge, judge))
        worst = worst_frames(held_out.answers, outcome.answers, outcome.agreement.flips)
        with subject.open_graph(outcome.graph) as judge:
            pictures = draw_pairs(
                worst,
                held_out.answers,
                outcome.answers,
                outcome.agreement,
                (float_judge, judge),
                labelled=held_out.labelled,
            )
    old = bundle.thresholds("fp32")
    postprocess = bundle.manifest.postprocess
    transfer = rederive(
        old,
        held_out.answers,
        outcome.answers,
        labelled=held_out.labelled,
        highest=postprocess.scores[1],
        highest_pixel=postprocess.map_range[1],
    )
    content = report_content(bundle, chosen, options, held_out, outcome, transfer, speed_up)
    content = replace(content, pictures=pictures, notes=(*content.notes, *chosen.notes))
    page = agreement_html(content)
    if options.gate == "enforce" and not outcome.holds:
        raise RejectedError(rejection(outcome, options), page)
    record = _record(subject, chosen, used, options, content.verdict, outcome, speed_up)
    graph = checked_graph(outcome.graph, bundle.graph_contract)
    files: dict[str, bytes] = {_file(options): graph, REPORT: page, REPORT_JSON: json_bytes(report_json(content))}
    return Quantized(_changes(bundle, options, record, transfer), files, content)


def _subject(
    bundle: Bundle, float_graph: CheckedGraph, chosen: Chosen, options: QuantizeOptions, tools: Tools
) -> tuple[Subject, int]:
    """What is tried, and how many images it was calibrated on."""
    if options.quantize == "fp16":
        graph = Graph.parse(float_graph)
        names = tuple(layer.name for layer in graph.layers)
        return Subject(names, partial(with_half, graph), lambda half: tools.open_graph(rounded_to_half(half))), 0
    tools.say(f"note: {chosen.drawn}")
    spec, inspector = bundle.manifest.preprocess, inspector_of(bundle)
    images = CalibrationImages(chosen.calibration, spec, tools.watch("calibrating"), bundle.usability, inspector)
    key = cache_key(
        graph=float_graph,
        images_sha256=content_sha256(chosen.calibration),
        preprocess=spec,
        options={
            "ranges": options.ranges,
            "seed": options.seed,
            "revision": REVISION,
            "inspection": _inspection_key(bundle),
        },
    )
    cache = CalibrationCache(options.calibration_cache or default_cache_dir("calibration"))
    arrays = cache.get(key)
    if arrays is None:
        calibration, found = calibrate(
            float_graph, lambda _: (image for _, image in images), options.ranges, options.seed
        )
        used = images.used
        if not images.notes:  # what was left out has to be named each time
            cache.put(key, found)
    else:
        calibration, used = restored(float_graph, arrays), len(chosen.calibration)
        tools.say("calibration from the cache")
    for note in images.notes:
        tools.say(f"warning: {note}")
    warning = few_images(used, len(chosen.held_out))
    if warning:
        tools.say(f"warning: {warning}")

    def build(float_layers: frozenset[str]) -> bytes:
        graph = calibration.build(float_layers)
        check_qdq(graph)
        return graph

    return Subject(calibration.layers, build, tools.open_graph), used


def _inspection_key(bundle: Bundle) -> object:
    """What decides which part of an image the model sees."""
    spec = bundle.manifest.inspection
    return None if spec is None else [plain(spec), *(bundle.manifest.files[name] for name in spec.files)]


def _held_out(bundle: Bundle, chosen: Chosen, options: QuantizeOptions, tools: Tools) -> HeldOut:
    """Judge the held-out images with the float model."""
    with tools.open_float() as judge:
        answers = collect(chosen.held_out, judge, tools.watch("float model"))
        noise = measure_noise(chosen.held_out, judge, answers, seed=options.seed, watch=tools.watch("score noise"))
    for lost in answers.lost:
        tools.say(f"warning: {lost.name} is held out and was not judged: {lost.reason}")
    truths = None
    if chosen.labelled:
        truths = read_truths(chosen.held_out, bundle.manifest.preprocess, inspector=inspector_of(bundle))
    for note in truths.notes if truths is not None else ():
        tools.say(f"note: {note}")
    return HeldOut(
        answers=answers,
        labelled=chosen.labelled,
        threshold=bundle.thresholds("fp32").image,
        threshold_of="bundle",
        noise=noise,
        truths=truths,
        seed=options.seed,
    )


def _speed_up(reference: Answers, candidate: Answers, judges: tuple[Judge, Judge]) -> float | None:
    """Time of the float engine divided by that of the other, in turns, on one image that both have judged."""
    image = read_image(pairs_of(reference, candidate)[0].sample)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TIMED_ROUNDS):
        for each, found in zip(judges, times, strict=True):
            time.sleep(0.01)  # threads that one engine leaves spinning would slow the other
            found.append(each(image).timings_ms.get("infer", 0.0))
    before, after = median(times[0]), median(times[1])
    return before / after if after > 0 else None


def _record(
    subject: Subject,
    chosen: Chosen,
    used: int,
    options: QuantizeOptions,
    verdict: GateVerdict,
    outcome: Outcome | None,
    speed_up: float | None,
) -> Quantization:
    float_layers = () if outcome is None else outcome.float_layers
    agreed = None if outcome is None else outcome.agreement
    auroc = None if agreed is None or agreed.auroc is None else agreed.auroc.candidate - agreed.auroc.reference
    return Quantization(
        ranges=options.ranges if options.quantize == "int8" else None,
        images=used,
        images_sha256=content_sha256(chosen.calibration if options.quantize == "int8" else ()),
        seed=options.seed,
        layers=len(subject.layers) - len(float_layers),
        float_layers=float_layers,
        gate=verdict,
        held_out=0 if agreed is None else agreed.images,
        flips=None if agreed is None else len(agreed.flips),
        auroc_change=auroc,
        map_correlation=None if agreed is None else agreed.map_correlation,
        speed_up=speed_up,
    )


def _changes(
    bundle: Bundle, options: QuantizeOptions, record: Quantization, transfer: Transfer | None
) -> dict[str, Any]:
    manifest, precision = bundle.manifest, options.quantize
    own = {name: value for name, value in manifest.precision_thresholds.items() if name != precision}
    if transfer is not None:
        own[precision] = transfer.thresholds
    return {
        "models": {**manifest.models, precision: _file(options)},
        "quantization": {**manifest.quantization, precision: record},
        "precision_thresholds": own,
        "tools": {**manifest.tools, "edge-ad": version("edge-ad"), "onnxruntime": version("onnxruntime")},
    }


def _obsolete_report(bundle: Bundle, options: QuantizeOptions) -> frozenset[str]:
    """Files of the report that the bundle holds, unless it is one of another precision, which stays true."""
    held = frozenset({REPORT, REPORT_JSON} & bundle.manifest.files.keys())
    try:
        precision = json.loads(bundle.read_file(REPORT_JSON))["about"]["candidate"]["precision"]
    except (BundleError, ValueError, RecursionError, KeyError, TypeError):  # whatever it is, it is not ours
        return held
    return held if precision == options.quantize else frozenset()


def _file(options: QuantizeOptions) -> str:
    return f"model.{options.quantize}.onnx"
