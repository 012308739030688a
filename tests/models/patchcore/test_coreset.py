"""k-centre greedy: the picks of the plain search, whatever the front; and the option that says how many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edge_ad.errors import ConfigError
from edge_ad.models.patchcore import coreset as module
from edge_ad.models.patchcore.coreset import entries_of, k_centre, random_projection, random_start
from edge_ad.models.patchcore.options import Coreset


def plain(features: np.ndarray, count: int, start: Any) -> tuple[list[int], float]:
    """Every pick looks at every patch, in float64."""
    picks, least = [], np.asarray(start, np.float64).copy() if np.ndim(start) else np.full(len(features), np.inf)
    following = int(start) if np.ndim(start) == 0 else int(least.argmax())
    while True:
        picks.append(following)
        least = np.minimum(least, ((features - features[following]) ** 2).sum(1))
        least[picks] = -1
        if len(picks) == count:
            return picks, float(np.sqrt(max(least.max(), 0)))
        following = int(least.argmax())


@given(st.integers(2, 300), st.integers(0, 2**31), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_the_picks_are_those_of_the_plain_search(patches: int, seed: int, from_one: bool, data: Any) -> None:
    rng = np.random.default_rng(seed)
    # Whole numbers: distances are exact in float32, so that ties fall to the first in both.
    features = rng.integers(-9, 10, (patches, 5)).astype(np.float32)
    count = data.draw(st.integers(1, patches))
    start: Any = int(rng.integers(patches)) if from_one else rng.integers(0, 500, patches).astype(np.float32)
    wanted, radius = plain(features, count, start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST_FRONT", data.draw(st.integers(1, 40)))
        patch.setattr(module, "ROWS", data.draw(st.integers(1, 100)))
        told = start if from_one else torch.from_numpy(start)
        picks, left = k_centre(torch.from_numpy(features), count, told)
    assert picks.tolist() == wanted
    assert left == pytest.approx(radius)


def test_a_small_front_is_renewed() -> None:
    """Else the test above would say nothing of it."""
    features = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    renewals: list[int] = []
    picks, _ = k_centre(features, 500, random_start(features, 0), renewals.append)
    assert 1 < len(renewals) < 250 and sum(renewals) == len(set(picks.tolist())) == 500


def test_no_patch_stays_twice() -> None:
    same = torch.ones(50, 4)
    picks, radius = k_centre(same, 50, random_start(same, 0))
    assert sorted(picks.tolist()) == list(range(50)) and radius == 0


def test_a_projection_keeps_distances_and_a_short_embedding_needs_none() -> None:
    assert random_projection(128, 0) is None
    projection = random_projection(1000, 0)
    assert projection is not None and projection.shape == (1000, 128)
    assert torch.equal(projection, random_projection(1000, 0))
    assert not torch.equal(projection, random_projection(1000, 1))
    vectors = torch.randn(200, 1000, generator=torch.Generator().manual_seed(1))
    ratio = (vectors @ projection).norm(dim=1) / vectors.norm(dim=1)
    assert float(ratio.min()) > 0.75 and float(ratio.max()) < 1.25


@pytest.mark.parametrize(
    ("given_value", "wanted"),
    [("0.01", 0.01), ("1%", 0.01), (".5", 0.5), ("1.0", 1.0), ("317", 317), (317, 317), (0.25, 0.25), ("1e-2", 0.01)],
)
def test_a_share_or_a_number(given_value: Any, wanted: Any) -> None:
    found = TypeAdapter(Coreset).validate_python(given_value)
    assert found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize(
    "value", ["0", 0, 0.0, -1, -0.5, 1.5, "150%", "many", "", True, None, "nan", float("nan"), [1]]
)
def test_what_is_neither(value: Any) -> None:
    with pytest.raises(ValidationError, match="wanted a share"):
        TypeAdapter(Coreset).validate_python(value)


def test_how_many_entries() -> None:
    assert (entries_of(0.01, 31744), entries_of(1e-6, 10), entries_of(1.0, 7), entries_of(7, 7)) == (317, 1, 7, 7)
    with pytest.raises(ConfigError, match="8 entries of 7 patches; wanted at most 7"):
        entries_of(8, 7)
