"""What `edge-ad info` says of the model families. It reads what they declare; no network is loaded."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from edge_ad.cli.printable import console_on

PIPE_COLUMNS = 120  # width of the table where no terminal sets one
HEADINGS = {
    "good_at": "good at",
    "cost": "cost of a picture",
    "training": "training",
    "checkpoints": "checkpoints",
    "paper": "paper",
    "licence": "licence of the original",
}
"""Columns, by what `About` calls them."""
NARROW = ("good_at", "cost", "training", "checkpoints")
"""Columns of a terminal; paper and licence share one, and no word is broken."""


def families_json() -> str:
    """All that is said of every family."""
    return json.dumps({"families": {name: _declared(name) for name in _names()}}, indent=2)


def print_families() -> None:
    """One table on standard output."""
    from rich.table import Table
    from rich.text import Text

    from edge_ad.models import DEFAULT_FAMILY, model_family

    console = console_on(sys.stdout)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    table = Table(title="model families", title_justify="left", show_lines=True)
    table.add_column("family", no_wrap=True)
    every = {name: model_family(name).about for name in _names()}
    for key in NARROW:
        longest = max(len(word) for about in every.values() for word in getattr(about, key).split())
        table.add_column(HEADINGS[key], overflow="fold", min_width=longest)
    table.add_column(f"{HEADINGS['paper']}; {HEADINGS['licence']}", overflow="fold")
    for name, about in every.items():
        shown = f"{name}\n(default)" if name == DEFAULT_FAMILY else name
        told = (*(getattr(about, key) for key in NARROW), f"{about.paper}; {about.licence}")
        table.add_row(Text(shown), *map(Text, told))
    console.print(table)
    console.print(Text("edge-ad train --family NAME --help lists the options of one; docs/families.md says more."))


def paper_of(family: str) -> str | None:
    """Who published a family, and where; None for one that this edge-ad does not know."""
    from edge_ad.models import FAMILIES, model_family

    return model_family(family).about.paper if family in FAMILIES else None


def _names() -> list[str]:
    from edge_ad.models import FAMILIES

    return list(FAMILIES)


def _declared(name: str) -> dict[str, Any]:
    from edge_ad.models import DEFAULT_FAMILY, model_family
    from edge_ad.validation import plain

    family = model_family(name)
    return {
        **asdict(family.about),
        "default": name == DEFAULT_FAMILY,
        "presets": list(family.train_options.presets),
        "preprocess": plain(family.preprocess),
        "postprocess": plain(family.postprocess),
    }
