"""YAML in, frozen dataclasses out; every fault is reported at once, with its key path. YAML is read only here."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar, cast

from edge_ad.errors import ConfigError, EdgeAdError

T = TypeVar("T")

_BRIEF = Repr()  # a few YAML aliases can stand for a value whose full repr fills the memory
_BRIEF.maxlevel = 3
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 60

_WANTED = {
    "path_type": "a path",
    "string_type": "text",
    "string_too_short": "text of {min_length} or more characters",
    "literal_error": "{expected}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "too_short": "{min_length} or more entries",
    "too_long": "at most {max_length} entries",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
}
"""What a kind of pydantic's errors says was wanted."""

_UNSHOWN = "unshown"


def strict(kind: type[T]) -> type[T]:
    """Class decorator: `build` refuses unknown keys, infinities and NaN for this dataclass."""
    kind.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[attr-defined]
    return kind


def unshown(wanted: str) -> Exception:
    """What a validator raises when the faulty value may hold a secret, so that no message repeats it."""
    from pydantic_core import PydanticCustomError

    return PydanticCustomError(_UNSHOWN, "{wanted}", {"wanted": wanted})


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

    class UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """SafeLoader (libyaml's where it is there) that refuses a key given twice instead of keeping the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue  # resolved by the parent
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, Hashable):
                    continue  # refused by the parent, with a message of its own
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} is given twice", key_node.start_mark
                    )
                seen.add(key)
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

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


@dataclass(frozen=True)
class Fault:
    """One fault of a mapping: the top-level key it lies under, and a line that starts with its key path."""

    key: str
    line: str


def build(kind: type[T], data: dict[str, Any], where: str) -> T:
    """Make a (nested) frozen dataclass from plain data; unknown keys are faults, and so is a bool for a number.

    Raises: ConfigError with one fault for each wrong or unknown key.
    """
    from pydantic import ValidationError

    try:
        return cast(T, _validator(cast(Hashable, kind)).validate_python(data))
    except ValidationError as exc:
        raise ConfigError(where, [fault.line for fault in _faults(exc)]) from exc


def build_rest(kind: type[T], data: dict[str, Any], stand_ins: dict[str, Any]) -> tuple[T, list[Fault]]:
    """Like `build`, but leave out what is faulty and say so, so that the rest can be checked further.

    Args:
        stand_ins: values for the keys without a default, used where `data` has none or a faulty one.
    """
    from pydantic import ValidationError

    validator = _validator(cast(Hashable, kind))
    try:
        return cast(T, validator.validate_python(data)), []
    except ValidationError as exc:
        faults = _faults(exc)
    faulty = {fault.key for fault in faults}
    rest = {key: value for key, value in data.items() if key not in faulty}
    return cast(T, validator.validate_python(stand_ins | rest)), faults


def by_name(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values under the names of fields, which users spell with `_` or `-`; and a fault for each given in both ways."""
    spellings: dict[str, list[str]] = {}
    for key in map(str, values):
        spellings.setdefault(key.replace("-", "_"), []).append(key)
    faults = [f"{key}: given twice, as {' and '.join(found)}" for key, found in spellings.items() if len(found) > 1]
    return {str(key).replace("-", "_"): value for key, value in values.items()}, faults


def plain(value: Any) -> Any:
    """The inverse of `build`: a dataclass as plain lists and mappings."""
    return _adapter(cast(Hashable, type(value))).dump_python(value, mode="json")


@lru_cache(maxsize=32)
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


@lru_cache(maxsize=32)
def _validator(kind: Any) -> Any:
    from pydantic_core import SchemaValidator

    return SchemaValidator(_without_bools(_adapter(kind).core_schema))


def _without_bools(node: Any) -> Any:
    """A pydantic schema whose numbers refuse bools: pydantic has no option for it short of refusing texts as well."""
    from pydantic_core.core_schema import no_info_before_validator_function

    if isinstance(node, (list, tuple)):
        return type(node)(_without_bools(part) for part in node)
    if not isinstance(node, dict):
        return node
    node = {key: part if key in ("default", "metadata") else _without_bools(part) for key, part in node.items()}
    return no_info_before_validator_function(_no_bool, node) if node.get("type") in ("int", "float") else node


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("wanted a number")
    return value


def _faults(exc: Any) -> list[Fault]:
    return [Fault(str(next(iter(error["loc"]), "")), _line(error)) for error in exc.errors(include_url=False)]


def _line(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "value"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{path}: unknown key"
    if error["type"] in ("missing", "missing_argument"):
        return f"{path}: missing"
    if error["type"] == _UNSHOWN:
        return f"{path}: {error['msg']}"
    shown = _BRIEF.repr(error["input"])
    return f"{path}: {_wanted(error)}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _wanted(error: Any) -> str:
    if error["type"] in _WANTED:
        return "wanted " + _WANTED[error["type"]].format_map(error.get("ctx", {}))
    return str(error["msg"]).removeprefix("Value error, ").replace("Input should be ", "wanted ").removeprefix("Input ")


def _reason(exc: BaseException) -> str:
    if isinstance(exc, EdgeAdError):
        return str(exc)
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    return " ".join(str(exc).split())
