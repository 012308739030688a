"""An engine from elsewhere is run once its user has vouched for it, and not before."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import other_user
import pytest

from edge_ad.bundle.bundle import Bundle
from edge_ad.cli.main import main
from edge_ad.errors import ConfigError
from edge_ad.runtime.engines.tensorrt.builder import adopt
from edge_ad.runtime.engines.tensorrt.builder.options import build_options
from edge_ad.runtime.engines.tensorrt.fingerprint import Fingerprint, PlanNeed, this_platform
from edge_ad.runtime.engines.tensorrt.gpu import Gpu
from edge_ad.runtime.engines.tensorrt.plans import PlanFile, find_plan

BUNDLE = str(resources.files("edge_ad.demo") / "disc.edgead")
VERSION = "1.7.1.116"
GPU = Gpu(0, "NVIDIA GeForce RTX 3060", 86)
Capture = pytest.CaptureFixture[str]


def fingerprint(**changes: object) -> Fingerprint:
    bundle = Bundle.read(BUNDLE)
    values: dict[str, object] = {
        "flavour": "rtx",
        "version": VERSION,
        "sm": (86, 89),
        "gpu": None,
        "precision": "fp32",
        "batch_min": 1,
        "batch_best": 2,
        "batch_max": 4,
        "dla": None,
        "flags": (),
        "onnx_sha256": bundle.manifest.files[bundle.model_file("fp32")],
        "platform": this_platform(),
        "edge_ad": "0.1.0",
    }
    return Fingerprint(**{**values, **changes})  # type: ignore[arg-type]


def need(built: Fingerprint) -> PlanNeed:
    return PlanNeed("rtx", VERSION, 86, GPU.name, "fp32", 1, built.onnx_sha256, None, this_platform())


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a GPU that has built nothing; its engine cache. Its user is not the one who built the plan."""
    monkeypatch.setattr(adopt, "find_gpu", lambda index: GPU)
    flavour = SimpleNamespace(load=lambda: SimpleNamespace(__version__=VERSION))
    monkeypatch.setattr(adopt, "FLAVOURS", {"rtx": flavour, "tensorrt": flavour})
    return tmp_path / "engines"


def built_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch, built: Fingerprint) -> PlanFile:
    with monkeypatch.context() as patch:
        other_user.become(patch, folder / "another user")
        file = PlanFile(folder / "bottle.plan")
        file.prepare()
        file.write(built, b"a plan")
    return file


def test_an_engine_from_elsewhere_is_not_run_until_it_is_adopted(
    station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    built = fingerprint()
    file = built_elsewhere(tmp_path / "usb", monkeypatch, built)
    copied = PlanFile(station / "bottle.plan")
    copied.prepare()
    for path in (file.path, file.sidecar):
        (station / path.name).write_bytes(path.read_bytes())
    said: list[str] = []
    assert find_plan(station, need(built), said.append) is None
    assert said == [f"{copied.path} was not built by this user; build it, or take it over with --adopt"]
    assert main(["build", BUNDLE, "--adopt", str(file.path), "--engine-cache", str(station)]) == 0
    found = find_plan(station, need(built), said.append)
    assert found is not None and (found.data, found.fingerprint) == (b"a plan", built)
    assert capsys.readouterr().out.strip() == str(found.path)
    assert found.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sm": (89,)}, "built for SM89, this is SM86"),
        ({"version": "1.6"}, "built by TensorRT-RTX 1.6, this is 1.7.1.116"),
        ({"onnx_sha256": "0" * 64}, "built from another model"),
        ({"platform": "linux-aarch64"}, "built on linux-aarch64"),
        ({"precision": "int8"}, "holds no int8 model"),
    ],
)
def test_one_that_does_not_fit_is_refused(
    station: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    changes: dict[str, object],
    said: str,
) -> None:
    file = built_elsewhere(tmp_path / "usb", monkeypatch, fingerprint(**changes))
    assert main(["build", BUNDLE, "--adopt", str(file.path), "--engine-cache", str(station)]) in (5, 9)
    assert said in capsys.readouterr().err
    assert not station.exists()


@pytest.mark.parametrize("harm", ["no file", "no sidecar", "damaged"])
def test_one_that_is_harmed_is_refused(
    station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, harm: str
) -> None:
    file = built_elsewhere(tmp_path / "usb", monkeypatch, fingerprint())
    if harm == "damaged":
        file.path.write_bytes(b"A plan")
    else:
        (file.path if harm == "no file" else file.sidecar).unlink()
    assert main(["build", BUNDLE, "--adopt", str(file.path), "--engine-cache", str(station)]) == 9
    assert str(file.path) in capsys.readouterr().err


def test_a_cache_that_others_can_write_to_takes_none(
    station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    file = built_elsewhere(tmp_path / "usb", monkeypatch, fingerprint())
    station.mkdir()
    station.chmod(0o777)
    assert main(["build", BUNDLE, "--adopt", str(file.path), "--engine-cache", str(station)]) == 11
    assert f"others can write to {station} (mode 0777)" in capsys.readouterr().err


def test_options_that_build_are_refused_beside_it() -> None:
    given = {"bundle": "b", "adopt": "a.plan", "batch": 4, "output": "o.plan"}
    with pytest.raises(ConfigError) as caught:
        build_options(given, "build options")
    assert caught.value.faults == tuple(f"{name}: --adopt builds nothing; leave it out" for name in ("batch", "output"))
    build_options({"bundle": "b", "adopt": "a.plan", "precision": "fp16", "device": 1, "engine_cache": "e"}, "options")
