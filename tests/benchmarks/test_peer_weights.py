"""`benchmarks/peers/anomalib_export.py`: weights find their places in a network whose tensors have other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PEERS))
    from anomalib_export import in_order

    return in_order


def tensors(**lengths: int) -> dict[str, Any]:
    return {name.replace("_", "."): np.full(length, number) for number, (name, length) in enumerate(lengths.items())}


def test_tensors_go_by_order_and_only_those_behind_the_last_layer_may_be_absent(in_order: Any) -> None:
    target = tensors(stem=3, blocks_1_a=4, blocks_1_b=5, blocks_10_a=6)
    source = {name: values + 100 for name, values in tensors(features_0=3, features_1=4, features_2=5).items()}
    placed = in_order(target, {**source, "features.2.num_batches_tracked": np.zeros(1)}, "blocks.1")
    assert {name: int(values[0]) for name, values in placed.items()} == {
        "stem": 100,
        "blocks.1.a": 101,
        "blocks.1.b": 102,
        "blocks.10.a": 3,
    }
    longer = in_order({name: target[name] for name in ("stem", "blocks.1.a")}, source, "blocks.1")
    assert list(longer) == ["stem", "blocks.1.a"] and longer["blocks.1.a"][0] == 101
    with pytest.raises(ValueError, match="wanted 4 tensors, got 3"):
        in_order(target, source, "blocks.10")
    with pytest.raises(ValueError, match=r"blocks\.1\.b: wanted \(5,\), got \(6,\)"):
        in_order(target, {**source, "features.2": np.zeros(6)}, "blocks.1")
