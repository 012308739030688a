"""A bundle is read whole and unharmed, or not at all; it is written whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import edge_ad.bundle.bundle
from edge_ad.bundle.bundle import CHECKSUM, MANIFEST, SCHEMA_VERSION, Bundle, write_bundle
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, Thresholds, contract
from edge_ad.disk import storage
from edge_ad.errors import BundleError, BundleUnavailableError, ConfigError, OutputError

FILES = {"model.onnx": b"\x08\x08graph", "model.int8.onnx": bytes(range(256)), "report/report.html": b"<p>fine</p>"}
IMAGE, OUTPUTS = contract(64, 48, (16, 12), None)
FIELDS: dict[str, Any] = {
    "model": {"family": "glass", "config": {"backbone": "resnet18", "layers": ["layer1", "layer2"]}},
    "preprocess": PreprocessSpec(64, 48, "letterbox", pad_rgb=(1, 2, 3)),
    "postprocess": PostprocessSpec(score="patch_max"),
    "input": IMAGE,
    "outputs": OUTPUTS,
    "opset": 17,
    "models": {"fp32": "model.onnx", "int8": "model.int8.onnx"},
    "thresholds": Thresholds(0.25),
    "tools": {"edge-ad": "0", "note": "größer als 1 µm"},
}
HOSTILE_NAMES = (
    "../x",
    "/etc/passwd",
    "a/../../b",
    "a\\b",
    "..\\x",
    "C:\\x",
    "C:x",
    "\\\\host\\share",
    "a\0b",
    "",
    ".",
    "..",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "part.edgead", FIELDS, FILES)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """For property tests, which leave it as they found it."""
    return write_bundle(tmp_path_factory.mktemp("lasting") / "part.edgead", FIELDS, FILES)


def _forge(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and make its checksum right again, as somebody with bad intentions would."""
    data = yaml.safe_load((path / MANIFEST).read_text("utf-8"))
    change(data)
    _forge_text(path, yaml.safe_dump(data, allow_unicode=True))


def _forge_text(path: Path, text: str) -> None:
    (path / MANIFEST).write_text(text, "utf-8")
    digest = hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    (path / CHECKSUM).write_text(f"{digest}  {MANIFEST}\n")


def _leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_what_is_written_is_read_back(bundle: Bundle) -> None:
    again = Bundle.read(bundle.path)
    assert again == bundle
    assert again.path.name == "part.edgead"
    manifest = again.manifest
    for name in ("preprocess", "postprocess", "input", "outputs", "models", "thresholds", "tools", "opset"):
        assert getattr(manifest, name) == FIELDS[name]
    assert manifest.model.config == FIELDS["model"]["config"]
    assert again.sha256 == hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()
    for name, data in FILES.items():
        assert again.read_file(name) == data
    assert again.model_file("int8") == "model.int8.onnx"


def test_the_checksum_is_the_one_that_sha256sum_checks(bundle: Bundle) -> None:
    digest = hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()
    assert (bundle.path / CHECKSUM).read_bytes() == f"{digest}  manifest.yaml\n".encode()


def test_a_forged_but_consistent_manifest_is_readable(bundle: Bundle) -> None:
    """Control: the attacks below fail for what they say, not because forging went wrong."""
    _forge(bundle.path, lambda data: data["thresholds"].update(image=0.75))
    assert Bundle.read(bundle.path).manifest.thresholds.image == 0.75


@settings(max_examples=200, derandomize=True, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_noticed(lasting: Bundle, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*FILES, MANIFEST, CHECKSUM]))
    path = lasting.path / name
    good = path.read_bytes()
    offset = data.draw(st.integers(0, len(good) - 1))
    flip = data.draw(st.integers(1, 255))
    bad = bytearray(good)
    bad[offset] ^= flip
    try:
        path.write_bytes(bytes(bad))
        with pytest.raises(BundleError, match=r"part\.edgead"):
            Bundle.read(lasting.path)
    finally:
        path.write_bytes(good)
    assert Bundle.read(lasting.path) == lasting


