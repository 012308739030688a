"""Where a part lies: a template of it is looked for near its place, by grey levels, to whole pixels.

The measure is the correlation of grey levels without their mean, normalised (OpenCV's TM_CCOEFF_NORMED), so brightness
and contrast do not matter. It is looked for in a reduced picture first; the best places of that are refined in the
frame's own pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.inspection import Alignment
from edge_ad.errors import ImageError
from edge_ad.image.frame import Box, ColorOrder, ImageArray

SMALLEST = 16  # pixels of the template's shorter side in the reduced picture
LARGEST_FACTOR = 8
PLACES = 3  # of the reduced picture that are refined, at most
FAR_WORSE = 0.2  # than the best place: reducing moves a correlation by less
LEAST_SIDE = 8  # pixels of a template: of a few, something matches everywhere
LEAST_SPREAD = 1.0  # grey levels, standard deviation of a template

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Aligned:
    """Where a part lies.

    Attributes:
        dx, dy: how far right and down of the place that the template was taken at, in frame pixels.
        match: correlation there, -1..1.
    """

    dx: int
    dy: int
    match: float


class Template:
    """Finds a part by what every part shows at the same place.

    Args:
        grey: (h, w) uint8.
        spec: where it lies in the frame that it was taken from, and how far from there it is looked for.
        name: what messages call it.

    Raises: ImageError for a template that shows nothing.
    """

    def __init__(self, grey: Grey, spec: Alignment, name: str) -> None:
        self.spec = spec
        self.name = name
        self.grey = grey
        if min(grey.shape) < LEAST_SIDE:
            raise ImageError(
                f"template {name}: {grey.shape[1]}x{grey.shape[0]} pixels, wanted {LEAST_SIDE} each way at least:"
                " so few are found anywhere"
            )
        if grey.std() < LEAST_SPREAD:
            raise ImageError(
                f"template {name}: {grey.shape[1]}x{grey.shape[0]} pixels of nearly one grey level, wanted something"
                " that can be told from its surroundings"
            )
        shorter, factor = min(grey.shape), 1
        while factor < LARGEST_FACTOR and shorter >= 2 * factor * SMALLEST:
            factor *= 2
        self._factor = factor
        self._small = _reduced(grey, factor)

    @property
    def box(self) -> Box:
        """Where it lies in the frame that it was taken from."""
        (left, top), (height, width) = self.spec.at, self.grey.shape
        return left, top, left + width, top + height

    def find(self, image_hwc: ImageArray, color_order: ColorOrder) -> Aligned:
        """The place that matches best, well or not.

        Args:
            image_hwc: (H, W, 3) uint8, the frame.

        Raises: ImageError for a frame that does not hold the template's own place.
        """
        height, width = image_hwc.shape[:2]
        left, top, right, bottom = self.box
        if right > width or bottom > height:
            raise ImageError(
                f"template {self.name}: lies at x {left}..{right}, y {top}..{bottom}, outside of the {width}x{height}"
                " frame; correct where it lies, or the camera's resolution"
            )
        reach = self.spec.reach_px
        x_0, y_0 = max(0, left - reach), max(0, top - reach)
        window = _grey(image_hwc[y_0 : bottom + reach, x_0 : right + reach], color_order)
        found = max(
            (self._refined(window, place) for place in self._places(window)), key=lambda found: (found[2], found[:2])
        )
        return Aligned(x_0 + found[0] - left, y_0 + found[1] - top, found[2])

    def _places(self, window: Grey) -> list[tuple[int, int]]:
        """The best places (x, y) in the window, in its pixels, as the reduced picture has them."""
        factor = self._factor
        scores = _correlation(_reduced(window, factor), self._small)
        best = float(scores.max())
        apart = max(1, min(self._small.shape) // 4)
        places = []
        for _ in range(PLACES if factor > 1 else 1):
            y, x = (int(index) for index in np.unravel_index(int(scores.argmax()), scores.shape))
            if scores[y, x] < best - FAR_WORSE:
                break
            places.append((x * factor, y * factor))
            scores[max(0, y - apart) : y + apart + 1, max(0, x - apart) : x + apart + 1] = -np.inf
        return places

    def _refined(self, window: Grey, place: tuple[int, int]) -> tuple[int, int, float]:
        """The best place around one of the reduced picture, and its correlation."""
        (height, width), reach = self.grey.shape, 0 if self._factor == 1 else self._factor + 1
        # The reduced pictures leave out up to factor - 1 pixels at the far ends, which are looked at here.
        x_0, y_0 = max(0, place[0] - reach), max(0, place[1] - reach)
        near = window[y_0 : place[1] + height + reach, x_0 : place[0] + width + reach]
        if self._factor == 1:
            near = window[y_0 : y_0 + height, x_0 : x_0 + width]
        scores = _correlation(near, self.grey)
        y, x = (int(index) for index in np.unravel_index(int(scores.argmax()), scores.shape))
        at = near[y : y + height, x : x + width]
        return x_0 + x, y_0 + y, _exact(at, self.grey)


def _grey(image_hwc: ImageArray, color_order: ColorOrder) -> Grey:
    import cv2

    code = cv2.COLOR_RGB2GRAY if color_order == "rgb" else cv2.COLOR_BGR2GRAY
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image_hwc), code), np.uint8)


def grey_of(image_hwc: ImageArray) -> Grey:
    """(H, W) uint8 of a picture in RGB, as templates and frames are compared."""
    return _grey(image_hwc, "rgb")


def _reduced(grey: Grey, factor: int) -> Grey:
    """Means of squares of `factor` pixels; what does not fill one at the far ends is left out."""
    if factor == 1:
        return grey
    import cv2

    rows, columns = grey.shape[0] // factor, grey.shape[1] // factor
    whole = np.ascontiguousarray(grey[: rows * factor, : columns * factor])
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _correlation(window: Grey, template: Grey) -> Any:
    """(rows, columns) float32 of all places that hold the template; one of them at least."""
    import cv2

    scores = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
    return np.where(np.isfinite(scores), np.minimum(scores, 1.0), -1.0)


def _exact(at: Grey, template: Grey) -> float:
    """Correlation in float64: where a window has one grey level, OpenCV's own is noise."""
    one, other = (grey.astype(np.float64) - grey.mean() for grey in (at, template))
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return 0.0 if norm == 0 else min(1.0, float((one * other).sum()) / norm)
