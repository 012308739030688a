"""The graph of the micro bundle and what it has to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.contract import GraphContract


@pytest.fixture(scope="session")
def micro_graph(micro_bundle: Path) -> bytes:
    return (micro_bundle / "model.onnx").read_bytes()


@pytest.fixture(scope="session")
def micro(micro_bundle: Path) -> GraphContract:
    return Bundle.read(micro_bundle).graph_contract
