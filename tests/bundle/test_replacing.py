"""Whoever reads a bundle while it is replaced gets the old one or the new one; a link to it stays a link."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle import bundle as edge_ad_bundle
from edge_ad.bundle import steady
from edge_ad.bundle.bundle import CHECKSUM, Bundle, write_bundle, write_changed
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, Thresholds, contract
from edge_ad.disk import storage
from edge_ad.errors import BundleError

IMAGE, OUTPUTS = contract(64, 48, (16, 12), None)
FIELDS: dict[str, Any] = {
    "model": {"family": "glass", "config": {"backbone": "resnet18", "layers": ["layer1", "layer2"]}},
    "preprocess": PreprocessSpec(64, 48),
    "postprocess": PostprocessSpec(),
    "input": IMAGE,
    "outputs": OUTPUTS,
    "opset": 17,
    "models": {"fp32": "model.onnx"},
    "thresholds": Thresholds(0.25),
}
REPLACES = 40
WRITER = """
import sys, time
from pathlib import Path
from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.disk import storage

path, ways, count = sys.argv[1:]
if ways == "moved aside":
    storage._exchange = lambda one, other: False
    rename = Path.rename
    def slowly(self, target):
        rename(self, target)
        time.sleep(0.002)  # the gap, long enough to be met
    Path.rename = slowly
for number in range(int(count)):
    bundle = Bundle.read(path)
    write_changed(bundle, path, {}, files={"model.onnx": b"%d" % number * 3000}, replace=True)
"""
KILLED = """
import os, sys
from pathlib import Path
from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.disk import storage

path, ways = sys.argv[1:]
if ways == "moved aside":
    storage._exchange = lambda one, other: False
    rename = Path.rename
    def killed(self, target):
        rename(self, target)
        os._exit(9)
    Path.rename = killed
else:
    storage.shutil.rmtree = lambda *given, **more: os._exit(9)  # the first thing after the exchange
write_changed(Bundle.read(path), path, {}, files={"model.onnx": b"new"}, replace=True)
"""
WAYS = ("exchanged", "moved aside")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "line.edgead", FIELDS, {"model.onnx": b"first" * 3000})


def _exchanges(folder: Path) -> bool:
    for name in ("one", "other"):
        (folder / name).mkdir()
    return storage._exchange(folder / "one", folder / "other")


def _read_beside_a_writer(path: Path, ways: str, read: Callable[[Path], Bundle]) -> tuple[Counter[str], set[str]]:
    """How readings ended, and which bundles were seen."""
    seen: Counter[str] = Counter()
    bundles: set[str] = set()
    command = [sys.executable, "-c", WRITER, str(path), ways, str(REPLACES)]
    with subprocess.Popen(command) as writer:
        while writer.poll() is None:
            try:
                found = read(path)
            except BundleError as exc:
                seen[str(exc)] += 1
            else:
                seen["read"] += 1
                bundles.add(found.sha256)
    assert writer.returncode == 0
    return seen, bundles


@pytest.mark.parametrize("ways", WAYS)
def test_a_reader_beside_a_writer_never_fails(bundle: Bundle, tmp_path: Path, ways: str) -> None:
    if ways == "exchanged" and not _exchanges(tmp_path):
        pytest.skip("this kernel or file system does not exchange directories")

    def read_whole(path: Path) -> Bundle:
        found = Bundle.read(path)
        assert found.manifest.files.keys() == {"model.onnx"}
        return found

    seen, bundles = _read_beside_a_writer(bundle.path, ways, read_whole)
    assert seen.keys() == {"read"} and len(bundles) > 3


def test_a_reader_without_patience_would_fail(bundle: Bundle) -> None:
    seen, _ = _read_beside_a_writer(bundle.path, "moved aside", Bundle._read)
    assert seen.keys() > {"read"}


def test_a_file_is_read_beside_a_writer_of_another_threshold(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a line does that loads its model: in the gap it is not there."""
    away = bundle.path.with_name(".line.edgead.x.old")
    away.mkdir()
    bundle.path.rename(away / "line.edgead")

    def come_back(_: float) -> None:
        if away.exists():
            (away / "line.edgead").rename(bundle.path)
            away.rmdir()

    monkeypatch.setattr(time, "sleep", come_back)
    assert bundle.read_file("model.onnx") == b"first" * 3000


