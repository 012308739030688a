"""YAML in, frozen dataclasses out; every fault is reported at once, with its key path. YAML is read only here."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar, cast

from edge_ad.errors import ConfigError, EdgeAdError

T = TypeVar("T")

_BRIEF = Repr()  # a few YAML aliases can stand for a value whose full repr fills the memory
_BRIEF.maxlevel = 3
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 60


def strict(kind: type[T]) -> type[T]:
    """Class decorator: `build` refuses unknown keys, infinities and NaN for this dataclass."""
    kind.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[attr-defined]
    return kind


def read_yaml(path: Path, *, max_bytes: int = 4 << 20) -> dict[str, Any]:
    """Read one mapping from a YAML file, plain types only.

    Raises: ConfigError when the file is missing, too large, no YAML or no mapping, or repeats a key.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise ConfigError(str(path), [f"larger than {max_bytes} bytes, which no such file is"])
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), [f"cannot be read: {_reason(exc)}"]) from exc
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Parse one YAML mapping. Raises: ConfigError as `read_yaml` does."""
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        """SafeLoader that refuses a key given twice instead of keeping the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, Hashable):
                    continue  # refused by the parent, with a message of its own
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} is given twice", key_node.start_mark
                    )
                seen.add(key)
            return super().construct_mapping(node, deep)

    try:
        data = yaml.load(text, UniqueKeyLoader)
    except Exception as exc:  # PyYAML lets KeyError, IndexError, TypeError … out of ill-typed tags such as !!int ''
        raise ConfigError(where, [f"no valid YAML: {_reason(exc)}"]) from exc
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(where, [f"wanted a mapping of option: value, got a {type(data).__name__}"])
    return data


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain YAML text in the order of the mapping."""
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    return text


def build(kind: type[T], data: dict[str, Any], where: str) -> T:
    """Make a (nested) frozen dataclass from plain data; unknown keys are faults.

    Raises: ConfigError with one fault for each wrong or unknown key.
    """
    from pydantic import ValidationError

    try:
        return cast(T, _adapter(cast(Hashable, kind)).validate_python(data))
    except ValidationError as exc:
        raise ConfigError(where, [_fault(error) for error in exc.errors(include_url=False)]) from exc


def plain(value: Any) -> Any:
    """The inverse of `build`: a dataclass as plain lists and mappings."""
    return _adapter(cast(Hashable, type(value))).dump_python(value, mode="json")


@lru_cache(maxsize=32)
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _fault(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "value"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{path}: unknown key"
    if error["type"] in ("missing", "missing_argument"):
        return f"{path}: missing"
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    shown = _BRIEF.repr(error["input"])
    return f"{path}: {message}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _reason(exc: BaseException) -> str:
    if isinstance(exc, EdgeAdError):
        return str(exc)
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    return " ".join(str(exc).split())
