"""The YAML that edge-ad reads and writes: plain values by the core schema of YAML 1.2, within bounds.

PyYAML parses; what a word means is decided here. `on`, `off`, `yes`, `1:30` and `2024-01-01` are text, `010` is ten and
`1e-3` a thousandth, as in YAML 1.2; PyYAML's own loaders go by YAML 1.1. Merge keys (`<<`) are kept: many files have
them. Values are built from the stream of events: no tag makes an object, and nothing recurs as deep as a file may nest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

DEEPEST = 32
MOST_VALUES = 20_000
MOST_CHARACTERS = 1 << 19
"""Of values and keys, as if everything that an alias stands for were written out."""
LARGEST_INT = 2**64
LONGEST_NUMBER = 1000

_TAG = "tag:yaml.org,2002:"
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BASES = {"0o": 8, "0x": 16}
_ODD_BREAKS = re.compile("[\r\x85\u2028\u2029]")


class _MergeKey:
    """Stands for the key `<<`."""


class _Open:
    """A list or mapping whose end has not been read.

    Attributes:
        value: what has been read of it.
        anchor: name that aliases know it by, or None.
        size: values and characters in it, those of its aliases included.
        merged: mappings under `<<`.
    """

    def __init__(self, value: Any, anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.size = (1, 0)
        self.merged: list[dict[Any, Any]] = []
        self._key: Any = None
        self._has_key = False

    @property
    def wants_key(self) -> bool:
        return isinstance(self.value, dict) and not self._has_key

    def add(self, value: Any, line: int) -> None:
        if isinstance(self.value, list):
            self.value.append(value)
        elif self._has_key:
            self._has_key = False
            if self._key is _MergeKey:
                self.merged += _mappings(value, line)
            else:
                self.value[self._key] = value
        else:
            if isinstance(value, (list, dict)):
                raise ValueError(f"line {line}: a list or mapping as a key")
            if value is not _MergeKey and value in self.value:
                raise ValueError(f"line {line}: key {_brief(value)} is given twice")
            self._key, self._has_key = value, True

    def finished(self) -> Any:
        if self.merged:  # in place: an alias may stand for it elsewhere
            own = dict(self.value)
            self.value.clear()
            for mapping in reversed(self.merged):
                self.value.update(mapping)
            self.value.update(own)
        return self.value


def load(text: str) -> Any:
    """The one document in `text` as dictionaries, lists, texts, numbers, bools and None; None where there is none.

    Values that an alias stands for are the same object as what its anchor names.

    Raises: ValueError with what is wrong, for text that is no YAML, has tags of other types, several documents, keys
        given twice, or lies outside of the bounds; yaml.YAMLError.
    """
    import yaml

    events: Iterator[Any] = yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    root: list[Any] = []
    document = _Open(root, None)
    stack = [document]
    anchors: dict[str, tuple[Any, tuple[int, int]]] = {}
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise ValueError(f"line {line}: alias {_brief(event.anchor)} has no anchor that ends before it")
            value, size = anchors[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            value, size = _scalar(event, line, is_key=stack[-1].wants_key), (1, len(event.value))
            if event.anchor is not None:
                anchors[event.anchor] = value, size
        elif isinstance(event, yaml.CollectionStartEvent):
            kind = "seq" if isinstance(event, yaml.SequenceStartEvent) else "map"
            if event.tag not in (None, "!", _TAG + kind):
                raise ValueError(f"line {line}: tag {_brief(event.tag)} of a {kind}")
            if len(stack) > DEEPEST:
                raise ValueError(f"line {line}: nested more than {DEEPEST} deep")
            stack.append(_Open([] if kind == "seq" else {}, event.anchor))
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            done = stack.pop()
            value, size = done.finished(), done.size
            if done.anchor is not None:
                anchors[done.anchor] = value, size
        elif isinstance(event, yaml.DocumentStartEvent) and root:
            raise ValueError(f"line {line}: a second document")
        else:
            continue
        _enlarge(stack[-1], size, line)
        stack[-1].add(value, line)
    return root[0] if root else None


def dump(data: dict[str, Any]) -> str:
    """YAML in the order of the mapping; text that any version of YAML would take for something else is quoted."""
    import yaml

    text: str = yaml.dump(data, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120)
    return text


@lru_cache(maxsize=1)
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """What YAML 1.1 takes for text and YAML 1.2 for a number, such as `1e3` and `08`, is quoted too."""

    for kind, form in (("int", _INT), ("float", _FLOAT)):
        whole = re.compile(f"(?:{form.pattern})$")
        Dumper.add_implicit_resolver(_TAG + kind, whole, list("-+.0123456789"))
    Dumper.add_representer(str, _text_node)
    return Dumper


def _text_node(dumper: Any, text: str) -> Any:
    """Line breaks that PyYAML would write as they are and read as others are escaped."""
    style = '"' if _ODD_BREAKS.search(text) else None
    return dumper.represent_scalar(_TAG + "str", text, style)


def _enlarge(parent: _Open, size: tuple[int, int], line: int) -> None:
    values, characters = parent.size[0] + size[0], parent.size[1] + size[1]
    parent.size = values, characters
    if values > MOST_VALUES or characters > MOST_CHARACTERS:
        raise ValueError(
            f"line {line}: more than {MOST_VALUES} values or {MOST_CHARACTERS} characters, aliases written out"
        )


def _mappings(value: Any, line: int) -> list[dict[Any, Any]]:
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(one, dict) for one in found):
        raise ValueError(f"line {line}: wanted a mapping, or a list of mappings, for the key <<")
    return found


def _scalar(event: Any, line: int, *, is_key: bool) -> Any:
    text, plain = event.value, event.style is None or event.style == ""
    if event.tag in (None, "!"):
        if not plain or event.tag == "!":
            return text
        if is_key and text == "<<":
            return _MergeKey
        kinds = tuple(_READERS)
    elif event.tag.startswith(_TAG) and event.tag.removeprefix(_TAG) in _READERS:
        kinds = (event.tag.removeprefix(_TAG),)
    else:
        raise ValueError(f"line {line}: tag {_brief(event.tag)}, wanted plain values")
    for kind in kinds:
        try:
            return _READERS[kind](text)
        except _OtherKindError:
            continue
        except ValueError as exc:
            raise ValueError(f"line {line}: {exc}") from exc
    raise ValueError(f"line {line}: {_brief(text)} is no {kinds[0]}")


class _OtherKindError(Exception):
    """The text is no value of this kind."""


def _null(text: str) -> None:
    if text not in _NULLS:
        raise _OtherKindError


def _bool(text: str) -> bool:
    if text not in _BOOLS:
        raise _OtherKindError
    return _BOOLS[text]


def _int(text: str) -> int:
    if not _INT.fullmatch(text):
        raise _OtherKindError
    _check_length(text)
    base = _BASES.get(text[:2], 10)
    value = int(text if base == 10 else text[2:], base)
    if abs(value) > LARGEST_INT:
        raise ValueError(f"{_brief(text)} is no number that is used anywhere; text stands in quotes")
    return value


def _float(text: str) -> float:
    if not _INT.fullmatch(text) and not _FLOAT.fullmatch(text):
        raise _OtherKindError
    _check_length(text)
    if text[:2] in _BASES:
        return float(_int(text))
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _check_length(text: str) -> None:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} characters")


_READERS: dict[str, Callable[[str], Any]] = {"null": _null, "bool": _bool, "int": _int, "float": _float, "str": str}


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
