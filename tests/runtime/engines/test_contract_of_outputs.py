"""What an engine returns is held against the bundle: shapes, types, ranges, and the score against its own map."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import SCORED_MAPS, PostprocessSpec, ScoreKind, contract
from edge_ad.cli.main import main
from edge_ad.engine import BatchArray, Engine, EngineSpec, Outputs
from edge_ad.errors import BundleError, EngineError
from edge_ad.image.operators import ResizeSmooth
from edge_ad.runtime.engines.fake import FakeEngine
from edge_ad.runtime.judge.loader import open_detector

SIDE, PATCHES = 32, 8
Change = Callable[[Outputs], Any]


class _Says(Engine):
    """Random patches, smoothed and scored as it should be, then changed."""

    name = "says"

    def __init__(self, change: Change, score: ScoreKind = "map_max", precision: str = "fp32") -> None:
        image, outputs = contract(SIDE, SIDE, (PATCHES, PATCHES), None)
        spec = EngineSpec(image, outputs, "fp32", None, "0" * 64, postprocess=PostprocessSpec(score=score))
        super().__init__(bytes, spec)
        self.change, self.score = change, score
        self.effective_precision = precision

    def load_impl(self) -> None: ...

    def close_impl(self) -> None: ...

    def infer_impl(self, batch_nhwc: BatchArray) -> Any:
        rng = np.random.default_rng(0)
        patch_map = rng.uniform(0, 1, (len(batch_nhwc), PATCHES, PATCHES)).astype(np.float32)
        anomaly_map = ResizeSmooth((PATCHES, PATCHES), (SIDE, SIDE))(patch_map)
        scored = anomaly_map if self.score == "map_max" else patch_map
        return self.change(Outputs(patch_map, anomaly_map, scored.max(axis=(1, 2))))


def infer(change: Change, images: int = 3, **more: Any) -> Outputs:
    with _Says(change, **more) as engine:
        return engine.infer(np.zeros((images, SIDE, SIDE, 3), np.uint8))


@pytest.mark.parametrize("score", ["map_max", "patch_max"])
@pytest.mark.parametrize("images", [1, 3])
def test_what_is_right_is_passed_on(score: ScoreKind, images: int) -> None:
    assert len(infer(lambda outputs: outputs, images, score=score).pred_score) == images


def _last_score(by: float) -> Change:
    def change(outputs: Outputs) -> Outputs:
        return replace(outputs, pred_score=outputs.pred_score + np.float32([0] * (len(outputs.pred_score) - 1) + [by]))

    return change


@pytest.mark.parametrize("score", ["map_max", "patch_max"])
@pytest.mark.parametrize("by", [-1e6, -3.4e38, -0.2, -1e-3, 1e-3, 0.1])
def test_a_score_that_contradicts_its_map_is_none(score: ScoreKind, by: float) -> None:
    with pytest.raises(EngineError, match=r"'says' returned .*(has to be the same|wanted 0 to 1).*damaged"):
        infer(_last_score(by), score=score)


def test_a_score_is_held_against_the_map_that_it_is_taken_on() -> None:
    def of_the_other(outputs: Outputs) -> Outputs:
        return replace(outputs, pred_score=outputs.patch_map.max(axis=(1, 2)))

    with pytest.raises(EngineError, match="'anomaly_map' that gives"):
        infer(of_the_other)
    infer(of_the_other, score="patch_max")


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 5e-6), ("fp16", 5e-3), ("int8", 3e-2), ("bf16", 3e-2)])
def test_rounding_is_no_contradiction(precision: str, allowed: float) -> None:
    infer(_last_score(-allowed), precision=precision)
    with pytest.raises(EngineError, match="has to be the same"):
        infer(_last_score(-4 * allowed), precision=precision)


@pytest.mark.parametrize(
    "change",
    [
        lambda o: Outputs(o.patch_map * np.float32(1e26), o.anomaly_map * np.float32(1e26), o.pred_score * 1e26),
        lambda o: replace(o, patch_map=o.patch_map - np.float32(1)),
        lambda o: Outputs(o.patch_map, np.full_like(o.anomaly_map, -1), np.full_like(o.pred_score, -1)),
    ],
    ids=["of a damaged blob", "patches below 0", "a map below 0"],
)
def test_values_that_are_no_probabilities_are_none(change: Change) -> None:
    with pytest.raises(EngineError, match="wanted 0 to 1"):
        infer(change)


@pytest.mark.parametrize(
    "change",
    [
        lambda o: replace(o, patch_map=o.patch_map[:, :-1]),
        lambda o: replace(o, patch_map=o.anomaly_map, anomaly_map=o.patch_map),
        lambda o: replace(o, anomaly_map=o.anomaly_map[:1]),
        lambda o: replace(o, anomaly_map=o.anomaly_map[:, :0]),
        lambda o: replace(o, pred_score=o.pred_score[:, None]),
        lambda o: replace(o, pred_score=o.pred_score[0]),
        lambda o: replace(o, pred_score=o.pred_score.astype(np.float64)),
        lambda o: replace(o, patch_map=(o.patch_map * 255).astype(np.uint8)),
        lambda o: replace(o, patch_map=o.patch_map.tolist()),
    ],
    ids=[
        "fewer rows",
        "swapped",
        "one map for all",
        "no row",
        "scores in 2-D",
        "one score",
        "float64",
        "uint8",
        "list",
    ],
)
def test_another_shape_or_type_is_said(change: Change) -> None:
    with pytest.raises(EngineError, match=r"returned '(patch_map|anomaly_map|pred_score)' as .*the bundle has float32"):
        infer(change)


def test_a_graph_that_smooths_otherwise_than_its_manifest_says_is_refused(
    tmp_path: Path, fake_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks and letterboxed scores are made by the manifest's sigma; another one than the graph's moves both."""
    for sigma in (4.0, 2.0):
        bundle = fake_bundle(tmp_path / f"{sigma:g}.edgead", side=64, postprocess=PostprocessSpec(sigma))
        with open_detector(bundle, engine="fake"):
            pass
    load = FakeEngine.load_impl

    def load_with_four(engine: FakeEngine) -> None:
        engine.spec = replace(engine.spec, postprocess=PostprocessSpec())
        load(engine)

    monkeypatch.setattr(FakeEngine, "load_impl", load_with_four)
    with (
        pytest.raises(BundleError, match=r"off by .* smoothed with sigma 2 and truncate 4"),
        open_detector(bundle, engine="fake"),
    ):
        pass


