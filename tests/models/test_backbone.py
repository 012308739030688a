"""Backbones: which weights fit, and what a user reads when something does not."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest
import torch
import torchvision

from edge_ad.errors import CheckpointError, ConfigError, MissingExtraError
from edge_ad.models.backbone import Backbone, backbone_faults
from edge_ad.models.networks import network as network_of

TAPS = ("layer1", "layer2")


@pytest.fixture(scope="module")
def full_state() -> dict[str, Any]:
    """Weights of a whole resnet18, classifier included."""
    torch.manual_seed(0)
    state: dict[str, Any] = torchvision.models.resnet18(weights=None).state_dict()
    return state


def features(backbone: Backbone) -> list[torch.Tensor]:
    with torch.no_grad():
        image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
        return list(backbone.eval()(image))


def fault(exc: pytest.ExceptionInfo[ConfigError]) -> str:
    (line,) = exc.value.faults
    assert "\n" not in str(exc.value)
    return line


def test_the_taps_are_those_of_the_whole_network(full_state: dict[str, Any]) -> None:
    network = torchvision.models.resnet18(weights=None).eval()
    network.load_state_dict(full_state)
    backbone = Backbone("resnet18", ("layer2", "layer1"))
    backbone.load_weights(full_state, "w.pth")
    image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stem = network.maxpool(network.relu(network.bn1(network.conv1(image))))
        first = network.layer1(stem)
        second = network.layer2(first)
    # The same kernels on the same numbers: no tolerance.
    assert [torch.equal(a, b) for a, b in zip(features(backbone), (second, first), strict=True)] == [True, True]
    assert backbone.shapes(40, 56) == [(128, 5, 7), (64, 10, 14)]


def test_whole_and_trunk_weights_both_load(full_state: dict[str, Any]) -> None:
    whole, trunk = Backbone("resnet18", TAPS), Backbone("resnet18", TAPS)
    whole.load_weights(full_state, "w.pth")
    kept = {name: value for name, value in full_state.items() if not name.startswith(("layer3", "layer4", "fc"))}
    assert len(kept) < len(full_state)
    trunk.load_weights(kept, "w.pth")
    for a, b in zip(features(whole), features(trunk), strict=True):
        assert torch.equal(a, b)


def test_weights_saved_before_batch_counters_existed_load(full_state: dict[str, Any]) -> None:
    old = {name: value for name, value in full_state.items() if not name.endswith("num_batches_tracked")}
    Backbone("resnet18", TAPS).load_weights(old, "w.pth")


def test_a_wrong_shape_names_tensor_found_and_expected(full_state: dict[str, Any]) -> None:
    state = full_state | {"layer1.0.conv1.weight": torch.zeros(64, 32, 3, 3)}
    with pytest.raises(CheckpointError) as exc:
        Backbone("resnet18", TAPS).load_weights(state, "w.pth")
    for words in ("w.pth", "'layer1.0.conv1.weight'", "(64, 32, 3, 3)", "(64, 64, 3, 3)", "resnet18"):
        assert words in str(exc.value)


def test_a_missing_tensor_is_named(full_state: dict[str, Any]) -> None:
    state = {name: value for name, value in full_state.items() if name != "layer2.0.downsample.0.weight"}
    with pytest.raises(CheckpointError, match=r"'layer2\.0\.downsample\.0\.weight'.*1 of \d+ missing"):
        Backbone("resnet18", TAPS).load_weights(state, "w.pth")


def test_failed_weights_leave_the_backbone_as_it_was(full_state: dict[str, Any]) -> None:
    backbone = Backbone("resnet18", TAPS)
    before = backbone.trunk.conv1.weight.clone()
    with pytest.raises(CheckpointError):
        backbone.load_weights(full_state | {"bn1.weight": torch.zeros(3)}, "w.pth")
    assert torch.equal(backbone.trunk.conv1.weight, before)


@pytest.mark.parametrize("name", ["resnet19", "wide_resnet50", "mobilenetv2"])
def test_an_unknown_backbone_gets_suggestions(name: str) -> None:
    with pytest.raises(ConfigError) as exc:
        Backbone(name, TAPS)
    assert f"{name!r} is no torchvision classifier, did you mean" in fault(exc)


def test_a_nonsense_backbone_gets_no_suggestion() -> None:
    with pytest.raises(ConfigError) as exc:
        Backbone("§§§", TAPS)
    assert "did you mean" not in fault(exc)
    assert "timm:<name>" in fault(exc)


def test_unknown_timm_network() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError) as exc:
        Backbone("timm:resnet181", TAPS)
    assert "no timm network, did you mean resnet18" in fault(exc)


def test_every_unknown_tap_is_reported() -> None:
    with pytest.raises(ConfigError) as exc:
        Backbone("resnet18", ("layer22", "layer1", "lyer3", ""))
    assert [line.split(" is ")[0] for line in exc.value.faults] == ["'layer22'", "'lyer3'", "''"]
    assert "did you mean layer2" in exc.value.faults[0]


def test_an_image_too_small_is_one_line() -> None:
    with pytest.raises(ConfigError) as exc:
        Backbone("alexnet", ("features.2",)).shapes(8, 8)
    assert "8x8 is too small or unsuited for backbone 'alexnet'" in fault(exc)


def test_a_size_that_the_network_asserts_on_is_one_line() -> None:
    backbone = Backbone("vit_b_32", ("encoder.layers.encoder_layer_0",))
    with pytest.raises(ConfigError) as exc:
        backbone.shapes(64, 64)
    assert "64x64 is too small or unsuited for backbone 'vit_b_32'" in fault(exc)


def test_a_failing_trace_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    class Inner(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.reshape(image.shape[0], 3, 7, -1, 7)

    backbone = Backbone("resnet18", ("conv1",))
    backbone.trunk = torch.fx.symbolic_trace(Inner())
    with pytest.raises(ConfigError):
        backbone.shapes(64, 64)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "tap", "side", "shape"),
    [
        ("vit_b_32", "encoder.layers.encoder_layer_0", 224, (1, 50, 768)),
        ("resnet18", "fc", 64, (1, 1000)),
        (
            "swin_t",
            "features.1",
            64,
            (1, 16, 16, 96),
        ),  # rows, columns, channels: would be misread, not refused by torch
    ],
)
def test_taps_that_are_no_maps_are_refused(name: str, tap: str, side: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as exc:
        Backbone(name, (tap,)).shapes(side, side)
    assert fault(exc) == f"tap {tap!r} of {name!r} gives features {shape}, wanted (N, channels, h, w)"


def test_measuring_shapes_keeps_the_mode() -> None:
    backbone = Backbone("resnet18", TAPS).train()
    counter = backbone.trunk.bn1.num_batches_tracked.clone()
    backbone.shapes(32, 32)
    assert backbone.training
    assert torch.equal(backbone.trunk.bn1.num_batches_tracked, counter)


def test_networks_with_a_train_mode_of_their_own_warn_about_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Backbone("googlenet", ("inception3a",)).shapes(64, 64) == [(256, 8, 8)]


def test_without_torchvision_a_timm_network_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    assert Backbone("timm:resnet18", TAPS).taps == TAPS  # control: with torchvision it is cut
    monkeypatch.setitem(sys.modules, "torchvision.models.feature_extraction", None)
    with pytest.raises(MissingExtraError, match=r"'torchvision'.*pip install 'edge-ad\[timm\]'"):
        Backbone("timm:resnet18", TAPS)


def test_faults_are_found_without_memory_for_weights() -> None:
    (line,) = backbone_faults("resnet152", ("layer1", "layer9"))
    assert line.startswith("layers: 'layer9' is no layer of 'resnet152', did you mean layer")
    assert backbone_faults("resnet152", ("layer1",)) == []


def test_paddings_that_depend_on_sizes_are_cut_around() -> None:
    """Networks of timm that come from TensorFlow pad by the size of what they get."""
    pytest.importorskip("timm")
    torch.manual_seed(0)
    whole = network_of("timm:tf_efficientnet_lite0").eval()
    backbone = Backbone("timm:tf_efficientnet_lite0", ("blocks.1",)).eval()
    backbone.load_weights(whole.state_dict(), "itself")
    image = torch.randn(1, 3, 70, 64)
    with torch.no_grad():
        wanted = image
        for part in (whole.conv_stem, whole.bn1, whole.blocks[0], whole.blocks[1]):  # type: ignore[index]
            wanted = part(wanted)  # type: ignore[operator]
        assert torch.equal(backbone(image)[0], wanted)
