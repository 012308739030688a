"""Which images calibrate a quantized model, which ones judge it, and how they become model inputs.

Everything that is chosen here hangs on what is in the files and on the seed, not on their names, their order or the
machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from edge_ad.bundle.specs import PreprocessSpec, UsabilityLimits
from edge_ad.calibration.evaluation.evaluate import Watch, names_of
from edge_ad.datasets import Dataset, Sample, open_dataset, open_labelled, read_image
from edge_ad.errors import ImageError, SourceError
from edge_ad.image.frame import ImageArray
from edge_ad.image.inspected import AS_THEY_ARE, Inspector
from edge_ad.image.preprocess import Preprocessor
from edge_ad.image.usability import EVERY_LINE, unusable_input

HELD_OUT = Fraction(1, 5)
ENOUGH_IMAGES = 300  # fewer calibrate as well, with a warning
ADVICE = "name a data set, or a folder of good images alone, with {}"
VAL_ADVICE = f"{ADVICE.format('--val')}; or one of good/ and kinds of defects"
_SHOWN = 3


@dataclass(frozen=True)
class Chosen:
    """Images for calibration and for the gate; no file's content is in both.

    Attributes:
        calibration: good images, no two of them the same, in the order of the draw: the first n of them are what a
            draw of n would have given.
        held_out: images for the gate, in natural order.
        labelled: whether the held-out images are known to be good ones and defective ones, some of each.
        drawn: how the calibration images were drawn, in one line.
        notes: what else the user should know about the choice, one line each.
    """

    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    labelled: bool
    drawn: str
    notes: tuple[str, ...] = ()


def good_images(data: Path) -> tuple[Sample, ...]:
    """The good training images of a data set, or of a folder of good images. Raises: SourceError without any."""
    return open_dataset(data, ADVICE.format("--data")).train


def chosen_images(data: Path, val: Path | None, *, count: int, seed: int) -> Chosen:
    """Choose calibration images from the good training images of `data`; its test images are never among them.

    Without `val`, about a fifth of them is held out: those whose content's hash lies in the lowest fifth of what a hash
    can be, but at least one image, and not all. Whether an image is held out therefore does not depend on the others,
    and more images move none of those that are there.

    Args:
        data: data set (see `open_dataset`), or folder of good images.
        val: data set, of which all test images are held out, or its good images where it has no test; or a folder of
            `good/` and kinds of defects, all of which are held out; None to hold out a share of `data`. Images of
            `data` that are in it too do not calibrate.
        count: how many images to draw at most, at least 1.
        seed: of the draw.

    Raises: SourceError when there is nothing to calibrate on, or nothing to hold out; ValueError for such a count.
    """
    if count < 1:
        raise ValueError(f"count: wanted at least 1, got {count}")
    dataset = open_dataset(data, ADVICE.format("--data"))
    notes = list(dataset.notes)
    images = _by_content(dataset.train)
    firsts = set(images.values())
    copies = [sample for sample in dataset.train if sample not in firsts]
    if copies:
        notes.append(
            f"{len(copies)} of {len(dataset.train)} images of {data} are copies and count once: {_named(copies)}"
        )
    if val is None:
        free, held_out = _split(images, data)
        notes.append(
            f"{len(held_out)} of {len(images)} good images are held out for the gate, chosen by their content; no"
            " defective ones are among them: name labelled test images with --val to see changes of AUROC"
        )
    else:
        other = dataset if val.resolve() == data.resolve() else open_labelled(val, VAL_ADVICE)
        notes += [note for note in other.notes if other is not dataset]
        free, held_out = _apart(images, other, data, val, notes)
    drawn = sorted(free, key=lambda digest: hashlib.sha256(f"{seed}\n".encode() + digest).digest())[:count]
    return Chosen(
        tuple(free[digest] for digest in drawn),
        held_out,
        {sample.anomalous for sample in held_out} == {True, False},
        f"{len(drawn)} of {len(free)} images calibrate, drawn with seed {seed}",
        tuple(notes),
    )


def few_images(calibration: int, held_out: int) -> str | None:
    """What may go wrong with so few calibration images, or None when there are enough.

    Args:
        calibration: how many images were read.
        held_out: how many the gate looks at, at least 1.
    """
    if calibration >= ENOUGH_IMAGES:
        return None
    return (
        f"only {calibration} images calibrate, {ENOUGH_IMAGES} or more are better: what is brighter or darker than"
        " anything on them lies outside of the measured ranges, is clipped and may be scored wrongly; the gate sees"
        f" {held_out} images, so a single flipped label is {1 / held_out:.1%} of them; add good images"
    )


class CalibrationImages:
    """Model inputs of images, as often as they are asked for. An image that is of no use is left out and named.

    Iterating gives each image that can be used with its input, (height, width, 3) uint8 RGB at model size, which
    belongs to the caller. It reads the files again each time, and raises SourceError at its end when it gave none.

    Args:
        samples: the images.
        spec: how the model sees a frame.
        watch: passes the samples on and may show how far they are.
        limits: which images show too little.
        inspector: which part of them the model sees.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: PreprocessSpec,
        watch: Watch = lambda samples: samples,
        limits: UsabilityLimits = EVERY_LINE,
        inspector: Inspector = AS_THEY_ARE,
    ) -> None:
        self._inspector = inspector
        self.samples = tuple(samples)
        self.limits = limits
        self.spec = spec
        self._watch = watch
        self._names = names_of(self.samples)
        self._unreadable: dict[str, str] = {}
        self._unusable: dict[str, str] = {}
        self._used = 0

    def __iter__(self) -> Iterator[tuple[Sample, ImageArray]]:
        preprocess = Preprocessor(self.spec)
        used = 0
        try:
            for name, sample in zip(self._names, self._watch(self.samples), strict=True):
                try:
                    looked = self._inspector.look(preprocess, read_image(sample))
                except ImageError as exc:
                    self._unreadable[name] = str(exc).removeprefix(f"picture {sample.image}: ")
                    continue
                reason = looked.reason or unusable_input(looked.model_input, self.limits)
                if reason is not None:
                    self._unusable[name] = reason
                    continue
                used += 1
                yield sample, looked.model_input.image_hwc
        finally:
            preprocess.close()
        self._used = used
        if not used:
            raise SourceError(
                f"wanted images to calibrate on, got none that can be used of {len(self.samples)}:"
                f" {'; '.join(self.notes) or 'no image was given'}; name a folder of sharp, well exposed pictures of"
                " good parts"
            )

    @property
    def used(self) -> int:
        """How many images the last whole pass gave."""
        return self._used

    @property
    def unreadable(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of each image that could not be decoded in any pass so far, each once."""
        return tuple(self._unreadable.items())

    @property
    def unusable(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of each image that shows nothing: black, saturated, one colour, blurred."""
        return tuple(self._unusable.items())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, for the user: at most one line for each kind, which names some of the images."""
        kinds = (("cannot be read", self._unreadable), ("show nothing", self._unusable))
        return tuple(
            f"{len(found)} of {len(self.samples)} images {kind} and do not calibrate: {_with_reasons(found)}"
            for kind, found in kinds
            if found
        )


def content_sha256(samples: Iterable[Sample]) -> str:
    """One hash for what is in the files, whatever their names and their order are; hexadecimal.

    It is the SHA-256 of the files' own SHA-256 (32 bytes each) in ascending order. A file that is empty or
    cannot be read counts by its path, so that its content changes the hash once it is there.
    """
    return hashlib.sha256(b"".join(sorted(_digest(sample) for sample in samples))).hexdigest()


def _split(images: dict[bytes, Sample], data: Path) -> tuple[dict[bytes, Sample], tuple[Sample, ...]]:
    """Images to draw from, and those held out."""
    if len(images) < 2:
        raise SourceError(
            f"data {data}: wanted at least 2 different good images, one to calibrate on and one to hold out, got"
            f" {len(images)}; add images, or name others to hold out with --val"
        )
    ranked = sorted(images)
    below = sum(int.from_bytes(digest[:8], "big") < HELD_OUT * 2**64 for digest in ranked)
    chosen = set(ranked[: min(max(below, 1), len(ranked) - 1)])
    free = {digest: sample for digest, sample in images.items() if digest not in chosen}
    return free, tuple(sample for digest, sample in images.items() if digest in chosen)


def _apart(
    images: dict[bytes, Sample], other: Dataset, data: Path, val: Path, notes: list[str]
) -> tuple[dict[bytes, Sample], tuple[Sample, ...]]:
    """Images to draw from without those that are held out, and those."""
    held_out = other.test or other.train
    missing = "defective" if not any(sample.anomalous for sample in held_out) else "good"
    if {sample.anomalous for sample in held_out} != {True, False}:
        notes.append(f"{val}: no {missing} image is held out, so nothing is said about changes of AUROC")
    known = _by_content(held_out)
    free = {digest: sample for digest, sample in images.items() if digest not in known}
    both = [sample for digest, sample in images.items() if digest in known]
    if not free:
        raise SourceError(
            f"data {data}: wanted at least 1 good image that is not in {val}, got none: all {len(both)} are in both;"
            " name other images with --val, or leave it out to hold some of these out"
        )
    if both:
        notes.append(f"{len(both)} images of {data} are in {val} too and do not calibrate: {_named(both)}")
    return free, held_out


def _by_content(samples: Iterable[Sample]) -> dict[bytes, Sample]:
    """The first sample of each content, by its hash, in the order given."""
    found: dict[bytes, Sample] = {}
    for sample in samples:
        found.setdefault(_digest(sample), sample)
    return found


def _digest(sample: Sample) -> bytes:
    """SHA-256 of a file; of its path where there is nothing to read, which whoever wants its pixels will report."""
    digest = hashlib.sha256()
    length = 0
    try:
        with sample.image.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                length += len(chunk)
    except OSError:
        length = 0
    return digest.digest() if length else hashlib.sha256(b"nothing in " + bytes(sample.image.absolute())).digest()


def _named(samples: Sequence[Sample]) -> str:
    shown = [str(sample.image) for sample in samples[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(samples) > _SHOWN else "")


def _with_reasons(found: dict[str, str]) -> str:
    shown = [f"{name} ({reason})" for name, reason in list(found.items())[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(found) > _SHOWN else "")
