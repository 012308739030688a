"""The folded form is the published network, rearranged.

Tolerances: in float64 the two differ by rounding alone, below 1e-10 of the largest logit (float32 would show 1e-7).
The module as exported keeps float32 weights and computes in float32: 3e-5 of the largest logit, the rounding of sums
over a few thousand products, where a mistake of the algebra shows at 1e-2 and above.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edge_ad.models.backbone import Backbone
from edge_ad.models.glass.network import Glass
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.fold import (
    FoldedHead,
    TapHead,
    adaptive_pool_matrix,
    fold_head,
    head_convolutions,
    pooling_groups,
)
from edge_ad.models.patch_head.network import LEAKY_SLOPE, Adaptor, Discriminator

FLOAT32_RTOL = 3e-5
FLOAT64_RTOL = 1e-10
Draw = Callable[[Any], dict[str, Any]]


@pytest.fixture(scope="module")
def draw(deterministic_state: Draw) -> Draw:
    """`deterministic_state` that draws a tensor of one name and shape once."""
    memo: dict[tuple[str, torch.Size], Tensor] = {}

    def remembered(state: dict[str, Tensor]) -> dict[str, Tensor]:
        new = {name: value for name, value in state.items() if (name, value.shape) not in memo}
        memo.update({(name, value.shape): value for name, value in deterministic_state(new).items()})
        return {name: memo[name, value.shape] for name, value in state.items()}

    return remembered


class StubBackbone(Backbone):
    """One convolution per tap, with a stride of its own, in place of a deep network."""

    def __init__(self, channels: list[int], strides: list[int]) -> None:
        nn.Module.__init__(self)
        self.name = "stub"
        self.taps = tuple(f"tap{index}" for index in range(len(channels)))
        self.trunk = nn.ModuleList(
            nn.Conv2d(3, width, 3, stride=stride, padding=1) for width, stride in zip(channels, strides, strict=True)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        return [tap(image) for tap in cast(nn.ModuleList, self.trunk)]


class StubGlass(Glass):
    """GLASS on a StubBackbone."""

    def __init__(self, config: HeadConfig, channels: list[int], strides: list[int]) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.backbone = StubBackbone(channels, strides)
        self.adaptor = Adaptor(config.embed_dim, config.adaptor_layers)
        self.discriminator = Discriminator(config.embed_dim, config.hidden_dim, config.discriminator_layers)


def seasoned(model: Glass, draw: Draw) -> Glass:
    """Deterministic weights, BatchNorm statistics included, so that no term of the fold is trivially 0 or 1."""
    for part in (model.backbone.trunk, model.adaptor, model.discriminator):
        part.load_state_dict(draw(part.state_dict()))
    return model.eval().requires_grad_(False)


def noise(size_hw: tuple[int, int], batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, *size_hw, generator=torch.Generator().manual_seed(0))


def folded_in_float64(model: Glass, image: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the network and of its fold, both with float64 arithmetic and unrounded folded weights."""
    size_hw = (int(image.shape[2]), int(image.shape[3]))
    shapes = model.backbone.shapes(*size_hw)
    heads, bias = fold_head(model, [channels for channels, _, _ in shapes])
    model.double()
    try:
        features = model.backbone(image.double())
        hidden = bias[:, None, None]
        for head, feature in zip(heads, features, strict=True):
            kernel = (head.mix @ head.pool).reshape(len(head.mix), head.channels, 3, 3)
            part = F.conv2d(feature, kernel, padding=1)
            hidden = hidden + F.interpolate(part, size=shapes[0][1:], mode="bilinear", align_corners=False)
        hidden = F.leaky_relu(hidden, LEAKY_SLOPE).permute(0, 2, 3, 1)
        rows = hidden.flatten(0, 2)
        for block in list(model.discriminator.body)[1:]:
            rows = block(rows)
        folded = model.discriminator.tail(rows).view(hidden.shape[:3])
        return model(image.double()), folded
    finally:
        model.float()


def relative_difference(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    assert bool(torch.isfinite(wanted).all())
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))


def assert_same(model: Glass, size_hw: tuple[int, int], batch: int = 1) -> None:
    image = noise(size_hw, batch)
    with torch.no_grad():
        wanted = model(image)
        folded = FoldedHead(model, size_hw).eval()
        assert float(wanted.std()) > 1e-6, "a constant map would compare nothing"
        assert relative_difference(folded(image), wanted) <= FLOAT32_RTOL
        assert relative_difference(*folded_in_float64(model, image)) <= FLOAT64_RTOL


