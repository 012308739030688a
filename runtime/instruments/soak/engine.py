"""An engine under watch: what it was shown, what it said, and faults instead of that."""

from __future__ import annotations

import math
import os
import threading
from contextlib import suppress

from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.engine import BatchArray, Engine, EngineHealth, Outputs, scores_to_believe
from edge_ad.errors import EngineError
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.instruments.soak.books import Books
from edge_ad.runtime.instruments.soak.dice import Dice
from edge_ad.runtime.instruments.soak.fingerprint import read


def _no_graph() -> CheckedGraph:
    raise EngineError("the engine that is watched has the graph")


class WatchedEngine(Engine):
    """Stands around an engine. Pictures without a fingerprint, as those of a warm-up, meet no faults.

    Args:
        inner: not loaded yet.
        geometry: where a model input lies in the frames of the soak.

    Attributes:
        books: notes every score; may be replaced between runs of a line.
        strikes: how often the engine's process was struck.
        unanswered: batches for which the engine itself gave no answer.
    """

    def __init__(self, inner: Engine, geometry: FrameGeometry, dice: Dice, books: Books) -> None:
        super().__init__(_no_graph, inner.spec)
        self.name = inner.name
        self.books = books
        self.closed = threading.Event()
        self.strikes = self.unanswered = 0
        self._inner = inner
        self._geometry = geometry
        self._dice = dice

    @property
    def health(self) -> EngineHealth:
        return self._inner.health

    def give_up(self) -> None:
        self._inner.give_up()

    def load_impl(self) -> None:
        self._inner.__enter__()
        self.effective_precision = self._inner.effective_precision
        self.from_cache = self._inner.from_cache

    def preprocessor(self, spec: PreprocessSpec) -> Preprocessor:
        return self._inner.preprocessor(spec)

    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        fingerprints = [read(image, self._geometry) for image in batch_nhwc]
        if None in fingerprints:
            return self.compute(batch_nhwc)
        fault = self._dice.draw()
        outputs: Outputs = (
            self.compute(batch_nhwc) if fault is None else fault.strike(self, self._dice.random, batch_nhwc)
        )
        postprocess = self.spec.postprocess
        scores = outputs.pred_score if postprocess is None else scores_to_believe(outputs, postprocess)
        for fingerprint, given, score in zip(fingerprints, outputs.pred_score.tolist(), scores.tolist(), strict=True):
            assert fingerprint is not None
            if math.isfinite(given):
                self.books.scored(fingerprint, score)
        return outputs

    def compute(self, batch_nhwc: BatchArray) -> Outputs:
        """What the engine really says."""
        try:
            return self._inner.infer(batch_nhwc)
        except EngineError:
            self.unanswered += 1
            raise

    def strike(self, number: int) -> None:
        """Send a signal to the engine's process, if there is one now."""
        pid = self._inner.health.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                self.strikes += 1

    def close_impl(self) -> None:
        self.closed.set()
        self._inner.__exit__(None, None, None)
