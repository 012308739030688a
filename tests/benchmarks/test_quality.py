"""`benchmarks/quality/`: results that come back from disk, what they come to, and the front, against brute force."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

QUALITY = Path(__file__).resolve().parents[2] / "benchmarks" / "quality"


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `results`; its neighbours can be imported beside it."""
    monkeypatch.syspath_prepend(str(QUALITY))
    import results

    return results


def made(quality: Any, **told: Any) -> Any:
    return quality.Result(**{"configuration": "a", "side": "edge-ad", "data": "d", "seed": 0, **told})


def test_results_come_back_from_their_files(quality: Any, tmp_path: Path) -> None:
    given = [made(quality, seed=seed, image_auroc=0.9 + seed / 100) for seed in (0, 1)]
    for result in given:
        quality.write(quality.place(tmp_path, "a", "d", result.seed), result)
    (tmp_path / "d.a.2.part").write_text('{"config')  # of a run that was killed
    assert quality.read_all(tmp_path) == given


def test_rows_are_means_with_least_and_most_over_seeds(quality: Any) -> None:
    seeds = [made(quality, seed=seed, image_auroc=value) for seed, value in enumerate((0.9, 0.96, 0.99))]
    failed = made(quality, configuration="b", reason="not done")
    first, second = quality.rows([*seeds, failed])
    assert first.seeds == (0, 1, 2) and first.figures["image_auroc"] == (pytest.approx(0.95), 0.9, 0.99)
    assert first.figures["pro"] is None and second.reasons == ("not done",)


def test_tables_say_every_figure(quality: Any) -> None:
    found = quality.rows([made(quality, seed=s, image_auroc=0.9 + s / 10, fp32_ms=12.25) for s in (0, 1)])
    text = quality.as_markdown(found)
    assert "| d | a | 2 | 0.950 (0.900–1.000) | – | – | – | 12.2 | – | – | – |" in text
    (line,) = csv.DictReader(io.StringIO(quality.as_csv(found)))
    assert float(line["image_auroc_least"]) == 0.9 and line["int8_ms"] == ""
    assert json.loads(quality.as_json(found))[0]["figures"]["fp32_ms"] == [12.25, 12.25, 12.25]


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nothing_dominates(quality: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [
        quality.Point(str(number), "edge-ad", float(rng.integers(1, 8)), float(rng.integers(1, 8)) / 8)
        for number in range(int(rng.integers(1, 15)))
    ]

    def beaten(one: Any) -> bool:
        return any(
            other.ms <= one.ms and other.auroc >= one.auroc and (other.ms, other.auroc) != (one.ms, one.auroc)
            for other in points
        )

    assert sorted(p.name for p in quality.front(points)) == sorted(p.name for p in points if not beaten(p))
    assert all(quality.dominates(one, other) is False for one in quality.front(points) for other in [one])


def test_a_peer_that_is_faster_and_more_accurate_is_named_and_no_other(quality: Any) -> None:
    mine = [quality.Point("slow", "edge-ad", 20.0, 0.95), quality.Point("fast", "edge-ad", 5.0, 0.9)]
    behind = quality.Point("behind our front", "edge-ad", 30.0, 0.9)
    peers = [
        quality.Point("better", "anomalib", 10.0, 0.97),
        quality.Point("slower", "anomalib", 25.0, 0.99),
        quality.Point("worse", "anomalib", 4.0, 0.8),
    ]
    pairs = quality.better_peers([*mine, behind, *peers], "edge-ad")
    assert [(peer.name, own.name) for peer, own in pairs] == [("better", "slow")]


def test_points_are_models_whose_time_and_accuracy_are_known(quality: Any) -> None:
    full = made(quality, image_auroc=0.9, fp32_ms=10.0, int8_image_auroc=0.8, int8_ms=5.0)
    half = made(quality, configuration="b", image_auroc=0.9)
    names = [point.name for point in quality.points(quality.rows([full, half]), "d")]
    assert names == ["a, fp32", "a, int8"]


def test_the_chart_is_drawn_of_them(quality: Any) -> None:
    pytest.importorskip("matplotlib")
    import plot

    svg = plot.pareto({"d": [quality.Point("a, fp32", "edge-ad", 10.0, 0.9)]})
    assert svg.startswith(b"<?xml") and b"</svg>" in svg


def test_names_of_configurations_are_checked(quality: Any) -> None:
    import configurations

    assert [each.name for each in configurations.chosen(["glass-fast"])] == ["glass-fast"]
    assert len(configurations.chosen([])) == len({each.name for each in configurations.CONFIGURATIONS})
    with pytest.raises(ValueError, match="glass-fats: unknown"):
        configurations.chosen(["glass-fats"])


def test_what_a_process_took_is_read_from_its_last_line(quality: Any, tmp_path: Path) -> None:
    import runs

    script = tmp_path / "own.py"
    script.write_text("block = bytearray(64 << 20)\nprint('done')\n")
    cost, out = runs.process(runs.witnessed(sys.executable, str(script)), 60)
    assert out == "done\n" and cost.seconds > 0 and 64 < cost.mib < 4096
    script.write_text("import sys\nprint('what went wrong', file=sys.stderr)\nsys.exit(3)\n")
    with pytest.raises(runs.FailedError, match="what went wrong"):
        runs.process(runs.witnessed(sys.executable, str(script)), 60)
