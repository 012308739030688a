"""What a student is measured by and where its projections begin, against NumPy in float64; and what it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_ad.errors import ConfigError
from edge_ad.models.backbone import Backbone
from edge_ad.models.distillation.imitation import RIDGE, Scale, fit_projections, losses, measured
from edge_ad.models.distillation.layers import student_taps
from edge_ad.models.distillation.lessons import changed
from edge_ad.models.student import StudentTrunk

TAP = "features.3@7/4"


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_scales_are_mean_and_deviation_over_all_pictures() -> None:
    taps = [drawn(0, 2, 5, 4, 3) * 3 + 1, drawn(1, 1, 5, 4, 3)]
    (scale,) = measured([[tap] for tap in taps])
    every = torch.cat(taps).double().numpy()
    np.testing.assert_allclose(scale.mean.numpy()[:, 0, 0], every.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scale.std.numpy()[:, 0, 0], every.std((0, 2, 3)), rtol=1e-5)


def test_the_loss_is_the_share_of_variance_that_is_missed() -> None:
    student = Backbone("student:mobilenet_v2", (TAP,)).eval()
    image, wanted = drawn(2, 2, 3, 64, 64), drawn(3, 2, 7, 16, 16)
    scale = Scale(drawn(4, 7, 1, 1), drawn(5, 7, 1, 1).abs() + 0.5)
    with torch.no_grad():
        (found,), (given,) = losses(student, image, [wanted], [scale]), student(image)
    difference = (given.double() - wanted.double()).numpy() / scale.std.double().numpy()
    assert float(found) == pytest.approx(np.square(difference).mean(), rel=1e-5)


def test_projections_begin_at_the_least_squares_of_numpy() -> None:
    torch.manual_seed(0)
    student = Backbone("student:mobilenet_v2", (TAP,)).eval()
    trunk = cast("StudentTrunk", student.trunk)
    lessons = [(drawn(seed, 3, 3, 64, 64), [drawn(seed + 10, 3, 7, 16, 16)]) for seed in (6, 7)]
    scale = Scale(drawn(8, 7, 1, 1), drawn(9, 7, 1, 1).abs() + 0.5)
    fit_projections(student, iter(lessons), [scale])
    with torch.no_grad():
        own = [trunk.own_features(image)[0].double().numpy() for image, _ in lessons]
    rows = np.concatenate([part.transpose(0, 2, 3, 1).reshape(-1, 24) for part in own])
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    std, mean = scale.std.double().numpy().ravel(), scale.mean.double().numpy().ravel()
    wanted = np.concatenate([taps[0].double().numpy().transpose(0, 2, 3, 1).reshape(-1, 7) for _, taps in lessons])
    ridge = RIDGE * np.square(rows).sum(0).mean()
    heavy = np.vstack([rows, np.sqrt(ridge) * np.eye(25)])  # the ridge as rows of its own
    solved = np.linalg.lstsq(heavy, np.vstack([(wanted - mean) / std, np.zeros((25, 7))]), rcond=None)[0]
    projection = cast("nn.Conv2d", trunk.projections[0])
    np.testing.assert_allclose(projection.weight.detach().numpy()[:, :, 0, 0], (solved[:-1] * std).T, atol=1e-5)
    np.testing.assert_allclose(cast("Tensor", projection.bias).detach().numpy(), solved[-1] * std + mean, atol=1e-5)


@dataclass
class Told:
    smallest_crop: float


def test_pictures_are_mirrored_in_four_ways_and_nothing_else_where_no_part_is_taken() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    mirrored = {image[::down, ::across].tobytes() for down in (1, -1) for across in (1, -1)}
    told: Any = Told(1.0)
    found = {changed(image, told, np.random.default_rng(seed)).tobytes() for seed in range(40)}
    assert found == mirrored


def test_parts_are_brought_back_to_the_size() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    told: Any = Told(0.5)
    part = changed(image, told, np.random.default_rng(1))
    assert part.shape == image.shape and part.dtype == np.uint8 and part.flags.c_contiguous
    assert not any(np.array_equal(part, image[::a, ::b]) for a in (1, -1) for b in (1, -1))


def test_layers_are_those_of_the_teachers_strides_where_they_are_known() -> None:
    shapes = [(256, 32, 32), (512, 16, 16)]
    assert student_taps("mobilenet_v2", None, shapes, (256, 256)) == ("features.6@256/8", "features.13@512/16")
    assert student_taps("x", ("a", "b"), shapes, (256, 256)) == ("a@256/8", "b@512/16")


@pytest.mark.parametrize(
    ("backbone", "layers", "shapes", "said"),
    [
        ("resnet18", None, [(8, 32, 32)], "give --layers"),
        ("mobilenet_v2", ("features.6",), [(8, 32, 32), (9, 16, 16)], "the teacher has 2 taps"),
        ("mobilenet_v2", None, [(8, 32, 32), (8, 32, 32)], "two taps of one shape"),
        ("mobilenet_v2", None, [(8, 30, 32)], "no whole stride"),
    ],
)
def test_layers_that_do_not_go_with_the_teacher_are_refused(
    backbone: str, layers: tuple[str, ...] | None, shapes: list[tuple[int, int, int]], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        student_taps(backbone, layers, shapes, (256, 256))
