"""Choosing between manifold and hypersphere by the spectrum of the mean good picture (the paper's appendix).

Parts that always lie alike leave edges in their mean picture, hence a wide spectrum: a centre for every position says
much about them, and the hypersphere around it fits. Textures and parts that lie anyhow average to a blur whose
spectrum is a spot in the middle: they are followed patch by patch, on the manifold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.models.glass.config import Hypothesis

BLUR_PIXELS = 39  # side of the Gaussian window over the spectrum (the paper's appendix)
MAGNITUDE = 170.0  # 20·ln|F| from which on a frequency counts (the paper's appendix)
SIDE = 288  # pixels of the mean picture, for which the two constants above hold
DENSE = 0.05  # share of frequencies that count from which on a spectrum is called wide; our own choice


@dataclass(frozen=True)
class HypothesisChoice:
    """What was chosen, and the figure that decided: the share of frequencies above MAGNITUDE."""

    hypothesis: Hypothesis
    density: float

    def __str__(self) -> str:
        side = "at least" if self.hypothesis == "hypersphere" else "below"
        return f"{self.hypothesis} (spectrum of the mean picture: density {self.density:.3f}, {side} {DENSE})"


def choose_hypothesis(images: Iterable[ImageArray]) -> HypothesisChoice:
    """Look at the mean of good pictures, all (H, W, 3) uint8 of one size; at least one."""
    total: NDArray[np.float64] | None = None
    count = 0
    for image_hwc in images:
        grey = image_hwc.astype(np.float64).mean(2)
        total = grey if total is None else total + grey
        count += 1
    if total is None:
        raise ValueError("choose_hypothesis: wanted at least one picture")
    density = spectrum_density(total / count)
    return HypothesisChoice("hypersphere" if density >= DENSE else "manifold", density)


def spectrum_density(grey_hw: NDArray[np.float64]) -> float:
    """Share of the frequencies of a grey picture (levels 0 to 255) whose smoothed magnitude exceeds MAGNITUDE."""
    import cv2

    square = cv2.resize(grey_hw, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    magnitude = 20 * np.log(np.abs(np.fft.fftshift(np.fft.fft2(square))) + 1)
    smooth = cv2.GaussianBlur(magnitude, (BLUR_PIXELS, BLUR_PIXELS), 0)
    return float((smooth > MAGNITUDE).mean())
