"""What the report of a quantization says, and what its refusal says in one line."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import GateVerdict
from edge_ad.calibration.agreement.document import (
    AgreementAbout,
    ModelAbout,
    ReportContent,
    ThresholdShift,
    image_scores,
)
from edge_ad.calibration.agreement.tolerances import statements
from edge_ad.calibration.agreement.transfer import Transfer
from edge_ad.calibration.quantize.gate import HeldOut, Outcome
from edge_ad.calibration.quantize.images import Chosen, content_sha256
from edge_ad.calibration.quantize.options import QuantizeOptions


def report_content(
    bundle: Bundle,
    chosen: Chosen,
    options: QuantizeOptions,
    held_out: HeldOut,
    outcome: Outcome,
    transfer: Transfer | None,
    speed_up: float | None,
) -> ReportContent:
    """Everything that report.html and report.json say, but for the pictures and the notes on the choice of images."""
    agreed = outcome.agreement
    verdict: GateVerdict = "passed" if outcome.holds else "failed"
    kept = f", with {len(outcome.float_layers)} layers back in float" if outcome.float_layers else ""
    fast = "" if speed_up is None else f"; {speed_up:.2f} times as fast as float on {options.gate_engine}"
    why = "; ".join(b.text for b in outcome.breaches) or f"every check holds on {agreed.images} images{kept}{fast}"
    names = ("ranges", "images", "seed", "max_flips", "max_auroc_drop", "max_pixel_auroc_drop", "min_map_correlation")
    name = bundle.path.resolve().name
    about = AgreementAbout(
        edge_ad=version("edge-ad"),
        compared_at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        reference=ModelAbout(name, bundle.sha256, options.gate_engine, "fp32"),
        candidate=ModelAbout(options.destination.name, None, options.gate_engine, options.quantize),
        data=options.data.resolve().name if options.val is None else options.val.resolve().name,
        images=f"{len(chosen.held_out)} held-out images, none of which calibrated anything",
        calibration_sha256=content_sha256(chosen.calibration) if options.quantize == "int8" else None,
        options={key: asdict(options)[key] for key in names if key != "ranges" or options.quantize == "int8"},
    )
    shift = pixel_shift = None
    if transfer is not None:
        old, new = bundle.thresholds("fp32"), transfer.thresholds
        if new.image is not None:
            shift = ThresholdShift(old.image, new.image, f"the shift of {transfer.by} on the held-out images")
        if new.pixel is not None:
            pixel_shift = ThresholdShift(old.pixel, new.pixel, "as many pixels of the held-out images as before")
    notes = []
    if outcome.sensitivities:
        notes.append("sensitivity is the mean square error of the anomaly maps with one layer alone in lower precision")
    if options.quantize == "fp16":
        notes.append("float16 was computed in float32 and rounded after every operation; the time is that of the graph")
    return ReportContent(
        title=f"{options.quantize} against float: {name}",
        verdict=verdict,
        why=why,
        about=about,
        agreement=agreed,
        statements=statements(agreed, options.tolerances),
        breaches=outcome.breaches,
        scores=image_scores(held_out.answers, outcome.answers, labelled=held_out.labelled),
        steps=outcome.steps,
        sensitivities=outcome.sensitivities,
        thresholds=shift,
        pixel_thresholds=pixel_shift,
        notes=tuple(notes),
    )


def rejection(outcome: Outcome, options: QuantizeOptions) -> str:
    """Why a graph does not pass, and what to do."""
    worst = ", ".join(each.layer for each in outcome.sensitivities[:3])
    return (
        f"{options.quantize} does not hold the tolerances, with {len(outcome.float_layers)} layers back in float:"
        f" {'; '.join(breach.text for breach in outcome.breaches)}; most sensitive: {worst}; the float model stays"
        " as it is; calibrate on more images, try other --ranges, or widen the tolerances knowingly"
    )
