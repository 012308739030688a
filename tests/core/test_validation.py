"""Plain data becomes specs, or one error names every fault; YAML is only ever data."""

from __future__ import annotations

import os
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, TensorSpec, Thresholds
from edge_ad.errors import ConfigError
from edge_ad.validation import build, build_rest, dump_yaml, parse_yaml, plain, read_yaml, strict


@strict
@dataclass(frozen=True)
class Outer:
    preprocess: PreprocessSpec
    thresholds: Thresholds = field(default_factory=Thresholds)
    tools: dict[str, str] = field(default_factory=dict)


@pytest.mark.parametrize(
    "value",
    [
        PreprocessSpec(288, 320, "letterbox", pad_rgb=(1, 2, 3)),
        PreprocessSpec(64, 64, resize=72),
        PostprocessSpec(2.5, 3, "patch_max"),
        TensorSpec("image", (None, 4, 4, 3), "uint8"),
        Thresholds(0.1),
    ],
)
def test_a_spec_survives_yaml(value: Any) -> None:
    assert build(type(value), parse_yaml(dump_yaml(plain(value)), "text"), "text") == value


def test_all_faults_at_once_with_their_key_paths() -> None:
    data = {
        "preprocess": {"width": "wide", "resize_mode": "zoom", "mean": [0.5, 0.5], "crop": 3},
        "thresholds": {"image": float("nan")},
        "tools": {"edge-ad": 1},
        "thresholdz": {},
    }
    with pytest.raises(ConfigError) as caught:
        build(Outer, data, "part.yaml")
    keys = {fault.split(":")[0] for fault in caught.value.faults}
    assert keys >= {
        "preprocess.height",
        "preprocess.width",
        "preprocess.resize_mode",
        "preprocess.crop",
        "thresholds.image",
        "tools.edge-ad",
        "thresholdz",
    }
    assert any(key.startswith("preprocess.mean") for key in keys)
    assert "preprocess.height: missing" in caught.value.faults
    assert "preprocess.crop: unknown key" in caught.value.faults
    assert str(caught.value).startswith("part.yaml: ")
    assert caught.value.exit_code == 3


def test_the_faulty_value_is_shown_briefly() -> None:
    with pytest.raises(ConfigError, match="got 'wide'"):
        build(PreprocessSpec, {"height": 1, "width": "wide"}, "x")
    with pytest.raises(ConfigError) as caught:
        build(PreprocessSpec, {"height": 1, "width": "w" * 100_000}, "x")
    assert len(str(caught.value)) < 300


@strict
@dataclass(frozen=True)
class Values:
    path: Path = Path()
    text: Annotated[str, Field(min_length=1)] = "x"
    kind: Literal["a", "b"] = "a"
    count: Annotated[int, Field(ge=1, le=9)] = 1
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    switch: bool = False
    pair: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    table: dict[str, int] = field(default_factory=dict)
    maybe: float | None = None
    inner: Thresholds = field(default_factory=Thresholds)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("path", 5, "a path"),
        ("text", "", "text of 1 or more characters"),
        ("kind", "c", "'a' or 'b'"),
        ("count", "x", "a whole number"),
        ("count", [1], "a whole number"),
        ("count", 1.5, "a whole number"),
        ("count", 0, "a number of at least 1"),
        ("count", 10, "a number of at most 9"),
        ("ratio", "x", "a number"),
        ("ratio", None, "a number"),
        ("ratio", 0, "a number above 0"),
        ("ratio", 1, "a number below 1"),
        ("ratio", float("nan"), "a finite number"),
        ("switch", "perhaps", "true or false"),
        ("switch", [], "true or false"),
        ("pair", 3, "a list"),
        ("pair", [1, 2, 3], "at most 2 entries"),
        ("names", "x", "a list"),
        ("table", 3, "a mapping"),
        ("inner", 3, "a mapping"),
    ],
)
def test_a_fault_says_what_was_wanted_and_what_was_got(key: str, value: Any, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Values, {key: value}, "x")
    assert caught.value.faults == (f"{key}: wanted {wanted}, got {value!r}",)


@pytest.mark.parametrize("value", [5, 1e-3, 0x10])
def test_a_number_for_text_is_told_of_quotes(value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Values, {"text": value}, "x")
    hint = "text that looks like a number stands in quotes"
    assert caught.value.faults == (f"text: wanted text, got {value!r}; {hint}",)


def test_a_message_repeats_some_of_very_many_faults() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Values, {f"{'k' * 500}{number}": 0 for number in range(5000)}, "x")
    assert len(caught.value.faults) == 5000
    assert len(str(caught.value)) < 5000 and str(caught.value).endswith("; and 4970 more")


def test_no_wording_of_the_checker_is_left_where_it_is_not_translated() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Values, {"names": {"x"}, "table": {1: 2}}, "x")
    assert not any("Input" in fault or "<class" in fault for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"count": True}, "count"),
        ({"ratio": False}, "ratio"),
        ({"maybe": True}, "maybe"),
        ({"pair": [1, True]}, "pair.1"),
        ({"table": {"a": False}}, "table.a"),
        ({"inner": {"image": True}}, "inner.image"),
    ],
)
def test_a_bool_is_no_number(data: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Values, data, "x")
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}: wanted a number, got ")