@pytest.mark.parametrize("name", [*FILES, MANIFEST, CHECKSUM])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["truncated", "longer", "empty", "missing", "a folder"],
)
def test_a_damaged_file_is_noticed(bundle: Bundle, name: str, damage: Callable[[Path], Any]) -> None:
    damage(bundle.path / name)
    with pytest.raises(BundleError, match=r"part\.edgead"):
        Bundle.read(bundle.path)


def test_a_file_that_changes_after_opening_is_noticed(bundle: Bundle) -> None:
    (bundle.path / "model.onnx").write_bytes(b"something else")
    with pytest.raises(BundleError, match="changed while it was in use"):
        bundle.read_file("model.onnx")
    with pytest.raises(BundleError, match="not listed"):
        bundle.read_file(MANIFEST)


def test_what_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleUnavailableError, match="does not exist"):
        Bundle.read(tmp_path / "none")
    with pytest.raises(BundleUnavailableError, match=r"no manifest.*mount"):
        Bundle.read(tmp_path)
    (tmp_path / "file").write_text("x")
    for path, words in ((tmp_path / "file", "is a file"), (tmp_path, "no manifest")):
        with pytest.raises(BundleError, match=words) as raised:
            Bundle.read(path)
        assert type(raised.value) is BundleError  # somebody has to come


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EIO, BundleUnavailableError),
        (errno.ESTALE, BundleUnavailableError),
        (errno.ENOTCONN, BundleUnavailableError),
        (errno.EACCES, BundleError),
    ],
)
@pytest.mark.parametrize("call", ["is_dir", "iterdir", "open", "read_bytes"])
def test_a_share_that_does_not_answer_is_no_damaged_bundle(
    bundle: Bundle, number: int, kind: type[BundleError], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(Path, call)

    def refuse(self: Path, *arguments: Any, **named: Any) -> Any:
        if self.is_relative_to(bundle.path):
            raise OSError(number, os.strerror(number), str(self))
        return original(self, *arguments, **named)

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(BundleError, match=os.strerror(number)) as raised:
        Bundle.read(bundle.path)
    assert type(raised.value) is kind


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_not_written(tmp_path: Path, name: str) -> None:
    home = tmp_path / "inner" / "home"
    home.mkdir(parents=True)
    with pytest.raises(BundleError, match="outside of the bundle"):
        write_bundle(home / "part.edgead", FIELDS, {**FILES, name: b"x"})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert _leftovers(home) == []


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_not_read(bundle: Bundle, name: str) -> None:
    """The attacker knows the hash of the file that he points at."""
    target = bundle.path / name if "\0" not in name else bundle.path / "none"
    data = target.read_bytes() if target.is_file() else b"outside"
    if name == "../x":
        (bundle.path.parent / "x").write_bytes(data)

    def point_outside(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = hashlib.sha256(data).hexdigest()
        manifest["models"]["fp32"] = name

    _forge(bundle.path, point_outside)
    with pytest.raises(BundleError, match="outside of the bundle"):
        Bundle.read(bundle.path)


def test_a_model_without_checksum_is_refused(bundle: Bundle) -> None:
    _forge(bundle.path, lambda data: data["files"].pop("model.onnx"))
    with pytest.raises(BundleError, match=r"'model\.onnx' \(fp32\) has no checksum"):
        Bundle.read(bundle.path)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
@pytest.mark.parametrize("name", [*FILES, MANIFEST, CHECKSUM])
@pytest.mark.parametrize("inside", [False, True], ids=["to outside", "to inside"])
def test_links_are_refused_even_with_the_right_bytes(bundle: Bundle, name: str, inside: bool) -> None:
    target = (bundle.path if inside else bundle.path.parent) / "moved"
    (bundle.path / name).rename(target)
    (bundle.path / name).symlink_to(target)
    with pytest.raises(BundleError, match="is a link or lies outside"):
        Bundle.read(bundle.path)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_linked_folder_that_leads_outside_is_refused(bundle: Bundle) -> None:
    (bundle.path / "report").rename(bundle.path.parent / "report")
    (bundle.path / "report").symlink_to(bundle.path.parent / "report", target_is_directory=True)
    with pytest.raises(BundleError, match="is a link or lies outside"):
        Bundle.read(bundle.path)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_to_a_whole_bundle_works(bundle: Bundle) -> None:
    link = bundle.path.parent / "current.edgead"
    link.symlink_to(bundle.path, target_is_directory=True)
    assert Bundle.read(link).sha256 == bundle.sha256


@pytest.mark.parametrize("checksum_holds", [True, False])
def test_a_newer_bundle_asks_for_an_update(bundle: Bundle, checksum_holds: bool) -> None:
    def from_the_future(data: dict[str, Any]) -> None:
        data["schema_version"] = SCHEMA_VERSION + 1
        data["preprocess"]["undistort"] = {"k1": 0.1}
        del data["opset"]

    _forge(bundle.path, from_the_future)
    if not checksum_holds:
        (bundle.path / CHECKSUM).unlink()
    with pytest.raises(BundleError, match=rf"schema version {SCHEMA_VERSION + 1}.*update edge-ad"):
        Bundle.read(bundle.path)


@pytest.mark.parametrize("version", [0, -1, "1.5", None, [1]])
def test_other_versions_are_refused(bundle: Bundle, version: Any) -> None:
    _forge(bundle.path, lambda data: data.update(schema_version=version))
    with pytest.raises(BundleError, match=r"schema.version"):
        Bundle.read(bundle.path)


def test_all_faults_of_a_manifest_are_named(bundle: Bundle) -> None:
    def break_three(data: dict[str, Any]) -> None:
        data["preprocess"]["resize_mode"] = "zoom"
        data["surprise"] = 1
        del data["opset"]

    _forge(bundle.path, break_three)
    with pytest.raises(BundleError) as caught:
        Bundle.read(bundle.path)
    for part in ("preprocess.resize_mode", "'zoom'", "surprise: unknown key", "opset: missing"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_never_runs_code(bundle: Bundle) -> None:
    bait = bundle.path.parent / "ran"
    text = (bundle.path / MANIFEST).read_text("utf-8")
    for tag in (f"!!python/object/apply:os.mkdir ['{bait}']", f"!!python/object/new:os.mkdir ['{bait}']"):
        _forge_text(bundle.path, f"{text}extra: {tag}\n")
        with pytest.raises(BundleError, match="no valid YAML"):
            Bundle.read(bundle.path)
    assert not bait.exists()


def test_a_manifest_of_aliases_is_refused_and_not_spelled_out(bundle: Bundle) -> None:
    """Nine to the eighth values where a number belongs: naming them all in the message would take gigabytes."""
    text = (bundle.path / MANIFEST).read_text("utf-8")
    levels = ["x0: &x0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]"]
    levels += [f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 8)]
    assert "parity: null" in text
    _forge_text(bundle.path, "\n".join([*levels, text.replace("parity: null", "parity: *x7")]))
    tracemalloc.start()
    with pytest.raises(BundleError, match="aliases written out") as caught:
        Bundle.read(bundle.path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 100e6
    assert len(str(caught.value)) < 2000


def test_a_huge_manifest_is_not_read(bundle: Bundle) -> None:
    with (bundle.path / MANIFEST).open("ab") as file:
        file.truncate(edge_ad.bundle.bundle.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(BundleError, match="larger than"):
        Bundle.read(bundle.path)


def test_an_existing_bundle_stays_unless_told(bundle: Bundle) -> None:
    with pytest.raises(OutputError, match="--force"):
        write_bundle(bundle.path, FIELDS, {**FILES, "model.onnx": b"new"})
    assert Bundle.read(bundle.path) == bundle
    other = write_bundle(bundle.path, FIELDS, {**FILES, "model.onnx": b"new"}, replace=True)
    assert other.sha256 != bundle.sha256
    assert Bundle.read(bundle.path).read_file("model.onnx") == b"new"
    assert _leftovers(bundle.path.parent) == []


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("names", [(), ("notes.txt",), (MANIFEST, "notes.txt")], ids=["empty", "notes", "a manifest"])
def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path, names: tuple[str, ...], replace: bool) -> None:
    """A `manifest.yaml` alone makes no bundle: Kubernetes and others have such files too."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("kind: Deployment")
    with pytest.raises(OutputError, match="is no bundle"):
        write_bundle(folder, FIELDS, FILES, replace=replace)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "part.edgead").write_text("mine")
    with pytest.raises(OutputError, match="is no bundle"):
        write_bundle(tmp_path / "part.edgead", FIELDS, FILES, replace=True)
    with pytest.raises(OutputError, match="no folder that can be written to"):
        write_bundle(tmp_path / "part.edgead" / "below", FIELDS, FILES)
    assert (tmp_path / "part.edgead").read_text() == "mine"


def test_a_wrong_manifest_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="opset"):
        write_bundle(tmp_path / "part.edgead", {**FIELDS, "opset": "many"}, FILES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "files"),
    [({}, {MANIFEST: b"mine"}), ({}, {"./model.onnx": b"mine"}), ({"models": {"fp32": "none.onnx"}}, {})],
    ids=["own manifest", "one name twice", "model without file"],
)
def test_what_could_not_be_read_back_does_not_take_the_place_of_a_bundle(
    bundle: Bundle, fields: dict[str, Any], files: dict[str, bytes]
) -> None:
    with pytest.raises(BundleError):
        write_bundle(bundle.path, {**FIELDS, **fields}, {**FILES, **files}, replace=True)
    assert Bundle.read(bundle.path) == bundle
    assert _leftovers(bundle.path.parent) == []


@pytest.mark.parametrize("nth", range(1, len(FILES) + 3))
@pytest.mark.parametrize("replace", [False, True])
def test_a_full_disk_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, replace: bool
) -> None:
    path = tmp_path / "part.edgead"
    before = write_bundle(path, FIELDS, FILES) if replace else None
    calls = 0

    def full_disk(target: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        target.write_bytes(data[: len(data) // 2] if calls == nth else data)
        if calls == nth:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(edge_ad.bundle.bundle, "write_durably", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        write_bundle(path, FIELDS, {**FILES, "model.onnx": b"new"}, replace=replace)
    assert calls == nth
    assert _leftovers(tmp_path) == []
    if before is None:
        assert not path.exists()
    else:
        assert Bundle.read(path) == before


@pytest.mark.parametrize("failure", [PermissionError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
@pytest.mark.parametrize(("replace", "nth"), [(False, 1), (True, 1), (True, 2)])
def test_a_failed_rename_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool, nth: int, failure: BaseException
) -> None:
    path = tmp_path / "part.edgead"
    before = write_bundle(path, FIELDS, FILES) if replace else None
    monkeypatch.setattr(storage, "_exchange", lambda one, other: False)  # as where directories cannot be exchanged
    rename, calls = Path.rename, 0

    def failing(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise failure
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_bundle(path, FIELDS, {**FILES, "model.onnx": b"new"}, replace=replace)
    monkeypatch.undo()
    assert _leftovers(tmp_path) == []
    if before is None:
        assert not path.exists()
    else:
        assert Bundle.read(path) == before


@pytest.mark.parametrize("failure", [PermissionError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
def test_a_failed_exchange_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    before = write_bundle(tmp_path / "part.edgead", FIELDS, FILES)

    def fail(one: Path, other: Path) -> bool:
        raise failure

    monkeypatch.setattr(storage, "_exchange", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_bundle(before.path, FIELDS, {**FILES, "model.onnx": b"new"}, replace=True)
    assert Bundle.read(before.path) == before and _leftovers(tmp_path) == []


def test_a_copied_bundle_is_the_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "copy")
    assert Bundle.read(tmp_path / "copy").sha256 == bundle.sha256


def test_a_precision_that_is_not_there_names_those_that_are(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="holds no fp16 model, only fp32, int8"):
        bundle.model_file("fp16")
