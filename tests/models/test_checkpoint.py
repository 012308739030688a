"""Official checkpoints: sizes are read, and whatever is wrong with a file is one line that says what."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_ad.errors import CheckpointError
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.glass.checkpoint import load_glass
from edge_ad.models.glass.network import Glass
from edge_ad.models.patch_head.network import Adaptor, Discriminator
from edge_ad.models.patch_head.options import HeadOptions
from edge_ad.models.state import state_of
from edge_ad.models.weights import read_tensors

Save = Callable[..., Path]


@pytest.fixture
def data(tiny_checkpoint: tuple[Path, Path]) -> dict[str, dict[str, Any]]:
    """Content of the small checkpoint, to be changed at will."""
    content: dict[str, dict[str, Any]] = torch.load(tiny_checkpoint[0], weights_only=True)
    return {part: dict(state) for part, state in content.items()}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "changed.pth")
        return tmp_path / "changed.pth"

    return write


def load(checkpoint: Path, tiny_checkpoint: tuple[Path, Path], **options: Any) -> LoadedNetwork[Any]:
    given = {"backbone": "resnet18", "layers": ("layer1", "layer2"), "backbone_weights": tiny_checkpoint[1]} | options
    return load_glass(checkpoint, HeadOptions(**given))


def message(checkpoint: Path, tiny_checkpoint: tuple[Path, Path], **options: Any) -> str:
    with pytest.raises(CheckpointError) as exc:
        load(checkpoint, tiny_checkpoint, **options)
    assert "\n" not in str(exc.value)
    return str(exc.value)


def test_sizes_are_read_from_the_checkpoint(tiny_checkpoint: tuple[Path, Path]) -> None:
    loaded = load(tiny_checkpoint[0], tiny_checkpoint)
    config = loaded.network.config
    assert (config.embed_dim, config.hidden_dim, config.adaptor_layers, config.discriminator_layers) == (48, 32, 1, 2)
    assert config.pretrain_embed_dim == 48
    assert any("pretrain_embed_dim" in note and "48" in note for note in loaded.notes)
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    assert len(loaded.checkpoint_sha256) == 64


def test_what_is_given_is_not_noted(tiny_checkpoint: tuple[Path, Path]) -> None:
    loaded = load(tiny_checkpoint[0], tiny_checkpoint, pretrain_embed_dim=40)
    assert loaded.network.config.pretrain_embed_dim == 40
    assert loaded.notes == ()


def test_every_weight_of_the_file_arrives(tiny_checkpoint: tuple[Path, Path], data: dict[str, dict[str, Any]]) -> None:
    network = load(tiny_checkpoint[0], tiny_checkpoint).network
    for part, module in (("discriminator", network.discriminator), ("pre_projection", network.adaptor)):
        state = module.state_dict()
        assert state.keys() == data[part].keys()
        assert all(torch.equal(state[key], value) for key, value in data[part].items())


@pytest.mark.parametrize(("adaptor_layers", "discriminator_layers"), [(0, 2), (2, 2), (1, 3)])
def test_depths_are_read_from_the_checkpoint(
    tiny_checkpoint: tuple[Path, Path], save: Save, adaptor_layers: int, discriminator_layers: int
) -> None:
    content = {"discriminator": Discriminator(20, 12, discriminator_layers).state_dict()}
    if adaptor_layers:
        content["pre_projection"] = Adaptor(20, adaptor_layers).state_dict()
    config = load(save(content), tiny_checkpoint).network.config
    assert (config.embed_dim, config.hidden_dim) == (20, 12)
    assert (config.adaptor_layers, config.discriminator_layers) == (adaptor_layers, discriminator_layers)


@pytest.mark.parametrize(
    ("option", "value", "tensor", "found", "expected"),
    [
        ("embed_dim", 64, "discriminator.body.block1.0.weight", "(32, 48)", "(32, 64)"),
        ("hidden_dim", 16, "discriminator.body.block1.0.weight", "(32, 48)", "(16, 48)"),
    ],
)
def test_a_wrong_size_names_tensor_found_and_expected(
    tiny_checkpoint: tuple[Path, Path], option: str, value: int, tensor: str, found: str, expected: str
) -> None:
    text = message(tiny_checkpoint[0], tiny_checkpoint, **{option: value})
    for words in (f"'{tensor}'", f"has shape {found}", f"expects {expected}"):
        assert words in text


def test_a_width_that_only_the_first_layer_has_costs_no_memory(
    tiny_checkpoint: tuple[Path, Path],
    save: Save,
    data: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Glass, "__init__", lambda *_: pytest.fail("a network was made"))
    data["discriminator"]["body.block1.0.weight"] = torch.zeros(32, 16_000)  # an adaptor of 1 GB
    assert "'pre_projection.layers.0fc.weight' has shape (48, 48), the configuration expects (16000, 16000)" in message(
        save(data), tiny_checkpoint
    )


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1)])
def test_a_head_wider_than_any(tiny_checkpoint: tuple[Path, Path], save: Save, shape: tuple[int, int]) -> None:
    """Without an adaptor there is nothing that a claim of the first layer could contradict."""
    head = {"body.block1.0.weight": torch.zeros(shape), "tail.0.weight": torch.zeros(1, shape[0])}
    text = message(save({"discriminator": head}), tiny_checkpoint)
    assert f"has shape {shape}, no side of it may have more than 16384" in text


def test_a_shape_that_the_file_does_not_hold(
    tiny_checkpoint: tuple[Path, Path], save: Save, data: dict[str, dict[str, Any]]
) -> None:
    for claim in (torch.zeros(1).expand(10**6, 10**6), torch.empty(10**6, 10**6, device="meta")):
        data["discriminator"]["body.block1.0.weight"] = claim
        assert "is said to have shape (1000000, 1000000)" in message(save(data), tiny_checkpoint)


class Hostile:
    """A pickle that would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("write", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
@pytest.mark.parametrize("nested", [True, False])
def test_code_in_a_pickle_is_never_run(
    tmp_path: Path, tiny_checkpoint: tuple[Path, Path], write: Callable[[Any, Path], None], nested: bool
) -> None:
    marker = tmp_path / "executed"
    file = tmp_path / "hostile.pth"
    write({"discriminator": Hostile(marker)} if nested else Hostile(marker), file)
    assert "holds more than plain tensors and is not opened" in message(file, tiny_checkpoint)
    assert not marker.exists()
    # The trap is armed: whoever unpickles it without care does run it.
    if nested and write is not torch.save:
        pickle.loads(file.read_bytes())
        assert marker.exists()


def test_the_same_holds_for_backbone_weights(tmp_path: Path, tiny_checkpoint: tuple[Path, Path]) -> None:
    file = tmp_path / "hostile.pth"
    torch.save(Hostile(tmp_path / "executed"), file)
    text = message(tiny_checkpoint[0], tiny_checkpoint, backbone_weights=file)
    assert f"backbone weights {file}" in text
    assert not (tmp_path / "executed").exists()


def test_missing_file(tmp_path: Path, tiny_checkpoint: tuple[Path, Path]) -> None:
    file = tmp_path / "nothing.pth"
    assert message(file, tiny_checkpoint) == f"checkpoint {file}: no such file"
    assert (
        message(tiny_checkpoint[0], tiny_checkpoint, backbone_weights=file) == f"backbone weights {file}: no such file"
    )


def test_both_files_are_missing(tmp_path: Path, tiny_checkpoint: tuple[Path, Path]) -> None:
    first, second = tmp_path / "a.pth", tmp_path / "b.pth"
    text = message(first, tiny_checkpoint, backbone_weights=second)
    assert text == f"checkpoint {first}: no such file; backbone weights {second}: no such file"


def test_a_name_too_long_for_the_system_is_no_file(tiny_checkpoint: tuple[Path, Path]) -> None:
    assert message(Path("a" * 5000), tiny_checkpoint).endswith(": no such file")


def test_directory(tmp_path: Path, tiny_checkpoint: tuple[Path, Path]) -> None:
    assert message(tmp_path, tiny_checkpoint) == f"checkpoint {tmp_path}: is no file"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, tiny_checkpoint: tuple[Path, Path], share: float) -> None:
    whole = tiny_checkpoint[0].read_bytes()
    file = tmp_path / "cut.pth"
    file.write_bytes(whole[: int(len(whole) * share)])
    assert f"checkpoint {file}: truncated, or no file saved by torch" in message(file, tiny_checkpoint)


