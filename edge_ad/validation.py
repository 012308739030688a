"""YAML in, frozen dataclasses out; every fault is reported at once, with its key path. YAML is read only here."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar, cast

from edge_ad.disk import yaml_dialect
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

MAX_YAML_BYTES = 1 << 20
"""Of any YAML file: a line of two hundred cameras has 100 kB."""


def strict(kind: type[T]) -> type[T]:
    """Class decorator: `build` refuses unknown keys, infinities and NaN for this dataclass."""
    kind.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[attr-defined]
    return kind


def unshown(wanted: str) -> Exception:
    """What a validator raises when the faulty value may hold a secret, so that no message repeats it."""
    from pydantic_core import PydanticCustomError

    return PydanticCustomError(_UNSHOWN, "{wanted}", {"wanted": wanted})


def read_yaml(path: Path, *, max_bytes: int = MAX_YAML_BYTES) -> dict[str, Any]:
    """Read one mapping from a YAML file, plain types only, by the rules of `edge_ad.disk.yaml_dialect`.

    Raises: ConfigError when the file is missing, too large, no YAML or no mapping, or repeats a key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)  # whatever size it claims: it may be a pipe
        if len(data) > max_bytes:
            raise ConfigError(str(path), [f"larger than {max_bytes} bytes, which no such file is"])
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), [f"cannot be read: {_reason(exc)}"]) from exc
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Parse one YAML mapping. Raises: ConfigError as `read_yaml` does."""
    try:
        data = yaml_dialect.load(text)
    except Exception as exc:  # ValueError, yaml.YAMLError, and what PyYAML lets out of ill-formed text
        raise ConfigError(where, [f"no valid YAML: {_reason(exc)}"]) from exc
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(where, [f"wanted a mapping of option: value, got a {type(data).__name__}"])
    return data


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain YAML text in the order of the mapping."""
    return yaml_dialect.dump(data)


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
    path = ".".join(_cut(str(part)) for part in error["loc"]) or "value"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{path}: unknown key"
    if error["type"] in ("missing", "missing_argument"):
        return f"{path}: missing"
    if error["type"] == _UNSHOWN:
        return f"{path}: {error['msg']}"
    return f"{path}: {_wanted(error)}, got {_cut(_BRIEF.repr(error['input']))}{_hint(error)}"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _hint(error: Any) -> str:
    """A word for whoever wrote text that YAML takes for something else, as a camera's name of digits."""
    is_number = isinstance(error["input"], (int, float))
    return "; text that looks like a number stands in quotes" if error["type"] == "string_type" and is_number else ""


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
