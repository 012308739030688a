"""A GPU for a while, in whatever thread asks for it."""

from __future__ import annotations

import atexit
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from edge_ad.errors import EngineError, MissingExtraError, one_line
from edge_ad.runtime.engines.tensorrt.runner.recording import Recordings

WHERE_TO_LOOK = "if it comes back, look for 'NVRM: Xid' in dmesg, and at power and temperature"

_devices: dict[int, CudaDevice] = {}
_opening = threading.Lock()


class CudaDevice:
    """One GPU, through its primary context, which TensorRT and PyTorch use too. There is one object for each GPU.

    The context stays until the process ends: what pycuda does to release it leaves it current in the thread that asks,
    and other libraries would go on in a context that is no more.

    Attributes:
        driver: the module `pycuda.driver`.
        shares_memory: True for a GPU that is one chip with the processor and works in its memory, as on Jetson.
        lost: why nothing more can be done with it in this process; None while it works.
        recordings: of streams, which CUDA allows only while no thread waits for the whole device.
    """

    def __init__(self, driver: Any, index: int) -> None:
        self.driver = driver
        self.lost: str | None = None
        self.recordings = Recordings()
        device = driver.Device(index)
        self.shares_memory = bool(device.get_attribute(driver.device_attribute.INTEGRATED))
        self._context = device.retain_primary_context()

    @contextmanager
    def use(self, purpose: str) -> Iterator[None]:
        """Make it the current one of this thread.

        After an error nothing of what the block began is left running.

        Args:
            purpose: what it is for, as in `the GPU failed to PURPOSE`.

        Raises: EngineError in place of every error of CUDA.
        """
        if self.lost is not None:
            raise EngineError(self.lost)
        try:
            self._context.push()
        except self.driver.Error as exc:
            raise EngineError(self._lose(exc)) from exc
        try:
            yield
        except self.driver.Error as exc:
            raise EngineError(self._settle() or self._explained(purpose, exc)) from exc
        except EngineError as exc:
            lost = self._settle()
            if lost is None:
                raise
            raise EngineError(lost) from exc
        except BaseException:
            self._settle()
            raise
        finally:
            self.driver.Context.pop()

    def wait_for_all(self) -> None:
        """Wait until no work is left, of whatever thread, while the device is current. Raises: errors of CUDA."""
        with self.recordings.kept_out():
            self.driver.Context.synchronize()

    def abandon(self) -> None:
        """Give up on a GPU that is lost: what pycuda still holds of it is then forgotten without a word."""
        with suppress(self.driver.Error):  # it was abandoned before
            self._context.detach()

    def _settle(self) -> str | None:
        """Wait for all work. Returns: `lost`, for an error that this reports again is one that the process keeps."""
        try:
            self.wait_for_all()
        except self.driver.Error as exc:
            return self._lose(exc)
        return None

    def _lose(self, exc: Exception) -> str:
        self.lost = f"the GPU is lost to this process ({one_line(exc)}; {WHERE_TO_LOOK})"
        return self.lost

    def _explained(self, purpose: str, exc: Exception) -> str:
        remedy = "see nvidia-smi and dmesg"
        if isinstance(exc, self.driver.MemoryError):
            remedy = "its memory is full; end other programs that use it, or build the engine for smaller batches"
        return f"the GPU failed to {purpose}: {one_line(exc)}; {remedy}"


def open_device(index: int) -> CudaDevice:
    """The GPU of a number, as CUDA counts those that are visible.

    Raises: MissingExtraError without pycuda; EngineError without a driver or a GPU.
    """
    with _opening:
        if index not in _devices:
            driver = _loaded_driver()
            try:
                driver.init()
                _devices[index] = CudaDevice(driver, index)
            except driver.Error as exc:
                raise EngineError(f"GPU {index} cannot be used: {one_line(exc)}; see nvidia-smi") from exc
        return _devices[index]


def _loaded_driver() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own words about a failed import, which follow below
            import pycuda.driver
    except ModuleNotFoundError as exc:
        raise MissingExtraError("engine 'tensorrt'", str(exc.name).split(".")[0], "tensorrt") from exc
    except ImportError as exc:
        raise EngineError(
            f"pycuda cannot be loaded: {one_line(exc)}; install NVIDIA's driver, and pycuda anew where CUDA was updated"
        ) from exc
    return pycuda.driver


@atexit.register
def _release() -> None:
    """Let go before CUDA itself ends, after which pycuda would complain."""
    while _devices:
        _devices.popitem()[1].abandon()
