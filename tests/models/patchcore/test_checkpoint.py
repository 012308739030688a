"""Banks of our own, of anomalib and of the authors: read, exported with the defaults of their source, or refused."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from golden_files import drawn, files_with, largest, read
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.cli.main import main
from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.models.patchcore.checkpoint import checkpoint_parts, load_patchcore
from edge_ad.models.patchcore.faiss_index import HEADER, read_bank, read_params
from edge_ad.models.patchcore.network import PatchCore
from edge_ad.models.patchcore.options import PatchCoreOptions
from edge_ad.models.patchcore.source import ANOMALIB_BANK, ANOMALIB_TRUNK

Make = Callable[..., PatchCore]
SIZE = PreprocessSpec(64, 64)
(ANOMALIB,) = [path for path in files_with("patchcore", "patch_map") if "num_neighbors" in read(path)["config"]][:1]
AUTHORS = files_with("patchcore", "faiss_file")[0]
RELATIVE = 1e-4


def load(path: Path, **options: Any) -> Any:
    return load_patchcore(path, PatchCoreOptions(**options), SIZE)


@pytest.fixture
def own(make: Make, tmp_path: Path) -> Path:
    torch.save(checkpoint_parts(make()), tmp_path / "own.pth")
    return tmp_path / "own.pth"


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights by the rule of the golden files, of the whole network."""
    from torchvision.models import resnet18 as build

    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(drawn(build(weights=None).state_dict()), path)
    return path


