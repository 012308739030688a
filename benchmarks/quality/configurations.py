"""What is measured: configurations of edge-ad and of anomalib, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OURS, ANOMALIB = "edge-ad", "anomalib 2.7.0"


@dataclass(frozen=True)
class Configuration:
    """One way to train a detector.

    Attributes:
        name: in tables, files and `--only`.
        side: OURS or ANOMALIB.
        told: options of `edge-ad train`, or the name of anomalib's model.
    """

    name: str
    side: str
    told: tuple[str, ...]


def ours(name: str, *told: str) -> Configuration:
    return Configuration(name, OURS, told)


def anomalibs(model: str) -> Configuration:
    return Configuration(f"anomalib-{model}", ANOMALIB, (model,))


CONFIGURATIONS = (
    ours("auto"),
    ours("glass-fast", "--family", "glass", "--preset", "fast"),
    ours("simplenet-fast", "--family", "simplenet", "--preset", "fast"),
    ours("patchcore-fast", "--family", "patchcore", "--preset", "fast"),
    ours("patchcore-all", "--family", "patchcore", "--preset", "fast", "--coreset", "100%"),
    ours("patchcore-small-bank", "--family", "patchcore", "--preset", "fast", "--coreset", "100"),
    ours("cpr-fast", "--family", "cpr", "--preset", "fast"),
    ours("cpr-no-metric", "--family", "cpr", "--preset", "fast", "--no-metric"),
    ours("draem-fast", "--family", "draem", "--preset", "fast", "--imgsz", "128"),
    anomalibs("patchcore"),
    anomalibs("padim"),
    anomalibs("stfpm"),
    anomalibs("fastflow"),
    anomalibs("glass"),
)
"""`auto` is `edge-ad train DATA`. `patchcore-all` keeps every patch: the nearest neighbour, for which a smaller bank or
a head stands in. anomalib's five have MobileNetV2 on the same packaged weights, 256x256; what their code does not let
differ stays."""


def chosen(only: Sequence[str]) -> list[Configuration]:
    """Those of these names, or all. Raises: ValueError for a name that there is not."""
    known = {each.name: each for each in CONFIGURATIONS}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: unknown; wanted some of {', '.join(known)}")
    return [known[name] for name in only] if only else list(CONFIGURATIONS)
