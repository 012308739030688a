"""`edge-ad info`: what each precision of a bundle is, whether it is proven, and which model families there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.manifest import Quantization
from edge_ad.bundle.specs import Thresholds
from edge_ad.cli.main import main
from edge_ad.models import FAMILIES, model_family
from edge_ad.validation import plain

Capture = pytest.CaptureFixture[str]
PASSED = Quantization("entropy", 320, "a" * 64, 0, 52, ("head.0",), "passed", 61, 1, -0.0002, 0.9991, 3.104)


def info(bundle: Path, capsys: Capture) -> dict[str, Any]:
    """What is said as JSON; the text says the same."""
    assert main(["info", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert main(["info", "--json", str(bundle)]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert yaml.safe_load(text) == facts
    assert list(yaml.safe_load(text)) == list(facts)
    return facts


def quantized(bundle: Path, target: Path, record: Quantization) -> Path:
    changes = {"quantization": {"int8": record}, "precision_thresholds": {"int8": Thresholds(0.125)}}
    return write_changed(Bundle.read(bundle), target, changes).path


def test_each_precision_is_shown(two_precisions: Path, tmp_path: Path, halved_graph: bytes, capsys: Capture) -> None:
    facts = info(quantized(two_precisions, tmp_path / "q.edgead", PASSED), capsys)
    assert facts["default_precision"] == "int8"
    whole_bytes = (two_precisions / "model.onnx").stat().st_size
    assert facts["precisions"] == {
        "fp32": {"file": "model.onnx", "size_bytes": whole_bytes, "threshold": 0.5},
        "int8": {
            "file": "model.int8.onnx",
            "size_bytes": len(halved_graph),
            "threshold": 0.125,
            "gate": "passed, against the float model on 61 images; label flips 1, image AUROC -0.0002,"
            " map correlation 0.99910, 3.10 times as fast",
            "made": "52 layers quantized, ranges by entropy from 320 images; put back into float: head.0",
        },
    }
    assert facts["size_bytes"] == whole_bytes + len(halved_graph)
    assert facts["quantization"] == {"int8": plain(PASSED)}  # in full, for programs
    assert list(facts).index("precisions") < list(facts).index("model")


@pytest.mark.parametrize(
    ("changes", "gate", "made"),
    [
        (
            {"gate": "failed", "auroc_change": None, "speed_up": None, "flips": 0, "float_layers": ()},
            "failed, against the float model on 61 images; label flips 0, map correlation 0.99910",
            "52 layers quantized, ranges by entropy from 320 images; put back into float: none",
        ),
        (
            {"gate": "unproven", "held_out": 0, "ranges": None, "images": 0, "float_layers": ("a", "b")},
            "unproven, never compared with the float model",
            "52 layers cast; put back into float: a, b",
        ),
        (
            {"gate": "unproven", "flips": None, "auroc_change": None, "map_correlation": None, "speed_up": None},
            "unproven, against the float model on 61 images; no figures",
            "52 layers quantized, ranges by entropy from 320 images; put back into float: head.0",
        ),
    ],
    ids=["failed", "never compared", "no figures"],
)
def test_what_is_not_proven_says_so_first(
    two_precisions: Path, tmp_path: Path, capsys: Capture, changes: dict[str, Any], gate: str, made: str
) -> None:
    facts = info(quantized(two_precisions, tmp_path / "q.edgead", replace(PASSED, **changes)), capsys)
    assert facts["default_precision"] == "fp32"
    assert (facts["precisions"]["int8"]["gate"], facts["precisions"]["int8"]["made"]) == (gate, made)


def test_a_float_bundle_has_nothing_to_prove(tiny_bundle: Path, capsys: Capture) -> None:
    facts = info(tiny_bundle, capsys)
    assert facts["default_precision"] == "fp32"
    assert list(facts["precisions"]) == ["fp32"]
    assert "gate" not in facts["precisions"]["fp32"]


def test_a_bundle_names_its_family_and_paper(tiny_bundle: Path, capsys: Capture) -> None:
    facts = info(tiny_bundle, capsys)
    assert (facts["family"], facts["paper"]) == ("glass", "Chen et al., ECCV 2024, arXiv 2407.09359")
    assert list(facts)[:4] == ["path", "sha256", "family", "paper"]


def test_a_bundle_of_a_family_that_is_not_known_is_still_shown(
    tiny_bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Its graph is looked at by the rules of any family; who published it nobody here can say."""
    bundle = Bundle.read(tiny_bundle)
    model = replace(bundle.manifest.model, family="another")
    facts = info(write_changed(bundle, tmp_path / "another.edgead", {"model": model}).path, capsys)
    assert (facts["family"], facts["paper"]) == ("another", None)


def words(text: str) -> list[str]:
    return re.findall(r"[\w.²-]+", text)


@pytest.mark.parametrize("arguments", [["info"], ["info", "--families"]])
def test_the_table_of_families(capsys: Capture, arguments: list[str]) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    for name in FAMILIES:
        assert name in shown
        for said in vars(model_family(name).about).values():
            assert set(words(said)) <= set(words(shown)), said


def test_the_families_for_programs(capsys: Capture) -> None:
    assert main(["info", "--json"]) == 0
    families = json.loads(capsys.readouterr().out)["families"]
    assert list(families) == list(FAMILIES)
    draem = families["draem"]
    assert (draem["licence"], draem["default"], draem["presets"]) == ("MIT", False, ["paper", "fast"])
    assert draem["preprocess"]["filter"] == "opencv_bilinear" and draem["postprocess"]["smoothing"] == "box"
    assert [name for name, said in families.items() if said["default"]] == ["glass"]


def test_a_bundle_and_all_families_are_two_questions(tiny_bundle: Path, capsys: Capture) -> None:
    assert main(["info", str(tiny_bundle), "--families"]) == 2
    assert "leave out BUNDLE, or --families" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["info", "info --json", "train --family draem --help", "export --help"])
def test_families_are_listed_without_pytorch(arguments: str, tmp_path: Path) -> None:
    """So that the base installation can say what there is."""
    probe = (
        "import sys\nfrom edge_ad.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print('loaded', sorted({'torch', 'torchvision', 'onnx', 'timm'} & sys.modules.keys()))\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *arguments.split()], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"
