"""Bundles whose hashes fit whatever they hold, written without a look at it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from edge_ad.bundle.bundle import CHECKSUM, MANIFEST


def seal(path: Path, manifest: bytes, graph: bytes) -> Path:
    """Write a bundle of one graph, in place of what is there. Args: manifest: text, with the graph's hash in it."""
    path.mkdir(exist_ok=True)
    (path / "model.onnx").write_bytes(graph)
    (path / MANIFEST).write_bytes(manifest)
    (path / CHECKSUM).write_bytes(f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode())
    return path


def manifest_for(manifest: dict[str, Any], graph: bytes) -> bytes:
    """The text of a manifest that vouches for a graph."""
    files = {"model.onnx": hashlib.sha256(graph).hexdigest()}
    return yaml.safe_dump({**manifest, "files": files}, sort_keys=False).encode()


def with_graph(bundle: Path, graph: bytes, path: Path) -> Path:
    """A copy of a bundle with another graph."""
    manifest = (bundle / MANIFEST).read_bytes()
    old, new = (hashlib.sha256(data).hexdigest().encode() for data in ((bundle / "model.onnx").read_bytes(), graph))
    return seal(path, manifest.replace(old, new), graph)
