"""A student's taps: what they are called, what they compute, and what turning them into few numbers keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.models.backbone import Backbone, backbone_faults
from edge_ad.models.patchcore.config import PatchCoreConfig
from edge_ad.models.patchcore.fold import FoldedPatchCore, narrowed
from edge_ad.models.patchcore.network import PatchCore, as_rows
from edge_ad.models.student import NarrowTaps, StudentTap, StudentTrunk, student_tap
from edge_ad.models.weights import backbone_state

NAME = "student:mobilenet_v2"
TAPS = ("features.3@64/4", "features.6@40/8")


@pytest.fixture
def student() -> Backbone:
    torch.manual_seed(3)
    backbone = Backbone(NAME, TAPS).eval().requires_grad_(False)
    for projection in cast("StudentTrunk", backbone.trunk).projections:
        nn.init.normal_(cast("Tensor", projection.bias))
    return backbone


def test_names_say_what_is_imitated_and_come_back() -> None:
    assert student_tap("features.6@256/8") == StudentTap("features.6", 256, 8)
    assert StudentTap("features.6", 256, 8).name == "features.6@256/8"
    assert StudentTap("x", 1, 8).grid((65, 64)) == (9, 8)


@pytest.mark.parametrize("name", ["features.6", "features.6@0/8", "features.6@8/0", "@8/8", "features.6@99999/8"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"LAYER@CHANNELS/STRIDE"):
        student_tap(name)


def test_faults_of_a_student_name_the_layer_and_the_network() -> None:
    assert backbone_faults(NAME, TAPS) == []
    (layer,) = backbone_faults(NAME, ("features.99@8/8",))
    assert "'features.99' is no layer of 'mobilenet_v2'" in layer
    (network,) = backbone_faults("student:mobilenet_v9", TAPS)
    assert network.startswith("backbone:")


@pytest.mark.parametrize(
    ("taps", "words"),
    [
        (("classifier.1@8/8",), "classifier.1 of mobilenet_v2 gives .1, 1000., wanted a map"),
        (tuple(f"features.17@{width}/1" for width in range(16000, 16009)), "at most 8 of a student, got 9"),
    ],
)
def test_taps_that_are_no_maps_or_far_too_many_are_refused(taps: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        StudentTrunk(NAME, taps)


def test_nobody_publishes_weights_of_a_student() -> None:
    with pytest.raises(CheckpointError, match=r"RUN/backbone\.pth"):
        backbone_state(NAME, None)


def test_taps_are_the_projected_layers_on_the_imitated_grid(student: Backbone) -> None:
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    own = Backbone("mobilenet_v2", ("features.3", "features.6")).eval()
    own.trunk.load_state_dict(cast("nn.Module", student.trunk.network).state_dict())
    with torch.no_grad():
        given, layers = student(image), own(image)
    assert [tuple(tap.shape) for tap in given] == [(2, 64, 16, 24), (2, 40, 8, 12)]
    for tap, layer, projection in zip(given, layers, cast("StudentTrunk", student.trunk).projections, strict=True):
        weight = cast("Tensor", projection.weight).double()[:, :, 0, 0].numpy()
        wanted = np.einsum("oc,nchw->nohw", weight, layer.double().numpy())
        wanted += cast("Tensor", projection.bias).double().numpy()[:, None, None]
        np.testing.assert_allclose(tap.numpy(), wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_layer_of_another_resolution_is_brought_to_the_grid() -> None:
    backbone = Backbone(NAME, ("features.6@5/4",)).eval()
    assert backbone.shapes(64, 64) == [(5, 16, 16)]


def test_turned_taps_keep_every_distance_at_the_borders_too(student: Backbone) -> None:
    trunk = cast("StudentTrunk", student.trunk)
    turned = NarrowTaps(trunk)
    assert [basis.shape[1] for basis in turned.bases] == [25, 33]  # 24 and 32 channels, and what is constant
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for wide, narrow in zip(student(image), turned(image), strict=True):
            one, other = (as_rows(avg_pool2d(tap.double(), 3, 1, 1)) for tap in (wide, narrow))
            wanted = torch.cdist(one, one)
            torch.testing.assert_close(torch.cdist(other, other), wanted, rtol=1e-5, atol=1e-5 * float(wanted.max()))


def bank_on(student: Backbone, bank: Tensor | None = None) -> tuple[PatchCore, Tensor]:
    """A detector with a bank of the student's own patches, or another one; and a picture."""
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    config = PatchCoreConfig(NAME, TAPS, embedding="averaged", embed_dim=104)
    network = PatchCore(config)
    network.backbone = student
    network.eval()
    with torch.no_grad():
        network.bank = as_rows(network.embed(image))[::7].clone() if bank is None else bank
    return network, image[:1].flip(3)


def test_a_bank_in_few_numbers_knows_places_as_well(student: Backbone) -> None:
    network, image = bank_on(student)
    network.config = replace(network.config, tile_position=1.0, spread=1.0)
    network.places = torch.rand(len(network.bank), 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        unplaced = network.patch_map(torch.cat([network.embed(image), torch.zeros(1, 2, 16, 16)], dim=1))
        network.lie_on((64, 64), None)
        folded = FoldedPatchCore(network, (64, 64), PostprocessSpec(activation="none"))
        wanted, found = network(image), folded(image)
    assert isinstance(folded.backbone, NarrowTaps)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.max()))
    assert float((unplaced - wanted).abs().max()) > 0.01 * float(wanted.max())


def test_a_bank_of_student_features_is_searched_in_few_numbers(student: Backbone) -> None:
    network, image = bank_on(student)
    folded = FoldedPatchCore(network, (64, 64), PostprocessSpec(activation="none"))
    assert isinstance(folded.backbone, NarrowTaps) and folded.embedding.widths == (25, 33)
    with torch.no_grad():
        wanted, found = network(image), folded(image)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.max()))


def test_a_bank_of_other_features_stays_as_wide_as_it_is(student: Backbone) -> None:
    other = torch.randn(9, 104, generator=torch.Generator().manual_seed(4))
    network, image = bank_on(student, other)
    backbone, bank, channels = narrowed(network, [64, 40])
    assert backbone is student and bank is other and channels == [64, 40]
    folded = FoldedPatchCore(network, (64, 64), PostprocessSpec(activation="none"))
    with torch.no_grad():
        torch.testing.assert_close(folded(image), network(image), rtol=1e-4, atol=1e-3)
