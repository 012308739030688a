"""One picture with what is known about it, and a data set of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["mvtec", "visa", "dagm", "plain"]
GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """One picture on disk; nothing of it has been read.

    Attributes:
        image: file of the picture.
        defect: `good`, or the kind of defect, which is the name of its folder.
        mask: ground truth picture of a defective sample, not black where anomalous; None where there is none.
        foreground: picture that is not black where the object is; None where there is none.
    """

    image: Path
    defect: str
    mask: Path | None = None
    foreground: Path | None = None

    @property
    def anomalous(self) -> bool:
        return self.defect != GOOD


@dataclass(frozen=True)
class Dataset:
    """What a folder means for training and evaluation; samples are in natural order.

    Attributes:
        name: name of the category's folder.
        layout: how it is laid out.
        train: good samples.
        test: good and defective samples; may be empty.
        notes: what the user should know: held-out images, masks that fit no picture, folders that are not read.
    """

    name: str
    layout: Layout
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
