"""What a kind of source is: how it is written, what opens it, and what may happen to it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from edge_ad.image.frame import FrameSource

Nature = Literal["device", "files", "folder", "simulated"]


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    Attributes:
        form: how a user writes it, for error texts.
        accepts: whether a URI is of this kind.
        opener: `module:function` that makes the source from the URI.
        nature: a `device` can be lost and come back; `files` and a `folder` can begin again, a folder can be watched.
    """

    form: str
    accepts: Callable[[str], bool]
    opener: str
    nature: Nature

    def load_opener(self) -> Callable[[str], FrameSource]:
        module, _, function = self.opener.partition(":")
        opener: object = importlib.import_module(module)
        for attribute in function.split("."):
            opener = getattr(opener, attribute)
        return cast("Callable[[str], FrameSource]", opener)
