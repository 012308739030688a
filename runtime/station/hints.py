"""What the user should know of a run before its first frame and after its last one, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.station.settings import LineSettings


def hints_before(settings: LineSettings, lanes: Sequence[Lane], detector: Detector) -> Iterator[str]:
    """Who judges, and what is unproven or missing."""
    provenance = detector.provenance
    how = "from the cache" if detector.from_cache else "compiled"
    if detector.health.pid is not None:
        how += f", in process {detector.health.pid}"
    yield f"engine {provenance.engine}, {provenance.precision}, {how}; bundle {provenance.bundle[:12]}"
    record = detector.bundle.manifest.quantization.get(detector.precision)
    gate = "unproven" if record is None else record.gate
    if detector.precision != "fp32" and gate != "passed":
        yield (
            f"warning: the gate of the {detector.precision} model is {gate}: it may be far from the float model;"
            " 'edge-ad calibrate' proves one, --precision fp32 does without"
        )
    pictures = settings.sinks.pictures
    least, most = detector.bundle.manifest.postprocess.scores
    for score, lane in {threshold_of(lane, detector): lane for lane in reversed(lanes)}.items():
        whose = "" if len(lanes) == 1 else f"{lane.name}: "
        if score is None:
            yield f"note: {whose}the bundle has no threshold, so frames get a score but no verdict; give --threshold"
            if "masks" in pictures.save:
                yield "warning: no masks are saved without a threshold"
            if pictures.save and pictures.which == "rejects":
                yield "warning: no pictures of rejects are saved without a threshold"
        elif not least <= score <= most:
            yield (
                f"warning: {whose}scores lie between {least:g} and {most:g}; threshold {score:g} gives one verdict to"
                " all frames"
            )


def hints_after(lanes: Sequence[Lane], telemetry: Telemetry) -> Iterator[str]:
    """Sources that gave fewer frames than they said they have."""
    for lane, counts in zip(lanes, telemetry.counters.snapshot().lanes, strict=True):
        given, length = counts.captured + counts.left_out, lane.source.length or 0
        if given < length and (lane.max_frames is None or counts.captured < lane.max_frames):
            yield f"warning: {lane.name} ended after {given} of {length} frames; is it damaged?"


def threshold_of(lane: Lane, detector: Detector) -> float | None:
    """The raw score from which on frames of a camera are anomalous, when the run begins."""
    return (lane.thresholds or detector.thresholds).image
