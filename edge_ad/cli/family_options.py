"""Commands whose options are those of a model family: `--family draem --help` shows DRAEM's, and none of another's.

Options that only other families have are taken all the same, unseen, so that the check of all options can say whose
they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.errors import EdgeAdError

if TYPE_CHECKING:
    from edge_ad.models.family import ModelFamily

FAMILY_KEY, OTHER_KEY = "edge-ad family", "edge-ad other options"  # of what click's context holds


class FamilyCommand(click.Command):
    """A command with the options of a family beside its own.

    Args:
        kind: family → the dataclass whose fields are its options.
        other: arguments → the dataclass of what the command can do instead, and whether they ask for that; its options
            are then those shown.
    """

    def __init__(
        self,
        *args: Any,
        kind: Callable[[ModelFamily], type[Any]],
        other: Callable[[Sequence[str]], tuple[type[Any], bool]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._kind, self._other = kind, other

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[FAMILY_KEY] = named_family(args)
        ctx.meta[OTHER_KEY] = None if self._other is None else self._other(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, last = super().get_params(ctx)  # --help stays the last
        taken = {parameter.name for parameter in (*own, last)}
        other = ctx.meta.get(OTHER_KEY)
        kind, asked = (None, False) if other is None else other
        first = list(_new(kind, taken, hidden=False)) if asked and kind is not None else []
        added = list(self._of_families(None if asked else ctx.meta.get(FAMILY_KEY), taken, hidden=asked))
        rest = [] if kind is None else _new(kind, taken, hidden=True)
        return [*own, *first, *added, *rest, last]

    def _of_families(self, chosen: str | None, taken: set[Any], *, hidden: bool) -> Iterator[click.Parameter]:
        from edge_ad.models import DEFAULT_FAMILY, FAMILIES, model_family

        first = chosen if chosen in FAMILIES else DEFAULT_FAMILY
        for name in sorted(FAMILIES, key=lambda family: family != first):
            yield from _new(self._kind(model_family(name)), taken, hidden=hidden or name != first)


def _new(kind: type[Any], taken: set[Any], *, hidden: bool) -> Iterator[click.Parameter]:
    """Options of a dataclass whose names are not taken yet; they are then."""
    for field in fields(kind):
        if "help" in field.metadata and field.name not in taken:
            taken.add(field.name)
            yield _option(field, hidden=hidden)


def _option(field: Field[Any], *, hidden: bool) -> click.Option:
    """The option of a field made by `option_types.option`; its value is checked with all others."""
    name = field.name.replace("_", "-")
    if field.metadata["off"] is not None:
        flags = f"--{name}/--{field.metadata['off']}"
        return click.Option([flags, field.name], default=None, help=field.metadata["help"], hidden=hidden)
    assert field.default is not MISSING
    return click.Option(
        [f"--{name}", field.name],
        default=None,
        metavar=field.metadata["metavar"],
        help=field.metadata["help"],
        hidden=hidden,
    )


def named_option(args: Sequence[str], name: str) -> str | None:
    """The value of an option among arguments, the last one where it is given twice."""
    found = None
    for number, text in enumerate(args):
        if text == name:
            found = args[number + 1] if number + 1 < len(args) else None
        elif text.startswith(f"{name}="):
            found = text.partition("=")[2]
    return found


def named_family(args: Sequence[str]) -> str | None:
    """The family that arguments name: by `--family`, or else in the file of `-c`."""
    file = named_option(args, "--config") or named_option(args, "-c")
    return named_option(args, "--family") or (None if file is None else _family_of_file(file))


def _family_of_file(path: str) -> str | None:
    from edge_ad.validation import read_yaml

    try:
        found = read_yaml(Path(path)).get("family")
    except EdgeAdError:
        return None  # reading it once more says why
    return found if isinstance(found, str) else None
