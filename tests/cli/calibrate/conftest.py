"""The arguments of a quantization, in an empty working folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_ad.calibration.quantize import quantized


@pytest.fixture(scope="module")
def calibrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrations")


@pytest.fixture
def base(here: Path, calibrations: Path, engine_cache: Path) -> Callable[..., list[str]]:
    """Arguments of a quantization; the gate runs on OpenVINO, the user's default."""
    caches = ["--calibration-cache", str(calibrations), "--engine-cache", str(engine_cache)]
    return lambda *arguments: ["calibrate", *caches, *map(str, arguments)]


@pytest.fixture
def speed_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Fixes how fast the quantized model is found to be: small models on busy machines vary."""
    return lambda value: monkeypatch.setattr(quantized, "_speed_up", lambda *_: value)
