"""Plain folders: one of good images, maybe one of defective ones, maybe one of masks."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from pathlib import Path

from edge_ad.datasets.content import noted
from edge_ad.datasets.folders import good_pictures_in, hold_out, mask_notes, match_masks, pictures_in
from edge_ad.datasets.sample import GOOD, Dataset, Sample
from edge_ad.errors import SourceError

HELD_OUT = Fraction(1, 5)


def plain_dataset(good: Path, bad: Path | None = None, masks: Path | None = None) -> Dataset:
    """Data set of plain folders, each read with its subfolders.

    With `bad`, a fixed fifth of the good images is held out, so that there is a test; without, all of them are for
    training and the test is empty.

    Args:
        good: folder of good images.
        bad: folder of defective images; the subfolder directly below it names the kind of defect.
        masks: folder of pictures that are not black where defective, by the path below `bad` or by the stem.

    Raises: SourceError for no good image, an empty or unreadable folder, folders that lie in one another, and
        ambiguous masks.
    """
    if masks is not None and bad is None:
        raise SourceError(f"masks {masks} need the defective images that they belong to; name their folder too")
    refuse_overlap({"good": good, "bad": bad, "masks": masks})
    pictures = good_pictures_in(good)
    name = good.resolve().name
    if bad is None:
        return Dataset(name, "plain", tuple(Sample(picture, GOOD) for picture in pictures), ())
    kept, held_out = hold_out(pictures, good, HELD_OUT)
    notes = [f"{len(held_out)} of {len(pictures)} good images are held out for the test, chosen by their names"]
    if not held_out:
        notes = ["the only good image is for training: the test has no good one"]
    test = [Sample(picture, GOOD) for picture in held_out] + defective_samples(bad, masks, notes)
    return noted(Dataset(name, "plain", tuple(Sample(picture, GOOD) for picture in kept), tuple(test), tuple(notes)))


def defective_samples(bad: Path, masks: Path | None = None, notes: list[str] | None = None) -> list[Sample]:
    """Defective images below a folder. Args: notes: receives what the user should know of their masks.

    Raises: SourceError for an empty or unreadable folder, one that holds good ones too, and ambiguous masks.
    """
    pictures = pictures_in(bad)
    if not pictures:
        raise SourceError(f"folder {bad} holds no defective image; put some there, or leave the folder out")
    defects = [_defect(picture, bad) for picture in pictures]
    good = next((defect for defect in defects if defect.casefold() == GOOD), None)
    if good is not None:
        raise SourceError(f"{bad} is the folder of defective images, but holds pictures in {bad / good}; move them")
    if masks is None:
        return [Sample(picture, defect) for picture, defect in zip(pictures, defects, strict=True)]
    matched = match_masks(pictures, bad, pictures_in(masks), masks)
    if notes is not None:
        notes += mask_notes("defective images", pictures, matched)
    return [Sample(*parts) for parts in zip(pictures, defects, matched.masks, strict=True)]


def _defect(picture: Path, bad: Path) -> str:
    """The subfolder of a picture; for one directly in `bad`, that folder's own name unless it is the word for good."""
    parts = picture.relative_to(bad).parts
    if len(parts) > 1:
        return parts[0]
    name = bad.resolve().name
    return name if name.casefold() not in ("", GOOD) else "bad"


def refuse_overlap(folders: dict[str, Path | None]) -> None:
    """Raise SourceError for a folder inside of another: it would be read twice, defective images as good ones."""
    given = [(kind, path, path.resolve()) for kind, path in folders.items() if path is not None]
    for (kind, path, real), (other_kind, other, other_real) in combinations(given, 2):
        if real == other_real or real in other_real.parents or other_real in real.parents:
            raise SourceError(
                f"the folders of {kind} and {other_kind} lie in one another: {path} and {other}; separate them"
            )
