"""GenICam cameras (GigE Vision, USB3 Vision, ...) through harvesters and the GenTL producer of the camera's maker."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from glob import escape, glob
from typing import Any
from urllib.parse import unquote

from edge_ad.errors import ImageError, MissingExtraError, SourceError, one_line
from edge_ad.image.frame import Frame, ImageArray
from edge_ad.runtime.sources.pixel_formats import to_bgr
from edge_ad.text import without_secrets

PRODUCERS = "GENICAM_GENTL64_PATH"
"""Variable in which installers of producers leave their folders (GenTL standard 1.6, section 3.1.1)."""

FETCH_S = 0.1  # how long one look for a frame takes; between two the source can be closed
CLOSE_S = 1.0


class GenicamSource:
    """Frames of one GenICam camera, in BGR.

    Opening starts the acquisition but waits for no frame, since the camera may have a trigger. Size, exposure,
    trigger and pixel format are the camera's own: set them with the maker's tool and save them as user set.

    Args:
        serial: serial number of the camera; empty for the only one.
        producers: `.cti` files.

    Attributes:
        name: what the user asked for.
    """

    live = True
    length: int | None = None

    def __init__(self, name: str, serial: str, producers: Sequence[str]) -> None:
        self.name = name
        self._serial = serial
        self._producers = tuple(producers)
        self._harvester: Any = None
        self._acquirer: Any = None
        self._torn = threading.Event()  # a frame of which packets are missing
        self._next_id = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()  # held while reading, so that the camera is not closed under a read

    def __enter__(self) -> GenicamSource:
        """Start the camera. Raises: SourceError; MissingExtraError without harvesters."""
        try:
            from harvesters.core import Callback, Harvester, ImageAcquirer
        except ImportError as exc:
            raise MissingExtraError(self.name, "harvesters", "genicam") from exc
        torn = self._torn

        class Torn(Callback):  # type: ignore[misc]  # harvesters has no annotations
            def emit(self, context: object = None) -> None:
                torn.set()

        self._closed.clear()
        self._next_id = 0
        with self._lock:
            try:
                self._harvester = Harvester()
                for producer in self._producers:
                    self._harvester.add_file(producer, check_existence=True, check_validity=True)
                self._harvester.update()
                self._acquirer = self._harvester.create(self._index(self._harvester.device_info_list))
                self._acquirer.add_callback(ImageAcquirer.Events.INCOMPLETE_BUFFER, Torn())
                self._acquirer.start()
            except SourceError:
                self._stop()
                raise
            except Exception as exc:  # producers of every maker, each with errors of its own
                self._stop()
                said = one_line(exc)
                raise SourceError(
                    f"{self.name}: does not start: {said}; is it in use elsewhere, and the cable in?"
                ) from exc
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close. A read that hangs keeps the camera."""
        self.interrupt()
        if self._lock.acquire(timeout=CLOSE_S):
            try:
                self._stop()
            finally:
                self._lock.release()

    def interrupt(self) -> None:
        self._closed.set()

    def read(self) -> Frame | None:
        """Next frame as (H, W, 3) uint8 BGR; None when closed. A frame that lost packets has an `error`.

        Raises: SourceError when the camera is lost.
        """
        with self._lock:
            while self._acquirer is not None and not self._closed.is_set():
                try:
                    buffer = self._acquirer.try_fetch(timeout=FETCH_S)
                except Exception as exc:  # producers of every maker, each with errors of its own
                    said = one_line(exc)
                    raise SourceError(
                        f"{self.name}: lost after {self._next_id} frame(s): {said}; check the camera and its cable"
                    ) from exc
                if buffer is not None:
                    with buffer:
                        return self._frame(buffer)
                if self._torn.is_set():
                    self._torn.clear()
                    return self._frame(None)
        return None

    def _index(self, devices: Sequence[Any]) -> int:
        serials = [str(device.serial_number) for device in devices]
        listed = (
            ", ".join(f"{device.model} {serial}" for device, serial in zip(devices, serials, strict=True)) or "none"
        )
        if self._serial:
            if self._serial not in serials:
                raise SourceError(f"{self.name}: no camera of that serial number; found: {listed}")
            return serials.index(self._serial)
        if len(serials) != 1:
            raise SourceError(f"{self.name}: wanted one camera, found: {listed}; name one with genicam:SERIAL")
        return 0

    def _frame(self, buffer: Any) -> Frame:
        """The frame in `buffer`, copied out of it; None, for one that did not arrive whole, gives an error."""
        captured_at, captured_ns = datetime.now(timezone.utc), time.monotonic_ns()
        image: ImageArray | None = None
        error = "did not arrive whole; look at the network card, its packet size and its load"
        if buffer is not None:
            try:
                part = buffer.payload.components[0]
                image = to_bgr(part.data, part.data_format, int(part.width), int(part.height))
            except ImageError as exc:
                error = str(exc)
            except Exception as exc:  # a payload without an image, or one that harvesters does not know
                error = f"holds no image that can be read: {one_line(exc)}"
        number, self._next_id = self._next_id, self._next_id + 1
        return Frame(
            frame_id=number,
            source=self.name,
            captured_at=captured_at,
            captured_ns=captured_ns,
            image_hwc=image,
            color_order="bgr",
            decode_ms=(time.monotonic_ns() - captured_ns) / 1e6,
            error=f"{self.name}: frame {number}: {error}" if image is None else None,
        )

    def _stop(self) -> None:
        acquirer, harvester, self._acquirer, self._harvester = self._acquirer, self._harvester, None, None
        steps = [] if acquirer is None else [acquirer.stop, acquirer.destroy]
        steps += [] if harvester is None else [harvester.reset]
        for step in steps:
            try:
                step()
            except Exception:  # a camera that is gone cannot be stopped; the next step frees the rest
                continue


def open_genicam(uri: str) -> GenicamSource:
    """Source of `genicam:SERIAL?cti=FILE`; without a serial number the only camera, without `cti` all producers.

    Raises: SourceError for an unknown key, or when there is no producer.
    """
    shown = without_secrets(uri)
    serial, _, query = uri[len("genicam:") :].partition("?")
    producers: list[str] = []
    for pair in filter(None, query.split("&")):
        key, _, value = (unquote(part) for part in pair.partition("="))
        if key != "cti" or not value:
            raise SourceError(f"{shown!r}: unknown key {key!r}; wanted genicam:SERIAL?cti=/path/to/producer.cti")
        producers.append(value)
    if not producers:
        folders = filter(None, os.environ.get(PRODUCERS, "").split(os.pathsep))
        producers = sorted(path for folder in folders for path in glob(os.path.join(escape(folder), "*.cti")))
    if not producers:
        raise SourceError(
            f"{shown!r}: no GenTL producer; install that of the camera's maker, which sets {PRODUCERS}, or name it:"
            " genicam:SERIAL?cti=/path/to/producer.cti"
        )
    return GenicamSource(f"genicam:{serial}", unquote(serial), producers)
