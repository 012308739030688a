"""Model families. A new one is a folder here and one line in FAMILIES."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from edge_ad.errors import ConfigError

if TYPE_CHECKING:
    from edge_ad.models.family import ModelFamily

FAMILIES = {
    "glass": "edge_ad.models.glass.family",
    "simplenet": "edge_ad.models.simplenet.family",
    "draem": "edge_ad.models.draem.family",
    "diffusionad": "edge_ad.models.diffusionad.family",
    "patchcore": "edge_ad.models.patchcore.family",
    "efficientad": "edge_ad.models.efficientad.family",
    "cpr": "edge_ad.models.cpr.family",
}
"""Module of each family; it holds the object FAMILY, and imports no PyTorch."""

DEFAULT_FAMILY = "glass"


def model_family(name: str) -> ModelFamily:
    """The family called `name`. Raises: ConfigError when there is none."""
    if name not in FAMILIES:
        raise ConfigError("family", [f"{name!r} is unknown, wanted one of {', '.join(FAMILIES)}"])
    family: ModelFamily = import_module(FAMILIES[name]).FAMILY
    return family
