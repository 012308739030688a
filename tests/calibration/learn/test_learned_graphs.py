"""What a learned graph computes: a larger bank is that bank, and a small one beside a network is its formula."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.check import checked_graph
from edge_ad.calibration.learn.beside import BesidePlace, Known, taps_of
from edge_ad.calibration.learn.graph import joined, parsed, split
from edge_ad.calibration.learn.places import place_of, usual_distance
from edge_ad.calibration.learn.rehearsal import Rehearsal, Scene, shapes_of
from edge_ad.calibration.learn.reweighted import GrownTable
from edge_ad.errors import SourceError
from edge_ad.export.options import export_options
from edge_ad.export.parity import probe_images
from edge_ad.export.to_bundle import export_bundle
from edge_ad.image.geometry import place as place_frame
from edge_ad.image.preprocess import ModelInput
from edge_ad.models.patchcore.bank import neighbour_table

SIDE = 64
RELATIVE = 2e-5
"""That of the export check: both sides are computed in float32, in another order."""
OUTPUTS = ("patch_map", "anomaly_map", "pred_score")


def computed(graph: bytes, images: np.ndarray, names: tuple[str, ...] = OUTPUTS) -> dict[str, np.ndarray]:
    model = parsed(graph)
    have = {value.name for value in model.graph.output}
    from onnx import helper

    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in have)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), {"image": images}), strict=True))


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.abs(found - wanted).max() <= RELATIVE * np.abs(wanted).max())


@pytest.fixture(scope="module")
def lesson() -> list[np.ndarray]:
    """Pictures whose patches are learned, (64, 64, 3) uint8."""
    return list(probe_images((SIDE, SIDE), count=2, seed=5))


def scenes_of(bundle: Bundle, images: list[np.ndarray]) -> tuple[Any, Any, np.ndarray, list[Scene]]:
    base, constants = split(parsed(bundle.read_graph("fp32")))
    pictures = [ModelInput(image, place_frame(bundle.manifest.preprocess, image.shape[:2])) for image in images]
    place, none = place_of(bundle.manifest, base, constants, pictures)
    rehearsal = Rehearsal(base, place, none)
    return base, place, none, [rehearsal.scene(image) for image in images]


def some_rows(scenes: list[Scene], count: int = 7) -> np.ndarray:
    rows = np.concatenate([scene.patches.reshape(len(scene.patches), -1).T for scene in scenes])
    return np.ascontiguousarray(rows[:: len(rows) // count][:count])


@pytest.mark.parametrize("block_bytes", [1 << 22, 1], ids=["one block", "blocks"])
@pytest.mark.parametrize(
    "values",
    [{"score": "map_max"}, {"score": "reweighted"}, {"nearest": 3, "distance": "squared"}, {"distance": "squared"}],
    ids=lambda values: str(next(iter(values.values()))),
)
def test_learned_entries_are_entries_of_the_bank(
    values: dict[str, Any],
    block_bytes: int,
    exported: Callable[..., Bundle],
    fitted: Path,
    lesson: list[np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: an export of the bank with the same entries in it from the start."""
    with monkeypatch.context() as patch:
        patch.setattr("edge_ad.models.patchcore.bank.BLOCK_BYTES", block_bytes)
        bundle = exported("patchcore", **values)
    base, place, _, scenes = scenes_of(bundle, lesson)
    blocks = [
        part.name for part in base.graph.initializer if re.fullmatch(r"logits\.search\.blocks\.\d+\.weight", part.name)
    ]
    assert (len(blocks) > 1) == (block_bytes == 1)
    rows = some_rows(scenes)
    graph = joined(base, place, rows)
    checked_graph(graph, bundle.graph_contract)
    (file,) = fitted.glob("ckpt*.pth")
    state = torch.load(file, weights_only=True)
    (name,) = [key for key in state if key.endswith("memory_bank")]
    state[name] = torch.cat([state[name], torch.from_numpy(rows) + state[name].mean(0)])
    torch.save(state, tmp_path / "grown.pth")
    told = {"family": "patchcore", "checkpoint": tmp_path / "grown.pth", "imgsz": SIDE, "resize_mode": "stretch"}
    told |= {"backbone_weights": fitted / "backbone.pth", "output": tmp_path / "grown.edgead", **values}
    grown = export_bundle(export_options(told, "test"))
    images = np.concatenate([np.stack(lesson), probe_images((SIDE, SIDE), count=3)])
    found, wanted = computed(graph, images), computed(grown.read_graph("fp32"), images)
    plain = computed(bundle.read_graph("fp32"), images)
    assert not close(plain["patch_map"], wanted["patch_map"]), "control: the entries change something"
    power = 1 if values.get("distance") == "squared" else 2  # near 0 the root enlarges what was rounded
    assert close(found["patch_map"] ** power, wanted["patch_map"] ** power)
    for output in ("anomaly_map", "pred_score"):
        assert close(found[output][len(lesson) :], wanted[output][len(lesson) :]), output