def test_a_frame_whose_score_contradicts_its_map_is_an_error_record(
    tmp_path: Path, fake_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bright pictures get a score of -1e6 beside a map that is far above the threshold; the others are judged."""
    infer_right = FakeEngine.infer_impl

    def infer_impl(engine: FakeEngine, batch_nhwc: BatchArray) -> Outputs:
        outputs = infer_right(engine, batch_nhwc)
        bright = outputs.pred_score > 0.95
        return replace(outputs, pred_score=np.where(bright, np.float32(-1e6), outputs.pred_score))

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index, level in enumerate((40, 252, 60)):
        picture = np.full((64, 64, 3), level, np.uint8)
        picture[::2, ::3] -= 30
        picture[20:50, 20:50] = level
        Image.fromarray(picture).save(pictures / f"{index}.png")
    arguments = ["run", str(fake_bundle(tmp_path / "b.edgead").path), "--source", str(pictures), "--engine", "fake"]
    monkeypatch.setattr(FakeEngine, "infer_impl", infer_impl)
    main([*arguments, "--output", str(tmp_path / "out")])
    records = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()]
    assert [(record["status"], record["verdict"]) for record in records] == [
        ("ok", "normal"),
        ("error", None),
        ("ok", "normal"),
    ]
    assert "wanted 0 to 1" in records[1]["reason"] and records[1]["score"] is None


@pytest.mark.parametrize("kind", sorted(set(get_args(ScoreKind)) - set(SCORED_MAPS)))
def test_a_score_that_is_taken_from_no_map_declares_its_range(kind: ScoreKind) -> None:
    """Else it would be believed whatever it is."""
    with pytest.raises(ValueError, match="score_range: belongs to scores that are taken from no map, which need it"):
        PostprocessSpec(score=kind)
    assert PostprocessSpec(score=kind, score_range=(0.0, 2.0)).scores == (0.0, 2.0)
