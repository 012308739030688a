"""Judging frames with a bundle on an engine: what `edge_ad.open` gives."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import Precision, Thresholds
from edge_ad.engine import COARSEST, TOLERANCES, Engine, EngineHealth, Outputs
from edge_ad.errors import BundleError
from edge_ad.image.frame import Box, ColorOrder, ImageArray
from edge_ad.image.inspected import AS_THEY_ARE, Inspected, Inspector, inspector_of
from edge_ad.image.padding import frame_score, without_padding
from edge_ad.image.preprocess import ModelInput, Preprocessor
from edge_ad.image.usability import unusable_input
from edge_ad.record.verdict import Maps, Provenance, Region, Verdict
from edge_ad.runtime.judge.postprocess import (
    decide,
    find_regions,
    smoothing_error,
)

log = logging.getLogger(__name__)

SMOOTHING_ERROR = 1e-4
"""How far a map may be from its smoothed patch map in float32: 1e-6 was seen, another sigma by 3 % is 1e-3."""
CLOSE_S = 1.0
"""How long closing waits for a call of the engine that is under way."""


@dataclass(frozen=True)
class Prepared:
    """A frame that is ready for the engine.

    Attributes:
        model_input: what the model is to see.
        took_ms: time that making it took.
        reason: why the frame cannot be judged, or None.
        inspected: what of the frame counts; None for all of it.
    """

    model_input: ModelInput
    took_ms: float
    reason: str | None
    inspected: Inspected | None = None


class Detector:
    """Judges frames with one bundle on one engine. Use it in a `with` block; one caller at a time.

    Attributes:
        bundle: the checked bundle.
        thresholds: raw scores in use; they may be replaced between frames.
        max_batch: frames that `infer` takes at once.
    """

    def __init__(self, bundle: Bundle, engine: Engine, thresholds: Thresholds, *, max_batch: int = 1) -> None:
        self.bundle = bundle
        self.thresholds = thresholds
        self.max_batch = max_batch
        self._engine = engine
        self._preprocess = Preprocessor(bundle.manifest.preprocess)
        self._usability = bundle.usability
        self._inspector = inspector_of(bundle)
        self._preparing, self._inferring = threading.Lock(), threading.Lock()

    def __enter__(self) -> Detector:
        """Load the engine and judge one made-up frame, so that the first real one is as fast as the others."""
        self._engine.__enter__()
        try:
            self._preprocess = self._engine.preprocessor(self.bundle.manifest.preprocess)
            height, width = self.bundle.manifest.preprocess.size_hw
            ramp = np.add.outer(np.arange(2 * height), np.arange(2 * width)).astype(np.uint8)
            # As it is: it may have neither the size nor the part that an inspection speaks of. Usable or not.
            prepared = self.prepare(np.repeat(ramp[:, :, None], 3, axis=2), inspector=AS_THEY_ARE)
            outputs = self.infer([prepared])
            self._check_smoothing(outputs)
            maps = self.conclude(prepared, outputs).maps
            if maps is not None:
                find_regions(maps.anomaly_map, maps.patch_map, maps.geometry, 0.0)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def _check_smoothing(self, outputs: Outputs) -> None:
        """Masks, and maps of padded frames, are made of the patch map: the graph has to smooth as the manifest says.

        Raises: BundleError when it does not.
        """
        postprocess = self.bundle.manifest.postprocess
        apart = smoothing_error(outputs, postprocess)
        allowed = max(SMOOTHING_ERROR, TOLERANCES.get(self._engine.effective_precision, COARSEST))
        if apart > allowed:
            raise BundleError(
                f"bundle {self.bundle.path}: the anomaly map of its graph is off by {apart:.2g} from its patch map"
                f" smoothed with sigma {postprocess.sigma:g} and truncate {postprocess.truncate:g}, as the manifest has"
                " it; export it again"
            )

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close. What an engine that hangs in a call has allocated stays, for freeing it would crash the process."""
        with ExitStack() as stack:
            for lock in (self._preparing, self._inferring):
                if not lock.acquire(timeout=CLOSE_S):
                    self._engine.give_up()
                    if lock.acquire(timeout=CLOSE_S):
                        stack.callback(lock.release)
                        continue
                    log.warning("engine %s still hangs in a call and is not closed", self._engine.name)
                    return
                stack.callback(lock.release)
            self._preprocess.close()
            self._engine.__exit__(exc_type, exc, traceback)

    @property
    def precision(self) -> Precision:
        """Which of the bundle's models judges; the engine may compute it in another arithmetic, see `provenance`."""
        return self._engine.spec.precision

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.bundle.sha256, self._engine.name, self._engine.effective_precision)

    @property
    def health(self) -> EngineHealth:
        """How the engine is doing; from any thread."""
        return self._engine.health

    @property
    def resizes_with(self) -> str:
        """What makes the model input: `compiled`, `Pillow`, or `CUDA`."""
        return self._preprocess.resizes_with

    @property
    def from_cache(self) -> bool:
        """Whether the engine came from the cache instead of being compiled."""
        return self._engine.from_cache

    def judge(self, image_hwc: ImageArray, *, color_order: ColorOrder = "rgb", roi: Box | None = None) -> Verdict:
        """Judge one frame.

        Args:
            image_hwc: (H, W, 3) uint8, any size.
            color_order: `rgb`, or `bgr` for pictures that come from OpenCV.
            roi: the part of the frame that is judged, in frame pixels; None for what the bundle's inspection says, all
                of it without one.

        Returns: a verdict whose arrays belong to the caller. Its status is `unusable` for a frame that shows nothing,
            or is far blurrier than the line's good ones.

        Raises: ImageError for an array that is no such image, or does not hold `roi`; EngineError.
        """
        prepared = self.prepare(image_hwc, color_order=color_order, roi=roi)
        if prepared.reason is not None:
            return self.unusable(prepared)
        began = time.perf_counter()
        outputs = self.infer([prepared])
        inferred = time.perf_counter()
        verdict = self.conclude(prepared, outputs)
        timings_ms = {
            "preprocess": prepared.took_ms,
            "infer": (inferred - began) * 1e3,
            "postprocess": (time.perf_counter() - inferred) * 1e3,
        }
        return replace(verdict, timings_ms=timings_ms)

    def prepare(
        self,
        image_hwc: ImageArray,
        *,
        color_order: ColorOrder = "rgb",
        roi: Box | None = None,
        inspector: Inspector | None = None,
    ) -> Prepared:
        """First part of `judge`: the model input. The parts may run in three threads, each of them in one at a time.

        Args:
            roi: the part of the frame that is judged, in frame pixels; None for what is inspected.
            inspector: in place of the bundle's.

        Raises: ImageError, also for a `roi` that the frame does not hold; EngineError where the engine's device makes
            the model input, and fails.
        """
        began = time.perf_counter()
        with self._preparing:
            looked = (inspector or self._inspector).look(self._preprocess, image_hwc, color_order, roi)
        took_ms = (time.perf_counter() - began) * 1e3
        reason = looked.reason or unusable_input(looked.model_input, self._usability)
        return Prepared(looked.model_input, took_ms, reason, looked.inspected)

    def roi_of(self, roi: Box | None, inspector: Inspector | None) -> Box | None:
        """What `prepare` cuts out of a frame when it is told this, where no part has moved; None for nothing."""
        return roi or (inspector or self._inspector).spec.roi

    def unusable(self, prepared: Prepared, *, thresholds: Thresholds | None = None) -> Verdict:
        """The verdict of a frame that shows too little, which is not to be inferred."""
        return Verdict(
            "unusable",
            threshold=(thresholds or self.thresholds).image,
            inspected_box=prepared.model_input.geometry.inspected_box,
            timings_ms={"preprocess": prepared.took_ms},
            reason=prepared.reason,
            inspected=prepared.inspected,
        )

    def infer(self, batch: Sequence[Prepared]) -> Outputs:
        """Second part of `judge`: one call of the engine for 1 to `max_batch` frames.

        Returns: outputs whose first entries are those of the frames, in order. Raises: EngineError.
        """
        images = [prepared.model_input.image_hwc for prepared in batch]
        images += images[-1:] * ((self._engine.spec.batch or 0) - len(images))  # a fixed batch is filled up
        with self._inferring:
            return self._engine.infer(images[0][None] if len(images) == 1 else np.stack(images))

    def conclude(
        self, prepared: Prepared, outputs: Outputs, index: int = 0, *, thresholds: Thresholds | None = None
    ) -> Verdict:
        """Third part of `judge`: verdict and regions, without timings.

        Args:
            index: which of the outputs is the frame's.
            thresholds: in place of the detector's.
        """
        geometry, postprocess = prepared.model_input.geometry, self.bundle.manifest.postprocess
        thresholds = thresholds or self.thresholds
        patch_map, anomaly_map = without_padding(
            outputs.patch_map[index], outputs.anomaly_map[index], geometry, postprocess
        )
        score = frame_score(patch_map, anomaly_map, float(outputs.pred_score[index]), geometry, postprocess)
        threshold = thresholds.image
        label = decide(score, thresholds)
        regions: tuple[Region, ...] = ()
        if label == "anomalous" and thresholds.pixels is not None:
            regions = find_regions(anomaly_map, patch_map, geometry, thresholds.pixels)
        return Verdict(
            "ok",
            score=score,
            threshold=threshold,
            verdict=label,
            regions=regions,
            inspected_box=geometry.inspected_box,
            maps=Maps(patch_map, anomaly_map, geometry, postprocess, thresholds.pixels),
            inspected=prepared.inspected,
        )