def test_numbers_and_bools_are_taken_where_they_belong() -> None:
    """Control for the bools; the command line gives numbers as text."""
    built = build(Values, {"count": "3", "maybe": 1, "switch": True, "inner": {"image": "0.5"}}, "x")
    assert built == Values(count=3, maybe=1.0, switch=True, inner=Thresholds(0.5))


def test_what_is_faulty_is_left_out_and_the_rest_is_built() -> None:
    data = {"preprocess": 3, "thresholds": {"image": 0.5}, "tools": {"a": 1}, "thresholdz": {}}
    stand_in = PreprocessSpec(1, 1)
    rest, faults = build_rest(Outer, data, {"preprocess": stand_in})
    assert rest == Outer(stand_in, Thresholds(0.5))
    assert sorted((fault.key, fault.line) for fault in faults) == [
        ("preprocess", "preprocess: wanted a mapping, got 3"),
        ("thresholdz", "thresholdz: unknown key"),
        ("tools", "tools.a: wanted text, got 1; text that looks like a number stands in quotes"),
    ]
    good = {"preprocess": {"height": 2, "width": 3}}
    assert build_rest(Outer, good, {"preprocess": stand_in}) == (Outer(PreprocessSpec(2, 3)), [])


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [ran]",
        "a: !!python/object/apply:os.mkdir [ran]",
        "a: !!python/object/new:os.mkdir [ran]",
        "a: !!python/name:os.mkdir",
        "a: !!python/tuple [1, 2]",
        "!!python/object/apply:os.mkdir [ran]: a",
    ],
)
def test_python_tags_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no valid YAML"):
        parse_yaml(text, "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["- a\n- b", "just text", "3", "!!set {a}", "a: b\n---\nc: d", "a: [", "\tx: 1", "a: b: c", "\x07"]
)
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x: (no valid YAML|wanted a mapping)"):
        parse_yaml(text, "x")


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: 2\na: 3", "a: {b: 1, b: 2}", "a: [{b: 1, b: 1}]", "1: a\n1: b", "1: a\n0x1: b", "a: 1\n'a': 2"],
)
def test_a_key_given_twice_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        parse_yaml(text, "x")


def test_a_key_may_come_again_elsewhere() -> None:
    """Control for the duplicates; a number and its text are two keys."""
    assert parse_yaml("a: {a: 1}\nb: {a: 2}\n1: x\n'1': y", "x") == {"a": {"a": 1}, "b": {"a": 2}, 1: "x", "1": "y"}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!int ''",
        "a: !!float x",
        "a: !!bool maybe",
        "a: !!timestamp x",
        "a: !!binary ä",
        "!!map [1, 2]",
        "!!map x",
        "a: *nowhere",
        "? [1, 2]\n: x",
        "? {a: 1}\n: x",
        "a: " + "[" * 100_000,
        "a: " + "{x: " * 3_000,
    ],
    ids=lambda text: text[:20],
)
def test_ill_formed_values_are_config_errors(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x: no valid YAML"):
        parse_yaml(text, "x")


@settings(max_examples=300, derandomize=True, deadline=None)
@given(text=st.text(alphabet="ab01:-?!&*[]{}<>|'\"#%@` \n\t,.=~", max_size=30))
@example(text="!!int ''")
def test_any_text_is_a_mapping_or_a_config_error(text: str) -> None:
    try:
        message = "" if isinstance(parse_yaml(text, "x"), dict) else "no mapping\n"
    except ConfigError as exc:
        message = str(exc)
    assert "\n" not in message


def _bomb(levels: int) -> str:
    lines = ["x0: &x0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]"]
    lines += [f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize("tail", ["tools: *x7", "tools: {a: *x7}", "preprocess: {height: *x7}", "? *x7\n: x"])
def test_aliases_that_multiply_are_refused(tail: str) -> None:
    """Nine to the eighth texts behind a few lines; never spelled out."""
    tracemalloc.start()
    with pytest.raises(ConfigError) as caught:
        build(Outer, parse_yaml(f"{_bomb(8)}\n{tail}", "x"), "x")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 100e6
    assert len(str(caught.value)) < 3000


def test_a_value_that_holds_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="line 1: alias 'a' has no anchor that ends before it"):
        parse_yaml("tools: &a {self: *a}\npreprocess: {height: 1, width: 1}", "x")


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    with pytest.raises(ConfigError, match=r"options\.yaml: cannot be read: no such file"):
        read_yaml(path)
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)
    path.write_text("a: 1 # " + "x" * 100)
    with pytest.raises(ConfigError, match="larger than 50 bytes"):
        read_yaml(path, max_bytes=50)
    assert read_yaml(path) == {"a": 1}
    path.write_text("a: 1 # " + "x" * (1 << 20))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        read_yaml(path)


def test_a_pipe_can_be_read_and_one_without_an_end_is_not_awaited(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a: off")
    os.close(writing)
    assert read_yaml(Path(f"/dev/fd/{reading}")) == {"a": "off"}
    os.close(reading)
    with pytest.raises(ConfigError, match="larger than"):
        read_yaml(Path("/dev/zero"))
