"""Thresholds from settings and bundle, at the start and again whenever somebody asks, while the line runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from types import TracebackType

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import Precision, Thresholds
from edge_ad.errors import ConfigError, EdgeAdError
from edge_ad.runtime.line.scheduling.thresholds import InUse, ThresholdBoard
from edge_ad.runtime.station.settings import LineSettings
from edge_ad.signals.supervisor import supervised

END_S = 2.0  # how long the end of a line waits for a reload, which may hang in a disk


def configured(settings: LineSettings, bundle: Thresholds) -> list[InUse]:
    """What every camera is judged with: its own threshold, or else the bundle's."""
    return [
        InUse(bundle) if camera.threshold is None else InUse(Thresholds(camera.threshold), "camera")
        for camera in settings.cameras
    ]


class ThresholdReload:
    """Reads the settings and the bundle again and puts their thresholds on the board; from any thread.

    Args:
        settings: with which the line runs.
        reread: gives them as they are now.
        bundle: which the engine was loaded from.
        precision: which of its models.
        say: told of every reload, and of every one that failed.

    Attributes:
        done, failed: how many there were.
    """

    def __init__(
        self,
        settings: LineSettings,
        reread: Callable[[], LineSettings],
        bundle: Bundle,
        precision: Precision,
        board: ThresholdBoard,
        say: Callable[[str], None],
    ) -> None:
        self.done = self.failed = 0
        self._settings = settings
        self._reread = reread
        self._bundle = bundle
        self._precision = precision
        self._board = board
        self._say = say
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """Raises: EdgeAdError when the new settings or the new bundle cannot be used; then nothing has changed."""
        with self._lock:
            try:
                settings = self._reread()
                in_use = configured(settings, self._thresholds_of(settings))
                for (name, old), new in zip(self._board.snapshot().items(), in_use, strict=True):
                    if new.thresholds.image is None and old.thresholds.image is not None:
                        raise ConfigError(name, ["neither its settings nor the bundle hold a threshold any more"])
            except EdgeAdError as exc:
                self.failed += 1
                self._say(f"warning: thresholds stay as they are: {exc}")
                raise
            self._board.configure(in_use)
            self.done += 1
        told = (f"{name} {_told(use.thresholds)}" for name, use in self._board.snapshot().items())
        self._say(f"thresholds read again: {', '.join(told)}")
        if _without_thresholds(settings) != _without_thresholds(self._settings):
            self._say("note: other settings have changed too; they count from the next start on")

    def _thresholds_of(self, settings: LineSettings) -> Thresholds:
        """Those of the bundle as it is now. Raises: ConfigError where they are for another model or other cameras."""
        if _cameras(settings) != _cameras(self._settings):
            raise ConfigError("cameras", ["are not those that the line runs with; start it again"])
        if settings.bundle != self._settings.bundle:
            raise ConfigError("bundle", ["is another one than the line runs with; start it again"])
        new, old = Bundle.read(settings.bundle), self._bundle
        name = old.model_file(self._precision)
        same_model = new.manifest.files.get(name) == old.manifest.files[name]
        if not (
            same_model
            and new.manifest.models.get(self._precision) == name
            and new.manifest.preprocess == old.manifest.preprocess
            and new.manifest.postprocess == old.manifest.postprocess
        ):
            raise ConfigError("bundle", [f"{settings.bundle} holds another model now; start the line again"])
        return new.thresholds(self._precision)


class SighupReload:
    """SIGHUP asks for a reload, from `__enter__` on, even if it comes before the line is put together; does nothing
    where nobody hears signals, as outside of the main thread of a program that is not edge-ad's.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._over = False
        self._stack = ExitStack()

    def __enter__(self) -> SighupReload:
        supervisor = self._stack.enter_context(supervised())
        if supervisor is not None:
            self._stack.enter_context(supervisor.on_hangup(self._asked.set))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def answered_by(self, reload: ThresholdReload) -> Iterator[None]:
        """Call `reload` at every hangup, in a thread of its own, while the block lasts."""
        thread = threading.Thread(target=self._work, args=(reload,), name="edge-ad-reload", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over = True
            self._asked.set()
            thread.join(END_S)

    def _work(self, reload: ThresholdReload) -> None:
        while True:
            self._asked.wait()
            if self._over:
                return
            self._asked.clear()
            with suppress(EdgeAdError):  # it has been said
                reload()


def _cameras(settings: LineSettings) -> list[tuple[str, str | None]]:
    return [(camera.source, camera.name) for camera in settings.cameras]


def _without_thresholds(settings: LineSettings) -> LineSettings:
    return replace(settings, cameras=tuple(replace(camera, threshold=None) for camera in settings.cameras))


def _told(thresholds: Thresholds) -> str:
    return "none" if thresholds.image is None else f"{thresholds.image:g}"
