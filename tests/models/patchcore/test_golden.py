"""The authors' PatchCore and anomalib's: embeddings, picks, neighbours, maps and scores against every golden file.

Tolerances are those of tests/golden/patchcore/README.md: embeddings 1e-5, distances, maps and scores 1e-4 of the
largest, picks and neighbours equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn, files_with, largest, read

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.scores import score_of
from edge_ad.models.patchcore.config import PatchCoreConfig
from edge_ad.models.patchcore.coreset import k_centre, start_distances
from edge_ad.models.patchcore.faiss_index import read_bank, read_params
from edge_ad.models.patchcore.fold import FoldedPatchCore
from edge_ad.models.patchcore.network import PatchCore, Reweighted, as_rows, nearest
from edge_ad.models.patchcore.specs import ANOMALIB_OUTPUT, OUTPUT

FILES = files_with("patchcore", "patch_map")
PROJECTED = files_with("patchcore", "coreset_projected")
WRITTEN = files_with("patchcore", "faiss_file")
EMBEDDING, RELATIVE = 1e-5, 1e-4
TIE = 1e-6  # of the largest squared distance: what is nearer to each other is a tie


def is_anomalib(data: dict[str, Any]) -> bool:
    return "num_neighbors" in data["config"]


def make(data: dict[str, Any]) -> PatchCore:
    told, theirs = data["config"], is_anomalib(data)
    config = PatchCoreConfig(
        backbone=told["backbone"],
        layers=tuple(told["layers"]),
        embedding="averaged" if theirs else "pooled",
        pretrain_embed_dim=told.get("pretrain_embed_dim", 1),
        embed_dim=data["bank"].shape[1],
        distance="root" if theirs else "squared",
        nearest=told.get("num_nn", 1),
        neighbours=told.get("num_neighbors", 9),
    )
    network = PatchCore(config, torch.from_numpy(data["bank"]))
    network.backbone.trunk.load_state_dict(drawn(network.backbone.trunk.state_dict()))
    return network.eval().requires_grad_(False)


def normalised(images: np.ndarray) -> torch.Tensor:
    spec = PreprocessSpec(1, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std


def off(got: Any, wanted: Any) -> float:
    return largest(got, wanted) / float(np.abs(wanted).max())


def test_there_are_golden_files() -> None:
    assert FILES and PROJECTED and WRITTEN


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_embeddings_and_neighbours(path: Path) -> None:
    data = read(path)
    network = make(data)
    rows = as_rows(network.embed(normalised(data["image"])))
    every = len(rows) // len(data["embedding_sample"])
    assert off(rows.mean(0), data["embedding_mean"]) <= EMBEDDING
    assert off(rows[::every][: len(data["embedding_sample"])], data["embedding_sample"]) <= EMBEDDING
    references = as_rows(network.embed(normalised(data["reference"])))
    assert off(references[torch.from_numpy(data["coreset_index"])], data["bank"]) <= EMBEDDING
    squares, places = nearest(rows, network.bank, network.config.nearest)
    wanted = torch.from_numpy(data["nearest"]).reshape(places.shape)
    theirs = (rows.double()[:, None] - network.bank.double()[wanted]).square().sum(2)
    assert bool(((places == wanted) | ((theirs - squares).abs() <= TIE * squares.max())).all())
    if "distance_squared" in data:
        assert off(squares.reshape(data["distance_squared"].shape), data["distance_squared"]) <= RELATIVE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_maps_and_scores(path: Path) -> None:
    data = read(path)
    network, image = make(data), normalised(data["image"])
    spec: PostprocessSpec = ANOMALIB_OUTPUT if is_anomalib(data) else OUTPUT
    size_hw = data["image"].shape[1:3]
    published = Reweighted(network) if is_anomalib(data) else network
    for form in (published, FoldedPatchCore(network, size_hw, spec)):
        answer = form(image)
        patches, scores = (answer.patches, answer.score) if is_anomalib(data) else (answer, None)
        assert off(patches, data["patch_map"]) <= RELATIVE
        maps = ResizeSmooth(patches.shape[1:], size_hw, spec)(patches.numpy())
        assert off(maps, data["anomaly_map"]) <= RELATIVE
        found = score_of(patches.numpy(), maps, spec) if scores is None else scores.numpy()
        assert found is not None and off(found, data["score"]) <= RELATIVE
    other = FoldedPatchCore(network, size_hw, spec)
    other.search.blocks[0].bias.data += 0.05  # type: ignore[operator,union-attr]
    changed = other(image)
    assert off(changed.patches if is_anomalib(data) else changed, data["patch_map"]) > RELATIVE, "it is noticed"


@pytest.mark.parametrize("path", PROJECTED, ids=lambda path: path.stem)
def test_picks(path: Path) -> None:
    data = read(path)
    features, wanted = torch.from_numpy(data["coreset_projected"]), data["coreset_index"]
    start: Any = int(wanted[0])
    if "coreset_start" in data:
        start = start_distances(features, torch.from_numpy(data["coreset_start"]))
    picks, _ = k_centre(features, len(wanted), start)
    assert picks.tolist() == wanted.tolist()


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_files_of_the_authors(path: Path, tmp_path: Path) -> None:
    data = read(path)
    index, params = tmp_path / "index.faiss", tmp_path / "params.pkl"
    index.write_bytes(data["faiss_file"].tobytes())
    params.write_bytes(data["params_file"].tobytes())
    assert np.array_equal(read_bank(index).numpy(), data["bank"])
    told = read_params(params)
    assert told["backbone.name"] == data["config"]["backbone"]
    assert told["target_embed_dimension"] == data["config"]["target_embed_dim"]
