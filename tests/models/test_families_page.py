"""docs/families.md says what the families declare: their rows, presets, options, sizes and tensors."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from edge_ad.bundle import specs
from edge_ad.bundle.bundle import SCHEMA_VERSION
from edge_ad.cli.family_table import HEADINGS
from edge_ad.models import FAMILIES, model_family
from edge_ad.models.family import option_names
from edge_ad.models.references import ReferenceOptions

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "families.md").read_text("utf-8")
COMMANDS = {"family", "preset", "noise-seeds"}


def rows(heading: str) -> list[list[str]]:
    """Rows of the first table of a section, cell by cell, with its head and without its rule."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return [row for row in cells if not set("".join(row)) <= set("-|")]


def test_the_table_is_what_the_families_say_of_themselves() -> None:
    head, *found = rows("Which one")
    assert head == ["family", *HEADINGS.values()]
    wanted = {name: model_family(name).about for name in FAMILIES}
    assert found == [[f"`{name}`", *(getattr(about, key) for key in HEADINGS)] for name, about in wanted.items()]
    assert set(HEADINGS) == set(vars(next(iter(wanted.values()))))


@pytest.mark.parametrize("name", FAMILIES)
def test_tensors_and_sizes(name: str) -> None:
    family = model_family(name)
    assert all(f"`{tensor}`" in PAGE for tensor in family.known_by)
    assert family.multiple == 1 or f"multiples of {family.multiple};" in PAGE.replace("\n", " ")
    assert all(f"--preset {preset}" in PAGE for preset in family.train_options.presets)


def test_every_difference_has_an_option_of_its_family_that_takes_the_value(tmp_path: Path) -> None:
    titles = {"GLASS": "glass", "SimpleNet": "simplenet", "DRAEM": "draem", "DiffusionAD": "diffusionad"}
    titles |= {"PatchCore": "patchcore", "EfficientAD": "efficientad", "CPR": "cpr"}
    assert set(titles.values()) == set(FAMILIES)
    head, *found = rows("Where paper and code differ")
    assert head[0] == "family" and {titles[row[0]] for row in found} == set(FAMILIES)
    given = 0
    for row in found:
        kind = model_family(titles[row[0]]).train_options
        for text in re.findall(r"`([^`]+)`", row[-1]):
            values = dict(re.findall(r"--([a-z-]+) (\S+)", text))
            assert values, text
            needed = {"data", "output", "teacher"} & set(option_names(kind))
            kind.checked({**values, **dict.fromkeys(needed, str(tmp_path))}, text)
            given += len(values)
    assert given >= 12


def test_every_option_that_is_named_exists() -> None:
    families = [model_family(name) for name in FAMILIES]
    kinds = [
        ReferenceOptions,
        *(kind for family in families for kind in (family.network_options, family.train_options)),
    ]
    known = {option.replace("_", "-") for kind in kinds for option in option_names(kind)} | COMMANDS | {"help"}
    known |= {str(field.metadata.get("off")) for kind in kinds for field in fields(kind)}
    named = set(re.findall(r"--([a-z][a-z-]*[a-z])", PAGE))
    assert named - known == set()


def test_every_word_of_a_manifest_is_explained() -> None:
    explained = " ".join(cell for row in rows("What a manifest says of a model") for cell in row)
    for key in ("activation", "resize", "smoothing", "score", "frame_map"):
        assert f"`postprocess.{key}`" in explained
    kinds = (
        specs.Activation,
        specs.MapResize,
        specs.Smoothing,
        specs.Border,
        specs.ScoreKind,
        specs.MapName,
        specs.Filter,
    )
    missing = [value for kind in kinds for value in get_args(kind) if f"`{value}`" not in explained]
    assert missing == []
    assert {"`thresholds.image`", "`thresholds.pixel`"} <= set(explained.replace(",", " ").split())
    assert f"schema version {SCHEMA_VERSION}" in PAGE