@pytest.mark.parametrize(
    ("pretrain", "embed"),
    [
        pytest.param(100, 100, id="no-divisor"),
        pytest.param(97, 97, id="prime"),
        pytest.param(51, 51, id="odd"),
        pytest.param(97, 51, id="pretrain-larger"),
        pytest.param(51, 97, id="embed-larger"),
        pytest.param(64, 300, id="embed-above-both-pools"),
        pytest.param(700, 2000, id="embed-above-channels-times-nine"),
        pytest.param(1, 1, id="one"),
        pytest.param(64, 64, id="divides"),
    ],
)
def test_embedding_sizes(draw: Draw, pretrain: int, embed: int) -> None:
    config = HeadConfig("stub", ("a", "b"), pretrain, embed, 24)
    assert_same(seasoned(StubGlass(config, [16, 36], [4, 8]), draw), (32, 40), batch=2)


@pytest.mark.parametrize(
    ("layers", "size_hw"),
    [
        pytest.param(("layer1", "layer2", "layer3"), (64, 64), id="three-taps"),
        pytest.param(("layer2",), (64, 64), id="one-tap"),
        pytest.param(("layer3", "layer1"), (64, 96), id="later-tap-finer"),
        pytest.param(("layer2", "layer4", "layer1"), (65, 101), id="odd-order-odd-size"),
        pytest.param(("layer2", "layer3"), (70, 94), id="70x94"),
        pytest.param(("layer2", "layer3"), (65, 101), id="65x101"),
        pytest.param(("layer1", "layer3"), (96, 33), id="portrait"),
    ],
)
def test_taps_and_image_sizes(draw: Draw, layers: tuple[str, ...], size_hw: tuple[int, int]) -> None:
    assert_same(seasoned(Glass(HeadConfig("resnet18", layers, 97, 75, 40)), draw), size_hw)


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        ("mobilenet_v2", ("features.6", "features.13")),
        ("wide_resnet50_2", ("layer2", "layer3")),
        ("shufflenet_v2_x1_0", ("stage2", "stage3")),
        ("efficientnet_b0", ("features.3", "features.5")),
        ("timm:resnet18", ("layer2", "layer3")),
    ],
)
def test_backbones(draw: Draw, backbone: str, layers: tuple[str, ...]) -> None:
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    model = seasoned(Glass(HeadConfig(backbone, layers, 128, 128, 32)), draw)
    image = noise((64, 64))
    with torch.no_grad():  # float64 depthwise convolutions take torch seconds, and add nothing to the other tests
        assert relative_difference(FoldedHead(model, (64, 64)).eval()(image), model(image)) <= FLOAT32_RTOL


@pytest.mark.parametrize(("adaptor_layers", "discriminator_layers"), [(0, 2), (2, 2), (1, 3), (0, 4), (3, 3)])
def test_depth_of_the_head(draw: Draw, adaptor_layers: int, discriminator_layers: int) -> None:
    config = HeadConfig("stub", ("a", "b"), 48, 40, 24, adaptor_layers, discriminator_layers)
    assert_same(seasoned(StubGlass(config, [16, 24], [4, 8]), draw), (36, 28), batch=2)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    taps=st.lists(st.tuples(st.integers(1, 14), st.sampled_from([1, 2, 3, 4])), min_size=1, max_size=3),
    pretrain=st.integers(1, 100),
    embed=st.integers(1, 100),
    hidden=st.integers(1, 9),
    size_hw=st.tuples(st.integers(9, 21), st.integers(9, 21)),
)
def test_any_head(
    draw: Draw,
    taps: list[tuple[int, int]],
    pretrain: int,
    embed: int,
    hidden: int,
    size_hw: tuple[int, int],
) -> None:
    config = HeadConfig("stub", tuple("abc"[: len(taps)]), pretrain, embed, hidden)
    model = StubGlass(config, [channels for channels, _ in taps], [stride for _, stride in taps])
    seasoned(model, draw)
    image = noise(size_hw)
    with torch.no_grad():
        wanted, got = model(image), FoldedHead(model, size_hw).eval()(image)
        # Against the size of the hidden layer's share too: a logit may be the small difference of large terms.
        assert float((got - wanted).abs().max()) <= FLOAT32_RTOL * max(1.0, float(wanted.abs().max()))
        assert relative_difference(*folded_in_float64(model, image)) <= 1e3 * FLOAT64_RTOL


