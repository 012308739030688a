"""Settings of the sinks: every fault with its key, no secret in a message, and sinks that are what was asked for."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import ConfigError
from edge_ad.runtime.sinks.factory import SinkContext, make_sinks, new_run_id
from edge_ad.runtime.sinks.settings import (
    DriftSettings,
    MqttSettings,
    PictureSettings,
    RecordSettings,
    SinkSettings,
    SqliteSettings,
    TlsSettings,
    WebhookSettings,
    is_web_address,
)
from edge_ad.runtime.station.file import run_options
from edge_ad.validation import build, parse_yaml

EVERYTHING = """
records: {rotate_mb: 50, rotate_hours: 24, keep: 30, quota_mb: 5000, fsync: 2}
pictures: {save: [masks, overlays], which: sample, sample_rate: 0.02, seed: 1, quota_mb: 2000, max_age_days: 30}
sqlite: {path: db/verdicts.sqlite, keep_days: 90, fsync: never}
mqtt:
  host: broker.plant
  prefix: plant/line 4
  tls: {}
  client_id: station-4
  protocol: 3.1.1
  reconnect_s: [1, 60]
  spool: {budget_mb: 100, fsync: every}
webhook: {url: "https://mes.plant/verdicts", which: rejects, headers_env: {X-Key: MES_KEY}, backoff_s: [1, 120]}
drift: {reference: 500, block: 100, frames_per_false_alarm: 1e5, every: 2}
"""


def _context(folder: Path | None, **more: Any) -> SinkContext:
    return SinkContext(folder, **{"has_threshold": True, "sources": ["camera:0"], "say": lambda _: None, **more})


def test_everything_can_be_set(tmp_path: Path) -> None:
    made = build(SinkSettings, parse_yaml(EVERYTHING, "f"), "f")
    assert made.mqtt is not None and made.webhook is not None and made.drift is not None
    assert (made.mqtt.port_used, made.mqtt.spool.fsync, made.records.fsync) == (8883, 0.0, 2.0)
    sinks = list(make_sinks(made, _context(tmp_path / "out", environment={"MES_KEY": "k"})))
    names = [type(sink).__name__ for sink in sinks]
    assert names == [
        "JsonLines", "PictureFiles", "PictureFiles", "SqliteRecords", "MqttRecords", "WebhookRecords", "DriftAlarm",
    ]  # fmt: skip
    assert not (tmp_path / "out").exists()  # nothing is made before the run begins


def test_the_default_is_a_plain_run() -> None:
    assert build(SinkSettings, {}, "f") == SinkSettings()
    (sink,) = make_sinks(SinkSettings(), _context(None))
    assert type(sink).__name__ == "JsonLines"


def test_masks_need_a_threshold(tmp_path: Path) -> None:
    made = build(SinkSettings, {"pictures": {"save": "masks,overlays"}}, "f")
    assert [type(sink).__name__ for sink in make_sinks(made, _context(tmp_path, has_threshold=False))] == [
        "JsonLines",
        "PictureFiles",
    ]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("records: {fsync: sometimes}", ["records.fsync: wanted never, every, or seconds from 0.01 on, got"]),
        ("records: {fsync: true}", ["records.fsync: wanted never"]),
        ("records: {rotate_mb: 0, keep: -1}", ["records.rotate_mb: wanted a number above", "records.keep: wanted a"]),
        ("pictures: {save: masks, which: some}", ["pictures.which: wanted 'all', 'rejects' or 'sample', got 'some'"]),
        ("pictures: {save: [mask]}", ["pictures.save: wanted a list of masks, overlays"]),
        ("pictures: {sample_rate: 1.5}", ["pictures.sample_rate: wanted a number of at most 1"]),
        ("mqtt: {}", ["mqtt.host: missing"]),
        ("mqtt: {host: h, port: 70000}", ["mqtt.port: wanted a number of at most 65535"]),
        ("mqtt: {host: h, prefix: a/+/b}", ["mqtt.prefix: wanted a topic without"]),
        ("mqtt: {host: h, password: secret}", ["mqtt.password: unknown key"]),
        ("mqtt: {host: h, password_env: PW}", ["password_env: wanted a username_env with it"]),
        ("mqtt: {host: h, tls: {key_file: k}}", ["key_file: wanted a certificate_file with it"]),
        ("mqtt: {host: h, reconnect_s: [9, 1]}", ["reconnect_s: wanted the shortest wait first"]),
        ("mqtt: {host: h, spool: {budget_mb: 0}}", ["mqtt.spool.budget_mb: wanted a number of at least 1"]),
        ("webhook: {}", ["url: wanted either url or url_env"]),
        ("webhook: {url: 'http://a/', url_env: B}", ["url: wanted either url or url_env"]),
        ("webhook: {url: 'http://a/', headers_env: {'a b': B}}", ["headers_env: wanted names of headers"]),
        ("drift: {reference: 5, block: 5}", ["drift.reference: wanted a number", "drift.block: wanted a number"]),
        ("kafka: {}", ["kafka: unknown key"]),
    ],
)  # fmt: skip
def test_every_fault_is_named(text: str, faults: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        build(SinkSettings, parse_yaml(text, "f"), "f")
    assert len(refused.value.faults) == len(faults)
    for found, wanted in zip(refused.value.faults, faults, strict=True):
        assert wanted in found


@pytest.mark.parametrize(
    "data",
    [
        {"webhook": {"url": "ftp://user:sesame@host/"}},
        {"webhook": {"url": "http:// host/sesame"}},
        {"webhook": {"url": "https://host:99999/?k=sesame"}},
        {"webhook": {"url": ["sesame"]}},
        {"webhook": {"url": "http://sesame/", "url_env": "X"}},
        {"webhook": {"url": "http://sesame/", "backoff_s": [2, 1]}},
        {"webhook": {"url": "http://host/", "token_env": "Bearer sesame"}},
        {"webhook": {"url": "http://host/", "headers_env": {"X-Key": "se same"}}},
        {"mqtt": {"host": "h", "username_env": "u", "password_env": "sesame!"}},
    ],
)
def test_no_message_repeats_a_secret(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        build(SinkSettings, data, "f")
    assert "sesame" not in str(refused.value) and "se same" not in str(refused.value)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.data())
def test_fuzzed_settings_give_settings_or_one_error(data: st.DataObject) -> None:
    whole = parse_yaml(EVERYTHING, "f")
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=3)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        section = data.draw(st.sampled_from(sorted(whole)))
        if isinstance(whole[section], dict) and whole[section] and data.draw(st.booleans()):
            whole[section] = {**whole[section], data.draw(st.sampled_from(sorted(whole[section]))): data.draw(leaves)}
        else:
            whole[section] = data.draw(st.one_of(leaves, st.just({"host": "x"})))
    try:
        made: object = build(SinkSettings, whole, "f")
    except ConfigError as exc:
        made = exc
    assert isinstance(made, SinkSettings) or (isinstance(made, ConfigError) and made.faults and "\n" not in str(made))


def test_sinks_that_keep_files_need_a_folder() -> None:
    made = build(SinkSettings, parse_yaml(EVERYTHING, "f"), "f")
    with pytest.raises(ConfigError) as refused:
        list(make_sinks(made, _context(None)))
    keys = [fault.split(":")[0] for fault in refused.value.faults]
    assert keys == ["records", "pictures.save", "sqlite", "mqtt", "webhook"]
    with pytest.raises(ConfigError) as refused:
        run_options({"bundle": "b", "source": "camera:0", "sinks": {"mqtt": {"host": "h"}}}, "run options")
    assert "sinks.mqtt: wanted an --output folder (in the file: output) to keep files in" in refused.value.faults


@pytest.mark.parametrize(
    ("which", "selected"), [("all", ("all", 0.01)), ("rejects", ("rejects", 0.01)), ("0.25", ("sample", 0.25))]
)
def test_flags_take_the_place_of_settings(which: str, selected: tuple[str, float]) -> None:
    given = {
        "bundle": "b",
        "source": "camera:0",
        "output": "out",
        "save": "masks",
        "save-which": which,
        "rotate_mb": "5",
    }
    made = run_options({key.replace("-", "_"): value for key, value in given.items()}, "run options").sinks
    assert (made.pictures.which, made.pictures.sample_rate) == selected
    assert (made.pictures.save, made.records.rotate_mb) == (("masks",), 5)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (
            {"save": "masks", "save_which": "most", "output": "o"},
            "save_which: wanted all, rejects, or a share from 0 to 1",
        ),
        ({"save": "masks", "save_which": "1.5", "output": "o"}, "save_which: wanted all, rejects, or a share"),
        ({"save_which": "rejects", "output": "o"}, "save_which: chooses among pictures, and none are saved"),
        ({"rotate_mb": "5"}, "rotate_mb: wanted an --output folder"),
    ],
)
def test_flags_that_make_no_sense_are_faults(given: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        run_options({"bundle": "b", "source": "camera:0", **given}, "run options")


def test_run_ids_differ() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("address", "good"),
    [("http://a", True), ("https://a:1/b?c", True), ("HTTP://a/", True), ("file:///a", False), ("http:///a", False),
     ("http://a b/", False), ("http://a\n/", False), ("", False), (None, False), ("http://[::1]:8/", True),
     ("http://[", False)],
)  # fmt: skip
def test_only_web_addresses_are_taken(address: object, good: bool) -> None:
    assert is_web_address(address) is good


def test_the_documentation_names_every_setting() -> None:
    text = (Path(__file__).parents[3] / "docs" / "sinks.md").read_text()
    for section in fields(SinkSettings):
        assert f"\n## {section.name}\n" in text
    kinds = (RecordSettings, PictureSettings, SqliteSettings, MqttSettings, TlsSettings, WebhookSettings, DriftSettings)
    for kind in kinds:
        missing = [field.name for field in fields(kind) if f"`{field.name}`" not in text]
        assert missing == [], kind
