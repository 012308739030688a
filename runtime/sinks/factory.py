"""Sinks from settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from secrets import token_hex

from edge_ad.errors import ConfigError
from edge_ad.runtime.sinks import Sink
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sinks.pictures import PICTURES, PictureFiles
from edge_ad.runtime.sinks.retention import Limits
from edge_ad.runtime.sinks.rotation import Rotation
from edge_ad.runtime.sinks.selection import Selection
from edge_ad.runtime.sinks.settings import SinkSettings, SpoolSettings
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.syncing import SyncPolicy

MB = 1_000_000


def new_run_id() -> str:
    """A name that no other run has: when it began, and chance."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{token_hex(4)}"


@dataclass(frozen=True)
class SinkContext:
    """What a run tells its sinks.

    Attributes:
        folder: of the results; None writes records to standard output, and keeps nothing else.
        has_threshold: whether frames get a verdict, and so masks.
        sources: names of the sources.
        say: receives what the user should know, one line each.
        run_id: part of the keys by which receivers know records again.
        environment: where the secrets are.
    """

    folder: Path | None
    has_threshold: bool
    sources: Sequence[str]
    say: Callable[[str], None]
    run_id: str = field(default_factory=new_run_id)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)


def sink_faults(settings: SinkSettings, folder: Path | None) -> list[str]:
    """What no single setting shows to be wrong; one line each."""
    if folder is not None:
        return []
    wanted = {
        "records": settings.records != type(settings.records)(),
        "pictures.save": bool(settings.pictures.save),
        "sqlite": settings.sqlite is not None,
        "mqtt": settings.mqtt is not None,
        "webhook": settings.webhook is not None,
    }
    fault = "wanted an --output folder (in the file: output) to keep files in"
    return [f"{name}: {fault}" for name, is_set in wanted.items() if is_set]


def make_sinks(settings: SinkSettings, context: SinkContext) -> Iterator[Sink]:
    """The sinks that the settings describe; the one of the records is the first.

    Nothing is written, and no connection made, before they are entered.

    Raises: ConfigError; MissingExtraError for a sink whose package is not installed.
    """
    faults = sink_faults(settings, context.folder)
    if faults:
        raise ConfigError("sinks", faults)
    folder, say = context.folder, context.say
    records = settings.records
    rotation = Rotation(
        max_bytes=_bytes(records.rotate_mb),
        max_age_s=None if records.rotate_hours is None else records.rotate_hours * 3600,
        keep=records.keep,
        quota_bytes=_bytes(records.quota_mb),
    )
    yield JsonLines(folder, rotation, SyncPolicy(records.fsync), say)
    if folder is not None:
        yield from _pictures(settings, folder, context)
    if settings.sqlite is not None and folder is not None:
        from edge_ad.runtime.sinks.sqlite import SqliteRecords

        path, keep_days = folder / settings.sqlite.path, settings.sqlite.keep_days
        sync = SyncPolicy(settings.sqlite.fsync)
        yield SqliteRecords(path, context.run_id, keep_days=keep_days, sync=sync, say=say)
    if settings.mqtt is not None and folder is not None:
        from edge_ad.runtime.sinks.mqtt import MqttRecords

        yield MqttRecords(
            settings.mqtt,
            _spool(settings.mqtt.spool, folder, "mqtt", context),
            context.run_id,
            context.sources,
            say=say,
            environment=context.environment,
        )
    if settings.webhook is not None and folder is not None:
        from edge_ad.runtime.sinks.webhook import WebhookRecords

        spool = _spool(settings.webhook.spool, folder, "webhook", context)
        yield WebhookRecords(settings.webhook, spool, context.run_id, say=say, environment=context.environment)
    if settings.drift is not None:
        from edge_ad.runtime.sinks.drift import DriftAlarm, DriftRule

        drift = settings.drift
        rule = DriftRule(drift.reference, drift.block, drift.frames_per_false_alarm, drift.every)
        yield DriftAlarm(rule, None if folder is None else folder / drift.file, say)


def _pictures(settings: SinkSettings, folder: Path, context: SinkContext) -> Iterator[Sink]:
    pictures = settings.pictures
    selection = Selection(pictures.which, pictures.sample_rate, pictures.seed)
    days = pictures.max_age_days
    limits = Limits(_bytes(pictures.quota_mb), None if days is None else days * 86400)
    for kind in pictures.save:
        if kind == "masks" and not context.has_threshold:
            continue
        suffix, draw = PICTURES[kind]
        several = len(context.sources) > 1
        yield PictureFiles(folder / kind, suffix, draw, selection, limits, several=several, say=context.say)


def _spool(settings: SpoolSettings, folder: Path, name: str, context: SinkContext) -> Spool:
    budget_bytes = round(settings.budget_mb * MB)
    path = folder / settings.folder / f"{name}.sqlite"
    return Spool(
        path, budget_bytes=budget_bytes, sync=SyncPolicy(settings.fsync), say=context.say, name=f"{name} spool"
    )


def _bytes(megabytes: float | None) -> int | None:
    return None if megabytes is None else round(megabytes * MB)