@pytest.fixture
def anomalib(tmp_path: Path, resnet18: Path) -> Path:
    """As Lightning writes it: other parts beside the model, statistics that were never taken, plain options."""
    data = read(ANOMALIB)
    trunk = {name: value for name, value in torch.load(resnet18).items() if not name.startswith(("fc", "layer4"))}
    state = {f"{ANOMALIB_TRUNK}{name}": value for name, value in trunk.items()}
    state |= {ANOMALIB_BANK: torch.from_numpy(data["bank"]), "post_processor._image_threshold": torch.tensor(torch.nan)}
    told = {"backbone": "resnet18", "layers": ["layer2", "layer3"], "num_neighbors": 9, "pre_trained": True}
    torch.save({"state_dict": state, "hyper_parameters": told, "epoch": 1}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    data = read(AUTHORS)
    (tmp_path / "patchcore_params.pkl").write_bytes(data["params_file"].tobytes())
    (tmp_path / "nnscorer_search_index.faiss").write_bytes(data["faiss_file"].tobytes())
    return tmp_path / "nnscorer_search_index.faiss"


def judged(bundle: Path, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession((bundle / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"image": images}))


def export(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    code = main(["export", *map(str, arguments)])
    told = capsys.readouterr()
    assert code == 0, told.err
    return told.out + told.err


def test_anomalibs_goes_all_the_way(anomalib: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, bundle = read(ANOMALIB), tmp_path / "b.edgead"
    said = export(capsys, anomalib, "--imgsz", 96, "-o", bundle)
    assert "taken for a checkpoint of patchcore" in said and "centre crop" in said and "assumed" not in said
    manifest = Bundle.read(bundle).manifest
    spec = manifest.postprocess
    assert (spec.resize, spec.border, spec.score, spec.score_range) == (
        "nearest",
        "reflect101",
        "reweighted",
        (0.0, None),
    )
    assert manifest.preprocess.resize_mode == "stretch" and manifest.preprocess.size_hw == (96, 96)
    assert manifest.model.config["distance"] == "root" and manifest.model.config["entries"] == len(data["bank"])
    assert manifest.model.config["backbone_weights"] == "the checkpoint's"
    for found, name in zip(judged(bundle, data["image"]), ("patch_map", "anomaly_map", "score"), strict=True):
        assert largest(found, data[name]) <= RELATIVE * np.abs(data[name]).max()
    assert main(["export", str(anomalib), "--imgsz", "96", "--resize", "110", "-o", str(tmp_path / "c.edgead")]) == 3
    assert "the checkpoint's default is stretch; give --resize-mode" in capsys.readouterr().err
    export(capsys, anomalib, "--imgsz", 96, "--score", "map_max", "-o", bundle, "--force")
    spec = Bundle.read(bundle).manifest.postprocess
    assert (spec.score, spec.score_range, spec.resize) == ("map_max", None, "nearest")


def test_the_authors_goes_all_the_way(
    authors: Path, resnet18: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, bundle = read(AUTHORS), tmp_path / "b.edgead"
    said = export(capsys, authors, "--backbone-weights", resnet18, "-o", bundle)
    assert "taken for a checkpoint of patchcore" in said
    manifest = Bundle.read(bundle).manifest
    assert manifest.model.config["nearest"] == 3 and manifest.model.config["distance"] == "squared"
    assert manifest.model.config["pretrain_embed_dim"] == 100
    assert manifest.preprocess == PreprocessSpec(64, 96, resize=73)  # the size of its parameters; 64 · 8/7
    assert (manifest.postprocess.score, manifest.postprocess.resize) == ("patch_max", "bilinear")
    for found, name in zip(judged(bundle, data["image"]), ("patch_map", "anomaly_map", "score"), strict=True):
        assert largest(found, data[name]) <= RELATIVE * np.abs(data[name]).max()


def test_options_stand_in_for_the_authors_parameters(authors: Path, resnet18: Path) -> None:
    (authors.parent / "patchcore_params.pkl").unlink()
    told = {"backbone": "resnet18", "layers": ("layer1", "layer2", "layer3"), "pretrain_embed_dim": 100}
    loaded = load(authors, **told, backbone_weights=resnet18, nearest=3)
    assert loaded.network.config.nearest == 3 and any("does not lie beside" in note for note in loaded.notes)
    assert any(
        "pretrain_embed_dim" in note for note in load(authors, backbone="resnet18", backbone_weights=resnet18).notes
    )


def test_our_own_says_all(own: Path, backbone: Path) -> None:
    loaded = load(own, backbone_weights=backbone)
    assert loaded.network.config.layers == ("layer1", "layer2") and loaded.notes == ()
    changed = load(own, backbone_weights=backbone, distance="root", neighbours=2)
    assert (changed.network.config.distance, changed.network.config.neighbours) == ("root", 2)
    with pytest.raises(ConfigError, match="layers: the bank was made with layer1,layer2, got layer2; leave it out"):
        load(own, backbone_weights=backbone, layers=("layer2",))


def test_a_bank_of_other_weights(own: Path, resnet18: Path) -> None:
    """Of the same network, so that every shape fits and every score would be wrong."""
    other = {name: value * 1.01 for name, value in torch.load(resnet18).items()}
    torch.save(other, own.parent / "other.pth")
    with pytest.raises(CheckpointError, match=r"other weights of 'resnet18'.* give --backbone-weights FILE"):
        load(own, backbone_weights=own.parent / "other.pth")


def test_a_bank_of_another_backbone(anomalib: Path, own: Path, backbone: Path, resnet18: Path) -> None:
    data = torch.load(anomalib)
    del data["hyper_parameters"]
    torch.save(data, anomalib)
    with pytest.raises(CheckpointError, match=r"holds another backbone than 'wide_resnet50_2'.* --backbone"):
        load(anomalib)
    with pytest.raises(CheckpointError, match=r"384 numbers .* taps of 'resnet18' give 64 \(layer1\) \+ 128"):
        load(anomalib, backbone="resnet18", layers=("layer1", "layer2"))
    with pytest.raises(ConfigError, match="holds those that its bank was made with"):
        load(anomalib, backbone="resnet18", backbone_weights=resnet18)
    assert load(anomalib, backbone="resnet18").network.config.layers == ("layer2", "layer3")
    said = torch.load(own)
    said["config"]["embed_dim"], said["config"]["embedding"] = 191, "pooled"
    torch.save(said, own)
    with pytest.raises(CheckpointError, match="192 numbers for each entry, its parameters say 191"):
        load(own, backbone_weights=backbone)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(0, 192), "was it ever fitted"),
        (torch.zeros(192), "was it ever fitted"),
        (torch.full((3, 192), torch.nan), "NaN"),
        (torch.zeros(3, 192, dtype=torch.int64), "wanted a dense tensor of numbers"),
        ("bank", "wanted a dense tensor"),
    ],
)
def test_what_is_no_bank(own: Path, backbone: Path, value: Any, said: str) -> None:
    data = torch.load(own)
    data["memory_bank"] = value
    torch.save(data, own)
    with pytest.raises(CheckpointError, match=said):
        load(own, backbone_weights=backbone)


@pytest.mark.parametrize("config", [{"distance": "cosine"}, {"unknown": 1}, {"nearest": 0}, {"layers": 3}, [1]])
def test_what_is_no_configuration(own: Path, backbone: Path, config: Any) -> None:
    data = torch.load(own)
    data["config"] = {**data["config"], **config} if isinstance(config, dict) else config
    torch.save(data, own)
    with pytest.raises(CheckpointError):
        load(own, backbone_weights=backbone)


def test_another_checkpoint_is_refused(tiny_checkpoint: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", str(tiny_checkpoint[0]), "--family", "patchcore", "-o", "never.edgead"]
    assert main(arguments) != 0
    said = capsys.readouterr().err
    assert "no PatchCore checkpoint" in said and "--family glass" in said and "Traceback" not in said


def test_objects_are_never_opened(own: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {"model": Path("anything")}}, own)
    with pytest.raises(CheckpointError, match=r"not opened; where you trust it, write its tensors alone: torch\.save"):
        load(own)


class Executed:
    """A pickle that would run a command."""

    def __reduce__(self) -> Any:
        return print, ("executed",)


@pytest.mark.parametrize("value", [Executed(), Path("x"), np.float32(1), {1, 2}.__class__])
def test_a_pickle_that_names_code(tmp_path: Path, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"patchsize": value}))
    with pytest.raises(CheckpointError, match="names code and is not opened"):
        read_params(tmp_path / "p.pkl")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", pickle.dumps([1]), pickle.dumps({1: 2}), bytes(70_000)])
