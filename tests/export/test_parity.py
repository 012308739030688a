"""The check after the export: it passes what is the same, stops what is not, and then leaves nothing on disk.

Its tolerance, 2e-5 of a probability, is the project's; the figures of a sound export are below 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge_ad.bundle.bundle import Bundle
from edge_ad.errors import BundleError, ExportError, OutputError
from edge_ad.export import to_bundle
from edge_ad.export.options import export_options
from edge_ad.export.parity import TOLERANCE, probe_images
from edge_ad.export.to_bundle import export_bundle
from edge_ad.openvino_core import openvino_core

pytestmark = pytest.mark.rung(1)

Values = dict[str, Any]


@pytest.fixture
def values(tmp_path: Path, tiny_checkpoint: tuple[Path, Path]) -> Values:
    return {
        "checkpoint": tiny_checkpoint[0],
        "backbone_weights": tiny_checkpoint[1],
        "backbone": "resnet18",
        "layers": "layer1,layer2",
        "imgsz": 64,
        "pretrain_embed_dim": 48,
        "output": tmp_path / "out" / "b.edgead",
    }


def export(values: Values, **changes: Any) -> Bundle:
    return export_bundle(export_options(values | changes, "test"))


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[nn.Module], None]], None]:
    """Change the module that is exported, behind the fold and before the graph."""
    genuine = to_bundle.fast_module

    def install(change: Callable[[nn.Module], None]) -> None:
        def changed(*arguments: Any) -> nn.Module:
            module = genuine(*arguments)
            with torch.no_grad():
                change(module)
            return module

        monkeypatch.setattr(to_bundle, "fast_module", changed)

    return install


def shift(name: str, amount: float) -> Callable[[nn.Module], None]:
    def change(module: nn.Module) -> None:
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        tensors[name].view(-1)[0] += amount

    return change


@pytest.mark.parametrize(("imgsz", "batch"), [("65x101", None), ("70x94", 3)])
def test_the_manifest_keeps_the_figures(values: Values, imgsz: str, batch: int | None) -> None:
    said: list[str] = []
    bundle = export_bundle(export_options(values | {"imgsz": imgsz, "batch": batch}, "test"), say=said.append)
    parity = Bundle.read(values["output"]).manifest.parity
    assert parity is not None
    assert parity == bundle.manifest.parity
    assert parity.tolerance == TOLERANCE == 2e-5
    assert parity.images >= 3
    for figure in (parity.patch_map, parity.anomaly_map, parity.pred_score):
        assert 0 <= figure <= TOLERANCE
        assert f"{figure:.1e}" in " ".join(said)
    assert parity.patch_map_spread > 100 * TOLERANCE, "the probes hardly differ, so the comparison says little"


@pytest.mark.parametrize("name", ["logits.heads.0.1.weight", "logits.tail.0.weight", "rows", "shift"])
def test_a_changed_weight_fails_the_export_and_leaves_nothing(
    values: Values, sabotage: Callable[[Callable[[nn.Module], None]], None], name: str
) -> None:
    sabotage(shift(name, 0.3))
    with pytest.raises(ExportError, match=r"off by .* nothing written") as exc:
        export(values)
    assert "\n" not in str(exc.value)
    assert not values["output"].parent.exists()


def test_a_failed_export_keeps_the_bundle_that_was_there(
    values: Values, sabotage: Callable[[Callable[[nn.Module], None]], None]
) -> None:
    before = export(values).sha256
    sabotage(shift("logits.bias", 0.3))
    with pytest.raises(ExportError):
        export(values, force=True)
    assert Bundle.read(values["output"]).sha256 == before
    assert [path.name for path in values["output"].parent.iterdir()] == ["b.edgead"]


def test_a_weight_that_is_no_number_fails_the_export(
    values: Values, sabotage: Callable[[Callable[[nn.Module], None]], None]
) -> None:
    sabotage(shift("logits.bias", float("nan")))
    with pytest.raises(ExportError):
        export(values)
    assert not values["output"].parent.exists()


def test_a_change_below_the_tolerance_passes(
    values: Values, sabotage: Callable[[Callable[[nn.Module], None]], None]
) -> None:
    sabotage(shift("logits.bias", 1e-7))
    export(values)


def test_probes_differ_and_repeat() -> None:
    first = probe_images((40, 56), 4)
    assert first.shape == (4, 40, 56, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, probe_images((40, 56), 4))
    assert all(image.std() > 10 for image in first)


def test_openvino_format_writes_an_ir_that_agrees(values: Values) -> None:
    bundle = export(values, format="openvino", score="patch_max")
    assert set(bundle.manifest.files) == {"model.onnx", "model.xml", "model.bin"}
    assert bundle.manifest.openvino_ir == {"fp32": "model.xml"}
    core = openvino_core()
    images = probe_images((64, 64), 2)
    results = []
    for name in ("model.onnx", "model.xml"):
        compiled = core.compile_model(core.read_model(bundle.path / name), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        outcome = compiled(images)
        results.append([outcome[compiled.output(key)] for key in ("patch_map", "anomaly_map", "pred_score")])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(results[1][2], results[1][0].max(axis=(1, 2)), rtol=0, atol=1e-6)


def test_force(values: Values) -> None:
    first = export(values)
    with pytest.raises(OutputError, match="exists; give --force"):
        export(values, threshold=0.4)
    assert Bundle.read(values["output"]).sha256 == first.sha256
    second = export(values, threshold=0.4, force=True)
    assert second.sha256 != first.sha256
    assert Bundle.read(values["output"]).manifest.thresholds.image == 0.4
    assert [path.name for path in values["output"].parent.iterdir()] == ["b.edgead"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_force_never_replaces_what_is_no_bundle(values: Values, kind: str) -> None:
    output: Path = values["output"]
    output.parent.mkdir()
    kept = output if kind == "file" else output / "diary.txt"
    if kind == "folder":
        output.mkdir()
    kept.write_text("mine")
    with pytest.raises(OutputError, match="is no bundle"):
        export(values, force=True)
    assert kept.read_text() == "mine"


def test_a_bundle_holds_no_path_of_this_machine(values: Values) -> None:
    bundle = export(values, format="openvino")
    secrets = [str(Path(__file__).resolve().parents[2]), str(Path.home()), str(values["checkpoint"].parent)]
    for file in bundle.path.iterdir():
        content = file.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, f"{file.name} names {secret}"


def test_an_exported_bundle_is_checked_byte_for_byte(values: Values) -> None:
    bundle = export(values)
    data = bytearray((bundle.path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle.path / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx is not what was written"):
        Bundle.read(bundle.path)