@pytest.mark.parametrize("family", ["glass", "draem", "efficientad"])
def test_beside_a_network_the_map_is_lowered_by_the_formula(
    family: str, exported: Callable[..., Bundle], lesson: list[np.ndarray]
) -> None:
    """Oracle: the formula in float64, on the taps as the network computes them."""
    bundle = exported(family)
    size = bundle.manifest.preprocess.size_hw
    pictures = lesson if size == (SIDE, SIDE) else list(probe_images(size, count=2, seed=5))
    base, place, _, scenes = scenes_of(bundle, pictures)
    assert isinstance(place, BesidePlace)
    rows = some_rows(scenes)
    graph = joined(base, place, rows)
    checked_graph(graph, bundle.graph_contract)
    images = np.concatenate([np.stack(pictures), probe_images(size, count=2)])
    taps = tuple(place.taps)
    found = computed(graph, images)
    plain = computed(bundle.read_graph("fp32"), images, (*OUTPUTS, *taps))
    cells = plain[taps[0]].shape[2:]
    parts = []
    for tap in taps:
        pooled = F.avg_pool2d(torch.from_numpy(plain[tap]).double(), 3, 1, 1, count_include_pad=True)
        parts.append(F.interpolate(pooled, cells, mode="bilinear") if pooled.shape[2:] != cells else pooled)
    patches = torch.cat(parts, 1) - torch.from_numpy(place.known.centre).double()[:, None, None]
    flat = patches.permute(0, 2, 3, 1).reshape(len(images), -1, patches.shape[1])
    least = torch.cdist(flat, torch.from_numpy(rows).double()[None]).square().amin(2).reshape(len(images), 1, *cells)
    closeness = F.interpolate((1 - least / place.known.radius**2).clamp(min=0), plain["patch_map"].shape[1:])[:, 0]
    raw = torch.from_numpy(plain["patch_map"]).double()
    wanted = raw - (raw - place.known.level).clamp(min=0) * closeness
    assert 0 < float((closeness > 0).double().mean()) < 1, "control: some patches are near, some are not"
    np.testing.assert_allclose(found["patch_map"], wanted, rtol=0, atol=1e-4 * float(raw.abs().max()))
    far = closeness.numpy() == 0
    untouched = np.abs(found["patch_map"] - plain["patch_map"])[far]
    assert untouched.max() == 0, "beyond the radius the map stays bit for bit"
    assert (found["patch_map"] <= plain["patch_map"]).all()


def test_a_rehearsal_says_what_the_graph_says(exported: Callable[..., Bundle], lesson: list[np.ndarray]) -> None:
    for family, values in (("patchcore", {"score": "reweighted"}), ("glass", {}), ("draem", {})):
        base, place, none, scenes = scenes_of(exported(family, **values), lesson)
        rehearsal = Rehearsal(base, place, none)
        for rows in (none, some_rows(scenes)):
            graph = joined(base, place, rows)
            for image, scene in zip(lesson, scenes, strict=True):
                found, said = computed(graph, image[None]), rehearsal.say(scene, rows)
                for output, value in zip(OUTPUTS, (said.patch_map, said.anomaly_map, said.score), strict=True):
                    np.testing.assert_allclose(value, found[output][0], rtol=1e-5, atol=1e-6)


def test_taps_have_the_shapes_that_torch_says(exported: Callable[..., Bundle]) -> None:
    base, _ = split(parsed(exported("glass").read_graph("fp32")))
    taps = taps_of(base, ("backbone",))
    assert shapes_of(base, taps, (SIDE, SIDE)) == [(64, 16, 16), (128, 8, 8)]


def test_constants_of_a_learned_graph_are_read_back(exported: Callable[..., Bundle], lesson: list[np.ndarray]) -> None:
    base, place, _, scenes = scenes_of(exported("glass"), lesson)
    again, constants = split(parsed(joined(base, place, some_rows(scenes))))
    assert again == base
    known = Known.of(constants)
    assert known is not None and known.radius == pytest.approx(place.known.radius, rel=1e-7)
    assert np.array_equal(known.centre, place.known.centre) and known.level == np.float32(place.known.level)


def test_usual_distance_of_one_picture_looks_at_patches_that_share_nothing() -> None:
    steps = np.arange(8, dtype=np.float32)
    patches = np.broadcast_to(steps, (1, 8, 8)).copy()  # columns are one apart, rows are all alike
    with pytest.raises(SourceError, match="all alike"):
        usual_distance([patches])  # three rows on they are the same
    sloped = (patches + 100 * steps[:, None]).astype(np.float32)
    assert usual_distance([sloped]) == pytest.approx(3), "three columns on"
    assert usual_distance([sloped, sloped + np.float32(0.25)]) == pytest.approx(0.25)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**31))
def test_the_table_of_a_grown_bank_is_that_of_the_whole(entries: int, more: int, width: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(entries + more, 5)).astype(np.float32)
    bank, width = rows[:entries], min(width, entries)
    grown = GrownTable(bank, neighbour_table(torch.from_numpy(bank), width).numpy())
    wanted = neighbour_table(torch.from_numpy(rows), width).numpy()
    assert np.array_equal(grown.with_rows(rows[entries:]), wanted)
    assert len(grown.with_rows(rows[:0])) == entries + 1, "a place for the one that is far from all"
