"""One simulated frame: the part on the belt, where this frame's number puts it, with its defects and noise."""

from __future__ import annotations

import numpy as np

from edge_ad.image.frame import Box, ImageArray, Truth
from edge_ad.runtime.host.opencv import load_cv2
from edge_ad.runtime.sources.sim_defects import PlacedPart, draw_defect
from edge_ad.runtime.sources.sim_part import paint_belt, paint_noise, paint_part

PART_OF_SHORT_SIDE = 0.70
SHIFT_OF_SHORT_SIDE = 0.006
_MOST_TURNS = 9
_TURN_MEMORY_BYTES = 256 * 2**20
_LARGEST_TURN_RADIANS = 0.045
_GAIN = 0.04
_NOISE_MEAN, _NOISE_SIGMA = 24.0, 2.6
_NOISE_SLACK = 64
_BELT_SLACK = 320
_SECOND_DEFECT = 0.2


class Scene:
    """Paints frames of `width` x `height` pixels; each depends on `seed` and its number alone.

    The scenery is painted at construction; a frame is put together by slicing and pasting it.
    """

    def __init__(self, width: int, height: int, seed: int) -> None:
        self._width, self._height, self._seed = width, height, seed
        short_side = min(width, height)
        self._shift = round(SHIFT_OF_SHORT_SIDE * short_side)
        radius = PART_OF_SHORT_SIDE * short_side / 2
        self._belt = paint_belt(width + _BELT_SLACK, height, seed)
        self._noise = paint_noise(width + _NOISE_SLACK, height + _NOISE_SLACK, seed, _NOISE_MEAN, _NOISE_SIGMA)
        self._part = paint_part(radius, seed)
        # Turning a picture costs more than all the rest of a frame, so the turned ones are kept.
        turns = max(1, min(_MOST_TURNS, _TURN_MEMORY_BYTES // self._part.premultiplied_bgr.nbytes))
        limit = _LARGEST_TURN_RADIANS if turns > 1 else 0.0
        self._angles = [float(angle) for angle in np.linspace(-limit, limit, turns)]
        self._turned = [_turn(self._part.premultiplied_bgr, angle) for angle in self._angles]

    def paint(self, frame_id: int, defect_probability: float) -> tuple[ImageArray, Truth]:
        """Frame `frame_id` as (H, W, 3) uint8 BGR and what is wrong in it.

        The part, its place and the noise are the same whatever `defect_probability` is.
        """
        cv2 = load_cv2()
        rng = np.random.default_rng([self._seed, frame_id, 0])
        belt_left = int(rng.integers(_BELT_SLACK + 1))
        noise_left, noise_top = (int(value) for value in rng.integers(_NOISE_SLACK + 1, size=2))
        shift_x, shift_y = (int(value) for value in rng.integers(-self._shift, self._shift + 1, size=2))
        turn = int(rng.integers(len(self._turned)))
        gain = 1 + rng.uniform(-_GAIN, _GAIN)

        image: ImageArray = self._belt[:, belt_left : belt_left + self._width].copy()
        center_x, center_y = self._width // 2 + shift_x, self._height // 2 + shift_y
        self._paste(image, self._turned[turn], center_x, center_y)
        part = PlacedPart(center_x, center_y, self._part.radius, self._angles[turn])
        boxes = self._spoil(image, part, frame_id, defect_probability)
        noise = self._noise[noise_top : noise_top + self._height, noise_left : noise_left + self._width]
        cv2.addWeighted(image, gain, noise, 1.0, -_NOISE_MEAN, dst=image)
        return image, Truth(anomalous=bool(boxes), boxes_xyxy=boxes)

    def _paste(self, image: ImageArray, part_bgr: ImageArray, center_x: int, center_y: int) -> None:
        cv2 = load_cv2()
        side = part_bgr.shape[0]
        left, top = center_x - side // 2, center_y - side // 2
        from_x, from_y = max(0, -left), max(0, -top)
        to_x, to_y = min(side, self._width - left), min(side, self._height - top)
        target = image[top + from_y : top + to_y, left + from_x : left + to_x]
        uncovered = self._part.uncovered[from_y:to_y, from_x:to_x]
        cv2.multiply(target, uncovered, dst=target, scale=1 / 255)
        cv2.add(target, part_bgr[from_y:to_y, from_x:to_x], dst=target)

    def _spoil(self, image: ImageArray, part: PlacedPart, frame_id: int, probability: float) -> tuple[Box, ...]:
        rng = np.random.default_rng([self._seed, frame_id, 1])
        if rng.random() >= probability:
            return ()
        count = 2 if rng.random() < _SECOND_DEFECT else 1
        boxes = [draw_defect(rng, image, part) for _ in range(count)]
        return tuple(box for box in boxes if box is not None)


def _turn(picture: ImageArray, angle: float) -> ImageArray:
    cv2 = load_cv2()
    middle = picture.shape[0] // 2
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    stay = middle - turn @ np.array([middle, middle])
    matrix = np.hstack([turn, stay[:, None]])
    turned: ImageArray = cv2.warpAffine(picture, matrix, picture.shape[:2], flags=cv2.INTER_CUBIC)
    return turned