def test_a_pickle_of_something_else(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.pkl").write_bytes(data)
    with pytest.raises(CheckpointError):
        read_params(tmp_path / "p.pkl")


def test_patches_of_another_size(authors: Path, resnet18: Path) -> None:
    params = authors.parent / "patchcore_params.pkl"
    told = {**read_params(params), "patchsize": 5}
    params.write_bytes(pickle.dumps(told))
    with pytest.raises(CheckpointError, match="patchsize 5; patches of 3 alone"):
        load(authors, backbone_weights=resnet18)


def index_of(bank: np.ndarray, **changes: Any) -> bytes:
    told = {
        "magic": b"IxF2",
        "d": bank.shape[1],
        "n": len(bank),
        "trained": True,
        "metric": 1,
        "count": bank.size,
    } | changes
    header = struct.pack(
        "<4siqqq?iQ",
        told["magic"],
        told["d"],
        told["n"],
        1 << 20,
        1 << 20,
        told["trained"],
        told["metric"],
        told["count"],
    )
    return header + bank.astype("<f4").tobytes()


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_an_index_is_read_as_it_is_written(rows: int, columns: int, seed: int) -> None:
    import tempfile

    bank = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "i.faiss"
        path.write_bytes(index_of(bank))
        assert np.array_equal(read_bank(path).numpy(), bank)


@pytest.mark.parametrize(
    ("changes", "cut", "said"),
    [
        ({"magic": b"IwPQ"}, 0, "kind b'IwPQ', wanted IxF2"),
        ({"metric": 0}, 0, "metric 0"),
        ({"trained": False}, 0, "finished"),
        ({"count": 5}, 0, "damaged"),
        ({"n": -2, "count": 2**64 - 6}, 0, "damaged"),
        ({"n": 2**40, "count": 3 * 2**40}, 0, "truncated or damaged"),
        ({}, 1, "truncated or damaged"),
        ({}, 60, "truncated"),
    ],
)
def test_damaged_indices(tmp_path: Path, changes: Any, cut: int, said: str) -> None:
    data = index_of(np.ones((2, 3)), **changes)
    (tmp_path / "i.faiss").write_bytes(data[: len(data) - cut] if cut else data)
    with pytest.raises(CheckpointError, match=said):
        read_bank(tmp_path / "i.faiss")
    assert HEADER.size == 45  # what faiss 1.9 writes


def test_an_index_of_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "i.faiss").write_bytes(index_of(np.array([[1.0, np.nan]])))
    with pytest.raises(CheckpointError, match="NaN"):
        read_bank(tmp_path / "i.faiss")


def test_a_saved_module_is_no_checkpoint(own: Path, make: Make) -> None:
    buffer = io.BytesIO()
    torch.save({"model": make()}, buffer)
    own.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match=r"pickled module, take the \.ckpt"):
        load(own)
