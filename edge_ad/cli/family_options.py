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

FAMILY_KEY = "edge-ad family"  # of the name in click's context


class FamilyCommand(click.Command):
    """A command with the options of a family beside its own.

    Args:
        kind: family → the dataclass whose fields are its options.
    """

    def __init__(self, *args: Any, kind: Callable[[ModelFamily], type[Any]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kind = kind

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[FAMILY_KEY] = named_family(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, last = super().get_params(ctx)  # --help stays the last
        taken = {parameter.name for parameter in (*own, last)}
        added = self._of_families(ctx.meta.get(FAMILY_KEY), taken)
        return [*own, *added, last]

    def _of_families(self, chosen: str | None, taken: set[Any]) -> Iterator[click.Parameter]:
        from edge_ad.models import DEFAULT_FAMILY, FAMILIES, model_family

        first = chosen if chosen in FAMILIES else DEFAULT_FAMILY
        for name in sorted(FAMILIES, key=lambda family: family != first):
            for field in fields(self._kind(model_family(name))):
                if "help" in field.metadata and field.name not in taken:
                    taken.add(field.name)
                    yield _option(field, hidden=name != first)


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


def named_family(args: Sequence[str]) -> str | None:
    """The family that arguments name: by `--family`, or else in the file of `-c`."""
    found, file = None, None
    for number, text in enumerate(args):
        following = args[number + 1] if number + 1 < len(args) else None
        if text == "--family":
            found = following
        elif text.startswith("--family="):
            found = text.removeprefix("--family=")
        elif text in ("-c", "--config"):
            file = following
        elif text.startswith("--config="):
            file = text.removeprefix("--config=")
    return found or (None if file is None else _family_of_file(file))


def _family_of_file(path: str) -> str | None:
    from edge_ad.validation import read_yaml

    try:
        found = read_yaml(Path(path)).get("family")
    except EdgeAdError:
        return None  # reading it once more says why
    return found if isinstance(found, str) else None
