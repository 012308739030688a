"""Puts around a source what its settings ask for: a loop, a watch, a reconnection."""

from __future__ import annotations

from collections.abc import Callable

from edge_ad.errors import SourceError
from edge_ad.image.frame import FrameSource
from edge_ad.runtime.sources.kind import SourceKind
from edge_ad.runtime.sources.loop import Looping
from edge_ad.runtime.sources.reconnect import Patience, Reconnecting
from edge_ad.runtime.sources.settings import SourceSettings
from edge_ad.runtime.sources.watch import WatchedFolder
from edge_ad.text import without_secrets


def unattended(uri: str, settings: SourceSettings, kind: SourceKind) -> FrameSource:
    """The source of `uri`, which is of `kind`, as `settings` want it.

    Raises: SourceError for wrong parameters, or for a loop that this kind of source cannot run.
    """
    opener = kind.load_opener()
    if settings.loop:
        if kind.nature not in ("files", "folder"):
            shown = without_secrets(uri)
            raise SourceError(f"source {shown!r}: only videos and pictures can begin again; leave out --loop")
        return Looping(opener(uri))
    if kind.nature != "device":
        return opener(uri)
    return _reconnecting(lambda: opener(uri), settings, watchdog_s=settings.watchdog_s)


def watched(uri: str, settings: SourceSettings, kind: SourceKind | None) -> FrameSource:
    """The folder `uri` with whatever arrives in it. Args: kind: of the source; None when nothing exists there yet.

    Raises: SourceError when it is no folder, or is to begin again at its end.
    """
    shown = without_secrets(uri)
    if settings.loop:
        raise SourceError(f"source {shown!r}: a watched folder has no end to begin again at; leave out --loop")
    if kind is not None and kind.nature != "folder":
        raise SourceError(f"source {shown!r}: wanted a folder to watch, got something else; leave out --watch")
    folder = WatchedFolder(uri)  # one for all openings, for it knows what was judged
    return _reconnecting(lambda: folder, settings, watchdog_s=None)


def _reconnecting(
    open_anew: Callable[[], FrameSource], settings: SourceSettings, *, watchdog_s: float | None
) -> FrameSource:
    patience = Patience(settings.reconnect_s, settings.wait_for_source, watchdog_s)
    return Reconnecting(open_anew, patience)