def test_a_changed_weight_is_noticed(draw: Draw) -> None:
    config = HeadConfig("stub", ("a", "b"), 48, 40, 24)
    model = seasoned(StubGlass(config, [16, 24], [4, 8]), draw)
    image = noise((32, 32))
    for name, _ in FoldedHead(model, (32, 32)).named_parameters():
        if name.startswith("backbone."):
            continue
        folded = FoldedHead(model, (32, 32)).eval()
        parameter = dict(folded.named_parameters())[name]
        with torch.no_grad():
            parameter.view(-1)[0] += 0.1
            assert relative_difference(folded(image), model(image)) > FLOAT32_RTOL, name


def test_the_fold_leaves_the_network_as_it_was(draw: Draw) -> None:
    config = HeadConfig("stub", ("a", "b"), 48, 40, 24)
    model = seasoned(StubGlass(config, [16, 24], [4, 8]), draw)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    FoldedHead(model, (32, 32))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("n_in", "n_out"), [(9, 4), (9, 9), (4, 9), (144, 97), (1, 3), (7, 1)])
def test_pool_matrix_is_adaptive_average_pooling(n_in: int, n_out: int) -> None:
    vector = torch.randn(3, 1, n_in, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = F.adaptive_avg_pool1d(vector, n_out)
    assert torch.allclose(vector @ adaptive_pool_matrix(n_in, n_out).T, wanted, rtol=0, atol=1e-14)


HEADS = [
    ([32, 96], 512, 512),
    ([128, 256], 1536, 1536),
    ([128, 256], 384, 384),
    ([128, 256], 96, 96),
    ([48, 60], 36, 24),
    ([30, 42], 70, 140),
    ([16, 24, 32], 100, 97),
    ([7, 13], 51, 51),
    ([64], 64, 64),
    ([24, 24], 400, 300),
]


@pytest.mark.parametrize(("channels", "pretrain", "embed"), HEADS)
def test_grouped_pooling_is_the_dense_pooling(channels: list[int], pretrain: int, embed: int) -> None:
    for head in stub_heads(channels, pretrain, embed):
        groups = pooling_groups(head.pool, head.channels)
        assert len(head.pool) % groups == 0
        assert head.channels % groups == 0
        # A very wide hidden layer makes the factored form the cheaper one, wherever it can be at all.
        layers = head_convolutions(TapHead(head.pool, torch.zeros(1, 1).expand(20_000, len(head.pool))))
        if len(layers) == 1:
            assert len(head.pool) >= head.channels * 9 - 1
            continue
        pooling = cast(nn.Conv2d, layers[0])
        assert pooling.groups == groups
        dense = torch.zeros(len(head.pool), head.channels, 3, 3)
        per_group, rows = head.channels // groups, len(head.pool) // groups
        for row in range(len(head.pool)):
            first = row // rows * per_group
            dense[row, first : first + per_group] = pooling.weight[row]
        assert torch.equal(dense.flatten(1), head.pool.float())


def test_the_authors_sizes_are_grouped() -> None:
    """The speed of the exported graph rests on this: a dense pooling would cost as much as the backbone."""
    second, third = stub_heads([512, 1024], 1536, 1536)
    assert pooling_groups(second.pool, second.channels) >= 256
    assert pooling_groups(third.pool, third.channels) >= 256


def test_a_pooling_that_mixes_all_channels_has_one_group() -> None:
    assert pooling_groups(torch.ones(8, 8 * 9, dtype=torch.float64), 8) == 1


def test_the_cheaper_of_the_two_forms_is_taken() -> None:
    pool = adaptive_pool_matrix(16 * 9, 16)
    factored = head_convolutions(TapHead(pool, torch.ones(64, 16, dtype=torch.float64)))
    assert [cast(nn.Conv2d, layer).groups for layer in factored] == [16, 1]
    for dense_pool, hidden in ((pool, 1), (adaptive_pool_matrix(16 * 9, 200), 8)):
        (dense,) = head_convolutions(TapHead(dense_pool, torch.ones(hidden, len(dense_pool), dtype=torch.float64)))
        assert cast(nn.Conv2d, dense).weight.shape == (hidden, 16, 3, 3)


def stub_heads(channels: list[int], pretrain: int, embed: int) -> list[TapHead]:
    taps = tuple(f"tap{index}" for index in range(len(channels)))
    model = SimpleNamespace(
        config=HeadConfig("stub", taps, pretrain, embed, 4),
        adaptor=Adaptor(embed, 0),
        discriminator=Discriminator(embed, 4, 2).eval().requires_grad_(False),
    )
    return fold_head(cast(Glass, model), channels)[0]
