"""Checkpoints of the authors' GLASS."""

from __future__ import annotations

from pathlib import Path

from edge_ad.models.family import LoadedNetwork
from edge_ad.models.glass.network import Glass
from edge_ad.models.patch_head.checkpoint import load_head
from edge_ad.models.patch_head.options import HeadOptions


def load_glass(checkpoint: Path, options: HeadOptions) -> LoadedNetwork[Glass]:
    """Read one and its backbone into a network in eval mode. Raises: CheckpointError, ConfigError."""
    return load_head(checkpoint, options, Glass)
