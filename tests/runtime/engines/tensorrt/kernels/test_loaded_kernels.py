"""Compiled kernels that a driver does not take."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.runner import loaded_kernels as cuda_kernels
from edge_ad.runtime.engines.tensorrt.runner.loaded_kernels import LoadedKernels


def test_a_refusal_whose_log_the_driver_has_not_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """pycuda then makes a message of memory that nobody has written to, and fails to decode it."""

    def module_from_buffer(cubin: bytes) -> object:
        return b"\xb4".decode()

    monkeypatch.setattr(cuda_kernels, "compiled", lambda *_, **__: b"cubin")
    driver = SimpleNamespace(module_from_buffer=module_from_buffer, get_driver_version=lambda: 12060)
    with ExitStack() as freed_with, pytest.raises(EngineError, match="refuses the compiled kernel 'preprocess'"):
        LoadedKernels(driver, "preprocess", 87, None, freed_with)