def test_a_model_that_was_replaced_is_said_to_be(bundle: Bundle) -> None:
    write_changed(bundle, bundle.path, {}, files={"model.onnx": b"new"}, replace=True)
    with pytest.raises(BundleError, match="was replaced while it was in use; start again with the new one"):
        bundle.read_file("model.onnx")


def test_what_is_damaged_or_absent_is_said_at_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: float) -> None:
        raise AssertionError("it has not changed, so there is nothing to wait for")

    monkeypatch.setattr(time, "sleep", never)
    with pytest.raises(BundleError, match="does not exist"):
        Bundle.read(bundle.path.with_name("other.edgead"))
    (bundle.path / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="SHA-256 differs"):
        Bundle.read(bundle.path)
    (bundle.path / CHECKSUM).unlink()
    with pytest.raises(BundleError, match="is not what was written"):
        Bundle.read(bundle.path)


@pytest.mark.parametrize("ways", WAYS)
def test_killed_while_replacing(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ways: str) -> None:
    if ways == "exchanged" and not _exchanges(tmp_path):
        pytest.skip("this kernel or file system does not exchange directories")
    done = subprocess.run([sys.executable, "-c", KILLED, str(bundle.path), ways], check=False, timeout=60)
    assert done.returncode == 9
    if ways == "exchanged":
        assert Bundle.read(bundle.path).read_file("model.onnx") == b"new"
        return
    monkeypatch.setattr(steady, "PATIENCE_S", 0.05)
    old = storage.set_aside(bundle.path)
    assert old is not None
    with pytest.raises(
        BundleError, match=r"interrupted while replacing it; the old one is .*line\.edgead, move it back"
    ):
        Bundle.read(bundle.path)
    old.rename(bundle.path)
    assert Bundle.read(bundle.path) == bundle


def test_a_link_stays_and_its_bundle_is_replaced(bundle: Bundle, tmp_path: Path) -> None:
    """`current.edgead -> releases/v3.edgead`, both read by somebody."""
    (tmp_path / "releases").mkdir()
    real, link, second = (tmp_path / name for name in ("releases/v3.edgead", "current.edgead", "also.edgead"))
    bundle.path.rename(real)
    link.symlink_to("releases/v3.edgead")
    second.symlink_to("current.edgead")
    written = write_changed(Bundle.read(second), second, {"thresholds": Thresholds(0.75)}, replace=True)
    assert written.path == second and written.manifest.thresholds.image == 0.75
    assert link.is_symlink() and second.is_symlink() and not real.is_symlink()
    assert Bundle.read(real).sha256 == Bundle.read(link).sha256 == written.sha256
    assert sorted(path.name for path in (*tmp_path.iterdir(), *(tmp_path / "releases").iterdir())) == [
        "also.edgead",
        "current.edgead",
        "releases",
        "v3.edgead",
    ]


def test_a_link_that_is_pointed_elsewhere_meanwhile(bundle: Bundle, tmp_path: Path, monkeypatch: Any) -> None:
    other = write_changed(bundle, tmp_path / "v4.edgead", {}, files={"model.onnx": b"fourth"})
    link = tmp_path / "current.edgead"
    link.symlink_to(bundle.path)
    parse = edge_ad_bundle._parse_manifest

    def pointed_elsewhere(*given: Any) -> Any:
        monkeypatch.setattr(edge_ad_bundle, "_parse_manifest", parse)
        (tmp_path / "next").symlink_to(other.path)
        (tmp_path / "next").replace(link)
        return parse(*given)

    monkeypatch.setattr(edge_ad_bundle, "_parse_manifest", pointed_elsewhere)
    assert Bundle.read(link).sha256 == other.sha256
