"""The compiled resize, where there is one."""

from __future__ import annotations

import os

import pytest

from edge_ad.image.resize.native import NativeResizer, native_resizer


@pytest.fixture
def compiled() -> NativeResizer:
    """Skip where it was not compiled; fail where CI should have compiled it."""
    found = native_resizer()
    if found is not None:
        return found
    reason = "the resize was not compiled: install a C compiler (apt install gcc libc6-dev) and edge-ad again"
    if os.environ.get("EDGE_AD_REQUIRE_LADDER"):
        pytest.fail(f"{reason}; CI has to prove what the compiled one computes")
    pytest.skip(reason)
