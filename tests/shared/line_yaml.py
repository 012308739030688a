"""Files that describe a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def two_cameras(bundle: Path, folder: Path) -> dict[str, Any]:
    """A line of the fake engine that ends by itself."""
    return {
        "bundle": str(bundle),
        "engine": "fake",
        "engine_cache": str(folder / "cache"),
        "output": str(folder / "out"),
        "cameras": [
            {"name": "left", "source": "sim:?size=96x64&frames=4&seed=1", "threshold": 0.1, "roi": [8, 0, 72, 64]},
            {"name": "right", "source": "sim:?size=96x64&frames=3&seed=2", "budget_ms": 60000},
        ],
    }


def written(folder: Path, data: Any) -> str:
    path = folder / "line.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)
