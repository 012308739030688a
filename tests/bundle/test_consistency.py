"""A manifest that contradicts itself or the contract is refused when it is read, whatever its checksums say."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_ad.bundle.bundle import CHECKSUM, MANIFEST, Bundle
from edge_ad.bundle.consistency import MAX_FILE_BYTES, MAX_FILES
from edge_ad.cli.main import main
from edge_ad.errors import BundleError
from edge_ad.validation import dump_yaml, plain

DISC = Path(str(resources.files("edge_ad"))) / "demo" / "disc.edgead"
SOUND: dict[str, Any] = yaml.safe_load((DISC / MANIFEST).read_text("utf-8"))
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed") / "b.edgead"
    folder.mkdir()
    (folder / "model.onnx").write_bytes((DISC / "model.onnx").read_bytes())
    return folder


def seal(folder: Path, manifest: dict[str, Any] | str) -> Path:
    """Put a manifest and a checksum that fits it into a bundle."""
    text = (manifest if isinstance(manifest, str) else yaml.dump(manifest, Dumper=DUMPER, sort_keys=False)).encode()
    (folder / MANIFEST).write_bytes(text)
    (folder / CHECKSUM).write_bytes(f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n".encode())
    return folder


def changed(change: Change) -> dict[str, Any]:
    manifest = copy.deepcopy(SOUND)
    change(manifest)
    return manifest


def test_the_sound_one_and_harmless_changes_are_read(folder: Path) -> None:
    """Control for everything below."""
    harmless: tuple[Change, ...] = (
        lambda m: None,
        lambda m: m["model"]["config"].update(more={"a": [1, 2.5, None, "x"]}),
        lambda m: m["preprocess"].update(resize=None),
        lambda m: m["preprocess"].update(resize_mode="letterbox", resize=None, pad_rgb=[0, 114, 255]),
        lambda m: m["postprocess"].update(score="patch_max"),
        lambda m: m["outputs"][0].update(shape=[None, 256, 256]),
        lambda m: [tensor["shape"].__setitem__(0, 4) for tensor in (m["input"], *m["outputs"])],
        lambda m: m.update(opset=13),
    )
    for change in harmless:
        assert Bundle.read(seal(folder, changed(change))).manifest.input.name == "image"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["outputs"].reverse(), "wanted patch_map, anomaly_map, pred_score in this order, got pred"),
        (lambda m: m["outputs"].insert(0, m["outputs"].pop(1)), "in this order, got anomaly_map, patch_map"),
        (lambda m: m["outputs"].pop(), "got patch_map, anomaly_map; export"),
        (lambda m: m["outputs"].clear(), "got none"),
        (lambda m: m["outputs"].append(m["outputs"][0]), "in this order"),
        (lambda m: m["outputs"].__setitem__(2, m["outputs"][0]), "in this order"),
        (lambda m: m["outputs"][0].update(shape=[None, 0, 32]), "patch_map with a batch of any size, 1 to 256 rows"),
        (lambda m: m["outputs"][0].update(shape=[None, 32, 257]), "columns, got float32 'patch_map' (N, 32, 257)"),
        (lambda m: m["outputs"][0].update(shape=[None, None, 32]), "1 to 256 rows"),
        (lambda m: m["outputs"][0].update(shape=[None, 32]), "1 to 256 rows"),
        (lambda m: m["outputs"][0].update(shape=[1, 32, 32]), "wanted float32 'patch_map' (N, 32, 32), got"),
        (lambda m: m["outputs"][0].update(dtype="uint8"), "wanted float32 'patch_map'"),
        (lambda m: m["outputs"][1].update(shape=[None, 255, 256]), "wanted float32 'anomaly_map' (N, 256, 256), got"),
        (lambda m: m["outputs"][2].update(shape=[None, 1]), "wanted float32 'pred_score' (N)"),
        (lambda m: m["input"].update(name="picture"), "wanted uint8 'image' (N, 256, 256, 3), got uint8 'picture'"),
        (lambda m: m["input"].update(dtype="float32"), "got float32 'image'"),
        (lambda m: m["input"].update(shape=[None, 3, 256, 256]), "input: wanted uint8 'image' (N, 256, 256, 3)"),
        (lambda m: m["input"].update(shape=[]), "input: wanted"),
        (lambda m: m["input"].update(shape=[0, 256, 256, 3]), "wanted a batch of 1 to 1024"),
        (lambda m: m["input"].update(shape=[10**9, 256, 256, 3]), "wanted a batch of 1 to 1024"),
        (lambda m: m["preprocess"].update(height=128), "input: wanted uint8 'image' (N, 128, 256, 3)"),
        (lambda m: m["preprocess"].update(height=10**9), "preprocess.height: wanted at most 8192 pixels"),
        (lambda m: m["preprocess"].update(width=2**63), "preprocess.width: wanted at most 8192 pixels"),
        (lambda m: m["preprocess"].update(resize=10**9), "preprocess.resize: wanted at most 8192 pixels"),
        (lambda m: m["preprocess"].update(resize_mode="stretch"), "resize: belongs to resize_mode shorter_side_crop"),
        (lambda m: m["preprocess"].update(pad_rgb=[0, 0, 256]), "pad_rgb: wanted grey levels"),
        (lambda m: m["postprocess"].update(sigma=1e9), "sigma times truncate"),
        (lambda m: m["postprocess"].update(truncate=1e300), "sigma times truncate"),
        (lambda m: m.update(opset=2**40), "opset: wanted 13 to 17"),
        (lambda m: m.update(models={}), "models: wanted at least one"),
        (lambda m: m.update(models={"fp32": "x.onnx"}), "'x.onnx' (fp32) has no checksum"),
        (lambda m: m.update(openvino_ir={"fp32": "x.xml"}), "'x.xml' (fp32) has no checksum"),
        (lambda m: m["files"].update({"model.onnx": "0" * 63}), "wanted a SHA-256"),
        (lambda m: m["files"].update({f"{n}.bin": "0" * 64 for n in range(MAX_FILES)}), "at most 64, got 65"),
        (lambda m: m.update(precision_thresholds={"int8": {"image": 0.5}}), "speaks of int8"),
        (lambda m: m["model"]["config"].update(a=[float("inf")]), "model.config.a.0: wanted a finite number"),
        (lambda m: m["model"]["config"].update(a={1: 2}), "model.config.a: wanted names, got the key 1"),
        (lambda m: m["model"]["config"].update(a=2**70), "no valid YAML"),
        (lambda m: m.update({f"k{n}": 0 for n in range(5_000)}), "and 4970 more"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(folder: Path, change: Change, words: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.read(seal(folder, changed(change)))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_a_batch_of_large_pictures_is_bounded_by_both(folder: Path) -> None:
    def large(manifest: dict[str, Any], batch: int | None) -> None:
        manifest["preprocess"].update(height=8192, width=8192)
        manifest["input"]["shape"] = [batch, 8192, 8192, 3]
        for tensor, shape in zip(manifest["outputs"], ([32, 32], [8192, 8192], []), strict=True):
            tensor["shape"] = [batch, *shape]

    for batch in (None, 1, 2):
        Bundle.read(seal(folder, changed(lambda m, batch=batch: large(m, batch))))  # type: ignore[misc]
    with pytest.raises(BundleError, match="3 images of 8192x8192 pixels are more than"):
        Bundle.read(seal(folder, changed(lambda m: large(m, 3))))


def test_a_file_that_is_too_large_is_not_hashed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(folder, SOUND | {"files": SOUND["files"] | {"large.bin": "0" * 64}})
    with (folder / "large.bin").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    monkeypatch.setattr("edge_ad.bundle.bundle.sha256_of_each", lambda paths: pytest.fail("it was hashed"))
    with pytest.raises(BundleError, match=r"large\.bin has 2147483648 bytes, wanted at most 2147483647"):
        Bundle.read(folder)


@pytest.mark.parametrize(
    "arguments",
    [
        ["info"],
        ["info", "--json"],
        ["run", "--source", "sim:", "--engine", "fake", "--output", "out"],
        ["threshold", "--value", "0.5", "-o", "new.edgead"],
        ["calibrate", "--data", ".", "-o", "new.edgead"],
        ["build"],
        ["bench", "--engine", "fake"],
        ["selftest"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_that_reads_it_says_so(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = seal(folder, changed(lambda m: m["outputs"].reverse()))
    command, *rest = arguments
    assert main([command, str(bundle), *rest]) == BundleError.exit_code
    captured = capfd.readouterr()
    assert "in this order, got pred_score, anomaly_map, patch_map" in captured.err.splitlines()[-1]
    assert captured.out == "" and list(tmp_path.iterdir()) == []


def test_check_reports_it_among_the_rest(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = seal(folder, changed(lambda m: m["outputs"].reverse()))
    line = tmp_path / "line.yaml"
    line.write_text(f"bundle: {bundle}\nengine: fake\ncameras: [{{source: 'sim:'}}]\n")
    assert main(["check", "-c", str(line)]) == BundleError.exit_code
    assert "in this order" in "".join(capfd.readouterr())


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 7, 255, 10**9, 2**31, 2**63, -(2**63), 2**64, 0.5, -1.0, 1e-300, 1e300),
    *(float("nan"), float("inf"), "", "x", "off", "1e3", "../x", "a" * 5000, "\x1b[31m", "int8", "patch_max"),
    *("letterbox", "uint8", "model.onnx", MANIFEST, [], {}, [1], [None, 256, 256], {"a": 1}, {1: 2}, [[]]),
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from paths(part, (*path, key))


def mutated(rng: random.Random) -> dict[str, Any]:
    """One to three values replaced, removed, added or reordered."""
    manifest = copy.deepcopy(SOUND)
    for _ in range(rng.randint(1, 3)):
        *way, key = rng.choice(list(paths(manifest)))
        parent: Any = manifest
        for step in way:
            parent = parent[step]
        how, value = rng.random(), copy.deepcopy(rng.choice(VALUES))
        if how < 0.7:
            parent[key] = value
        elif how < 0.8:
            del parent[key]
        elif isinstance(parent, dict):
            parent[rng.choice(["more", "fp16", "int8", "height"])] = value
        elif how < 0.9:
            rng.shuffle(parent)
        else:
            parent.append(value)
    return manifest


def test_mutated_manifests_are_read_whole_or_refused(folder: Path) -> None:
    """Whatever is read can be told, as YAML and as strict JSON, and written again."""
    rng, read, said = random.Random(0), 0, list[str]()
    for _ in range(300):
        try:
            bundle = Bundle.read(seal(folder, mutated(rng)))
        except BundleError as exc:
            said.append(str(exc))
            continue
        read += 1
        facts = plain(bundle.manifest)
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts
        assert Bundle.read(seal(folder, dump_yaml(facts))).manifest == bundle.manifest
    assert not any("\n" in line or len(line) > 20_000 for line in said)
    assert 10 < read < 150  # the mutations do something, and not everything is refused
