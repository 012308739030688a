"""Which patches of a falsely rejected picture have to be known so that it passes: few, and those that it fails by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.calibration.learn.graph import Floats
from edge_ad.calibration.learn.rehearsal import Rehearsal, Said, Scene
from edge_ad.image.cells import counted_cells
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.padding import frame_score, without_padding

MARGIN = 0.2
"""Of the way from the threshold down to what is usual on the picture: how far below the threshold its score is taken,
so that the next photograph of the same part passes too."""
FAR_ABOVE = 1.5
"""Of the way from what is usual on a picture up to the threshold. Good cookies that were just rejected had 1.0 to 1.2,
cracked ones 1.6 to 2.5; other good pictures had 1.7 and more, so it is a warning."""
MOST_ANOMALOUS = 0.5
"""Share of the patch map at or above the threshold: up to 0.3 on defective parts, all of it on another line's."""
MOST_PATCHES = 100
"""Of one picture; cracked cookies, taught as a control, took 27 at most."""


@dataclass(frozen=True)
class Taught:
    """What one picture taught.

    Attributes:
        rows: (K, D) float32, its patches that are learned, minus the centre; the one that it failed by most first.
        patches: how many the picture has.
        usual: median of its patch map.
        before, after: its score, as computed here.
        below: whether it is below the threshold now.
    """

    rows: Floats
    patches: int
    usual: float
    before: float
    after: float
    below: bool

    def doubt(self, threshold: float) -> str | None:
        """What is odd about a picture that is said to be good, or why it is not learned; None for nothing."""
        if not self.below:
            return (
                f"not learned, for {len(self.rows)} of its {self.patches} patches bring it from {self.before:.6g} to no"
                f" less than {self.after:.6g}; choose another threshold, or train anew"
            )
        ratio = (self.before - self.usual) / (threshold - self.usual)
        if ratio > FAR_ABOVE:
            return (
                f"its score lies {ratio:.1f} times as far above what is usual on it as the threshold does; look once"
                " more whether the part is good"
            )
        return None


@dataclass(frozen=True)
class Lens:
    """How a picture is looked at, and judged.

    Attributes:
        geometry: where the frame lies on the model's canvas; padding counts nowhere.
        spec: how maps and score are made.
        threshold: from which on a picture is anomalous.
    """

    geometry: FrameGeometry
    spec: PostprocessSpec
    threshold: float

    def of(self, said: Said) -> Said:
        """What a graph says, as the line judges it."""
        patch_map, anomaly_map = without_padding(said.patch_map, said.anomaly_map, self.geometry, self.spec)
        score = frame_score(patch_map, anomaly_map, said.score, self.geometry, self.spec)
        return Said(patch_map, anomaly_map, score)

    def shown(self, said: Said) -> Floats:
        """The patches that count, whatever their form."""
        return counted_cells(_hw(said.patch_map), self.geometry).values(said.patch_map)

    def foreign(self, said: Said) -> str | None:
        """Why a picture seems to be of another line than the bundle; None where it does not."""
        shown = self.shown(said)
        share = float(np.mean(shown >= self.threshold))
        if share <= MOST_ANOMALOUS and np.median(shown) < self.threshold:
            return None
        return (
            f"not learned, for {share:.0%} of it is anomalous to this bundle; is it of another line, or was the camera"
            " moved? Then train anew"
        )


def teach(rehearsal: Rehearsal, scene: Scene, known: Floats, lens: Lens) -> Taught:
    """Learn patches one after another, each the one that adds most to the score, until the score is below.

    Args:
        known: (K, D), learned before.
    """
    threshold = lens.threshold
    said = lens.of(rehearsal.say(scene, known))
    before, usual = said.score, float(np.median(lens.shown(said)))
    goal = threshold - MARGIN * max(0.0, threshold - usual)
    depth, rows, columns = scene.patches.shape
    open_cells = counted_cells((rows, columns), lens.geometry).whole((rows, columns)).copy()
    learned: list[Floats] = []
    while (
        said.score >= goal
        and len(learned) < MOST_PATCHES
        and (cell := _worst(said, usual, open_cells, lens)) is not None
    ):
        open_cells[cell] = False
        learned.append(scene.patches[:, cell[0], cell[1]])
        said = lens.of(rehearsal.say(scene, np.concatenate([known, np.stack(learned)])))
    new = np.stack(learned) if learned else np.zeros((0, depth), np.float32)
    return Taught(new, int(open_cells.sum()) + len(learned), usual, before, said.score, said.score < threshold)


def _worst(said: Said, usual: float, open_cells: np.ndarray, lens: Lens) -> tuple[int, int] | None:
    """The patch that is not learned yet and that the score owes most to; None where nothing is above the usual."""
    patch_map = said.patch_map
    excess = np.maximum(patch_map - usual, 0)
    if lens.spec.scored_map == "anomaly_map":
        excess = excess * _reach(said, lens)
    row_of, column_of = (np.arange(n) * cells // n for n, cells in zip(patch_map.shape, open_cells.shape, strict=True))
    excess = np.where(open_cells[row_of[:, None], column_of[None, :]], excess, 0)
    row, column = np.unravel_index(int(excess.argmax()), excess.shape)
    if excess[row, column] <= 0:
        return None
    return int(row_of[row]), int(column_of[column])


def _reach(said: Said, lens: Lens) -> Floats:
    """(h, w) weight of each patch at the place of the highest pixel: that of the smoothing, or of a patch's width."""
    size, spec = said.anomaly_map.shape, lens.spec
    counted = counted_cells(_hw(said.anomaly_map), lens.geometry).whole(size)
    peak = np.unravel_index(int(np.where(counted, said.anomaly_map, -np.inf).argmax()), size)
    weights = []
    for place, pixels, patches in zip(peak, size, said.patch_map.shape, strict=True):
        width = pixels / patches
        sigma = max(spec.sigma if spec.smoothing == "gaussian" else (spec.size or 0) / 2, width)
        centres = (np.arange(patches) + 0.5) * width - 0.5
        weights.append(np.exp(-0.5 * ((centres - place) / sigma) ** 2))
    return np.asarray(np.outer(*weights), np.float32)


def _hw(array: Floats) -> tuple[int, int]:
    return array.shape[0], array.shape[1]