@pytest.mark.parametrize("content", [b"hello\n" * 99, b'{"discriminator": 1}', b"\0" * 4096, b"\x89PNG\r\n\x1a\n"])
def test_a_file_of_another_kind(tmp_path: Path, tiny_checkpoint: tuple[Path, Path], content: bytes) -> None:
    file = tmp_path / "other.pth"
    file.write_bytes(content)
    assert "truncated, or no file saved by torch" in message(file, tiny_checkpoint)


def test_a_list(tiny_checkpoint: tuple[Path, Path], save: Save) -> None:
    assert "wanted a dictionary of tensors, got a list" in message(save([torch.zeros(1)]), tiny_checkpoint)


def test_a_single_tensor(tiny_checkpoint: tuple[Path, Path], save: Save) -> None:
    assert "wanted a dictionary of tensors, got a Tensor" in message(save(torch.zeros(1)), tiny_checkpoint)


@pytest.mark.parametrize(
    "content", [{}, {"state_dict": {}}, {"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}]
)
def test_a_checkpoint_of_another_architecture(
    tiny_checkpoint: tuple[Path, Path], save: Save, content: dict[str, Any]
) -> None:
    text = message(save(content), tiny_checkpoint)
    assert "no GLASS checkpoint, it holds" in text
    assert all(repr(key) in text for key in content)
    assert "'discriminator' and 'pre_projection'" in text


def test_backbone_weights_as_checkpoint(tiny_checkpoint: tuple[Path, Path]) -> None:
    assert "no GLASS checkpoint" in message(tiny_checkpoint[1], tiny_checkpoint)


def test_checkpoint_as_backbone_weights(tiny_checkpoint: tuple[Path, Path]) -> None:
    text = message(tiny_checkpoint[0], tiny_checkpoint, backbone_weights=tiny_checkpoint[0])
    assert "'discriminator' is a" in text


def test_weights_of_another_backbone(tiny_checkpoint: tuple[Path, Path]) -> None:
    text = message(tiny_checkpoint[0], tiny_checkpoint, backbone="mobilenet_v2", layers=("features.3",))
    assert "of backbone 'mobilenet_v2' is not in the file" in text


def test_a_discriminator_of_another_kind(
    tiny_checkpoint: tuple[Path, Path], save: Save, data: dict[str, dict[str, Any]]
) -> None:
    del data["discriminator"]["body.block1.0.weight"]
    text = message(save(data), tiny_checkpoint)
    assert "no GLASS checkpoint, tensor 'discriminator.body.block1.0.weight' is missing" in text


@pytest.mark.parametrize("part", ["discriminator", "pre_projection"])
@pytest.mark.parametrize("value", [torch.zeros(3), [1, 2], "text", None])
def test_a_part_that_is_no_dictionary(
    tiny_checkpoint: tuple[Path, Path], save: Save, data: dict[str, dict[str, Any]], part: str, value: Any
) -> None:
    assert f"{part}: wanted a dictionary of tensors" in message(save(data | {part: value}), tiny_checkpoint)


@pytest.mark.parametrize("name", ["layers.0fc.weight", "layers.0fc.bias"])
def test_missing_adaptor_tensors(
    tiny_checkpoint: tuple[Path, Path], save: Save, data: dict[str, dict[str, Any]], name: str
) -> None:
    del data["pre_projection"][name]
    text = message(save(data), tiny_checkpoint)
    assert "pre_projection.layers.0fc." in text
    assert text.endswith("this is another architecture")


@pytest.mark.parametrize("part", ["discriminator", "pre_projection"])
def test_surplus_tensors(
    tiny_checkpoint: tuple[Path, Path], save: Save, data: dict[str, dict[str, Any]], part: str
) -> None:
    data[part]["surprise"] = torch.zeros(2)
    assert f"tensor '{part}.surprise' is not known" in message(save(data), tiny_checkpoint)


@pytest.mark.parametrize("part", ["discriminator", "pre_projection"])
def test_a_key_that_is_no_name(
    tiny_checkpoint: tuple[Path, Path], save: Save, data: dict[str, dict[str, Any]], part: str
) -> None:
    changed: dict[Any, Any] = {**data[part], 7: torch.zeros(2)}
    assert f"{part}: 7 is" in message(save(data | {part: changed}), tiny_checkpoint)


def test_a_value_that_is_no_tensor(
    tiny_checkpoint: tuple[Path, Path], save: Save, data: dict[str, dict[str, Any]]
) -> None:
    data["discriminator"]["tail.0.weight"] = 3.0
    assert "'tail.0.weight' is a float, wanted a tensor" in message(save(data), tiny_checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("part", "name"), [("discriminator", "body.block1.1.running_var"), ("pre_projection", "layers.0fc.weight")]
)
def test_weights_that_are_no_numbers(
    tiny_checkpoint: tuple[Path, Path],
    save: Save,
    data: dict[str, dict[str, Any]],
    part: str,
    name: str,
    value: float,
) -> None:
    data[part][name].view(-1)[3] = value
    text = message(save(data), tiny_checkpoint)
    assert f"{part}: tensor {name!r} holds NaN or infinity" in text


def test_backbone_weights_that_are_no_numbers(tmp_path: Path, tiny_checkpoint: tuple[Path, Path]) -> None:
    state = dict(read_tensors(tiny_checkpoint[1], "weights"))
    state["conv1.weight"] = state["conv1.weight"] * float("nan")
    torch.save(state, tmp_path / "nan.pth")
    text = message(tiny_checkpoint[0], tiny_checkpoint, backbone_weights=tmp_path / "nan.pth")
    assert "tensor 'conv1.weight' holds NaN" in text


def test_a_sparse_tensor_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'w' is torch\.sparse_coo, wanted a dense one"):
        state_of({"w": torch.eye(2).to_sparse()}, "x")
