"""YAML 1.2 words mean what the user wrote; aliases, depth and sizes are bounded; what is dumped is read as it was."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_ad.disk.yaml_dialect import DEEPEST, MOST_CHARACTERS, MOST_VALUES, dump, load


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("off", "off"),
        ("On", "On"),
        ("yes", "yes"),
        ("n", "n"),
        ("010", 10),
        ("08", 8),
        ("-010", -10),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+1.5e+2", 150.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("inf", "inf"),
        ("2024-01-01", "2024-01-01"),
        ("2001-99-99", "2001-99-99"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("~", None),
        ("Null", None),
        ("", None),
        ("=", "="),
        ("'010'", "010"),
        ('"off"', "off"),
        ("! 12", "12"),
        ("!!str 12", "12"),
        ("!!int '010'", 10),
        ("!!float 3", 3.0),
        ("!!float 0x10", 16.0),
        ("!!bool 'true'", True),
        ("|\n  12\n", "12\n"),
    ],
)
def test_what_a_word_means(written: str, means: Any) -> None:
    value = load(f"key: {written}")["key"]
    assert value == means and type(value) is type(means)


def test_nan_and_the_empty_document() -> None:
    assert math.isnan(load("a: .NaN")["a"])
    assert load("") is None and load("# nothing\n") is None and load("---\n...\n") is None


def test_merge_keys_give_way_to_own_keys_and_to_those_before_them() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\nd: {x: {<<: *b}}\n"
    assert load(text)["c"] == {"x": 3, "y": 1, "z": 2}
    assert load(text)["d"] == {"x": {"y": 2, "z": 2}}
    deep = "x: {y: {b: &b {<<: {k: 1}, k: 2}}}\nc: {<<: *b}"
    assert load(deep) == {"x": {"y": {"b": {"k": 2}}}, "c": {"k": 2}}
    assert load("'<<': 1\na: <<") == {"<<": 1, "a": "<<"}  # control: text, and not a key
    for wrong in ("a: {<<: 3}", "a: {<<: [{b: 1}, 3]}"):
        with pytest.raises(ValueError, match="for the key <<"):
            load(wrong)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: !!int '1:30'", "no int"),
        ("a: !!bool off", "no bool"),
        ("a: !!timestamp 2001-01-01", "timestamp"),
        ("a: !!binary aGk=", "binary"),
        ("!!set {a}", "set"),
        ("!!omap [a: 1]", "omap"),
        ("!!map [1]", "tag"),
        ("a: !local x", "!local"),
        ("a: *nowhere", "no anchor"),
        ("a: &a [*a]", "no anchor"),
        ("? [1]\n: x", "as a key"),
        ("a: 1\nb: {c: 1, c: 2}", "line 2: key 'c' is given twice"),
        ("1: a\n01: b", "key 1 is given twice"),
        ("a: b\n---\nc: d", "second document"),
        (f"a: {2**70}", "quotes"),
        ("a: 0x" + "f" * 999_999, "characters"),
        ("a: " + "9" * 999_999, "characters"),
        ("a: 1." + "9" * 999_999, "characters"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "deep"),
        ("\n".join(f"{' ' * level}a:" for level in range(DEEPEST + 1)), "deep"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        load(text)
    assert len(str(caught.value)) < 200


def test_the_deepest_and_the_largest_that_are_read() -> None:
    """Control for the bounds."""
    assert load("[" * DEEPEST + "]" * DEEPEST)
    assert len(load("[" + "1," * (MOST_VALUES - 2) + "]")) == MOST_VALUES - 2
    assert load("a: " + "x" * (MOST_CHARACTERS - 1))
    assert load(f"a: {2**64}") == {"a": 2**64}


BOMBS = {
    "lists": "\n".join(["x0: &x0 [lol,lol]", *(f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 40))]),
    "merges": "\n".join(
        ["x0: &x0 {a: 1}", *(f"x{i}: &x{i} {{<<: [{','.join([f'*x{i - 1}'] * 9)}]}}" for i in range(1, 40))]
    ),
    "long text": f"x: &x {'y' * 100_000}\nz: [{'*x,' * 100_000}]",
    "keys": f"? &x {'y' * 100_000}\n: 1\nz: [{','.join(['{*x : 1}'] * 5_000)}]",
    "empty lists": f"z: [{'[],' * 300_000}]",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_takes_the_memory(text: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match="aliases written out"):
        load(text)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 50e6


def test_nesting_without_an_end_is_refused_by_any_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["[" * 500_000, "{a: " * 200_000, "- " * 300_000]
    for text in texts:
        with pytest.raises((ValueError, yaml.YAMLError)):
            load(text)
    monkeypatch.delattr(yaml, "CSafeLoader")
    with pytest.raises(ValueError, match="deep"):
        load(texts[0][:2000])


words = st.sampled_from(
    ["off", "010", "08", "1e3", "1:30", "0o7", "0x1", "1_0", "~", "null", "=", "<<", "2001-01-01", ".inf", "-", "", "y"]
)
texts = words | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False) | texts
data = st.dictionaries(
    texts, st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(data=data)
@example(data={"1e3": "08"})
def test_what_is_dumped_is_read_back_the_same_by_both_versions(data: dict[str, Any]) -> None:
    text = dump(data)
    assert load(text) == data
    assert yaml.safe_load(text) == data


@settings(max_examples=300, derandomize=True, deadline=None)
@given(text=st.text(alphabet="ab01:-?!&*[]{}<>|'\"#%@` \n\t,.=~", max_size=30))
def test_any_text_is_plain_data_or_a_fault(text: str) -> None:
    try:
        value = load(text)
    except (ValueError, yaml.YAMLError):
        return
    assert value is None or isinstance(value, (dict, list, str, int, float))
