"""`edge-ad bench` as a user types it, with the bundle that ships with edge-ad; how long things take is no matter."""

from __future__ import annotations

import csv
import html.parser
import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edge_ad
from edge_ad.cli.main import main
from edge_ad.engine import BatchArray, Outputs
from edge_ad.image.preprocess import chosen_resizer
from edge_ad.runtime.engines.fake import FakeEngine
from edge_ad.runtime.instruments.bench import layers, measure, yardstick

Capture = pytest.CaptureFixture[str]
CONFIG, BUNDLE, IMAGE, OUTPUT, REGRESSION = 3, 5, 8, 11, 16
DISC = str(Path(edge_ad.__file__).parent / "demo" / "disc.edgead")
SHORT = ("--duration", "0.2", "--warmup", "0")
FAKE = ("bench", DISC, "--engine", "fake", "--frame", "256x256", *SHORT)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short rounds and small products."""
    monkeypatch.setattr("edge_ad.runtime.instruments.bench.run.PeakGemm", partial(yardstick.PeakGemm, side=128))
    monkeypatch.setattr(measure, "ROUND_MS", 4.0)


def strict(text: str) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    content: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return content


def test_the_tables_and_the_json_tell_the_same(tmp_path: Path, capsys: Capture, engine_cache: Path) -> None:
    places = {name: tmp_path / f"bench.{name}" for name in ("json", "csv", "html", "base")}
    options = ("--export-json", places["json"], "--export-times", places["csv"], "--html", places["html"])
    more = ("--percentile", "50,99.9", "--save-baseline", places["base"], "--engine-cache", engine_cache)
    assert main(["bench", DISC, "--frame", "320x240", *SHORT, *map(str, (*options, *more))]) == 0
    printed = capsys.readouterr()
    told = strict(places["json"].read_text("ascii"))
    assert [line for line in printed.err.splitlines() if line.startswith("wrote")] == [
        f"wrote {places[name]}" for name in ("csv", "json", "html", "base")
    ]

    assert told["subject"]["frame_hw"] == [240, 320] and told["subject"]["engine"] == "openvino"
    assert told["machine"]["resize"] == chosen_resizer().name
    assert told["roofline"]["mac"] == 165_494_784 and "0.165 GMAC per call" in printed.out
    for stage in measure.STAGES:
        row = told["latency_ms"][stage]
        assert list(row) == ["mean", "p50", "p99.9", "max"] and 0 < row["p50"] <= row["p99.9"] <= row["max"]
        line = next(line for line in printed.out.splitlines() if line.startswith(f"│ {stage}"))
        assert [float(cell) for cell in line.strip("│ ").split("│")[1:]] == [round(value, 2) for value in row.values()]
    assert told["run"]["rounds"] >= 20 and told["gate"] is None
    assert {peak["arithmetic"] for peak in told["roofline"]["peaks"]} == {"fp32", "int8"}
    assert told["roofline"]["share"] > 0 and "of this machine's peak in fp32" in printed.out
    names = [layer["name"] for layer in told["layers"]["layers"]]
    assert len(names) > 20 and all(layer["mean_ms"] > 0 for layer in told["layers"]["layers"])
    assert {"Convolution", "GroupConvolution"} <= {layer["kind"] for layer in told["layers"]["layers"]}

    with places["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == told["run"]["calls"] and int(rows[-1]["round"]) == told["run"]["rounds"] - 1
    totals = [float(row["total_ms"]) for row in rows]
    assert max(totals) == told["latency_ms"]["total"]["max"]
    assert np.percentile(totals, 50) == pytest.approx(told["latency_ms"]["total"]["p50"], rel=1e-12)
    for row in rows:
        assert sum(float(row[f"{stage}_ms"]) for stage in measure.STAGES[:3]) == pytest.approx(float(row["total_ms"]))
    base = strict(places["base"].read_text("ascii"))
    assert len(base["elapsed"]["total"]) == told["run"]["rounds"] and base["subject"] == told["subject"]


class Page(html.parser.HTMLParser):
    """Counts tags, and checks that those that open also close."""

    void = frozenset({"meta", "rect", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "action")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(tmp_path: Path, engine_cache: Path) -> None:
    where, page = str(tmp_path / "<i>disc.edgead"), tmp_path / "bench.html"
    shutil.copytree(DISC, where)
    assert (
        main(["bench", where, "--frame", "64x64", *SHORT, "--html", str(page), "--engine-cache", str(engine_cache)])
        == 0
    )
    text = page.read_text("utf-8")
    seen = Page()
    seen.feed(text)
    assert seen.open == [] and seen.links == [] and "script" not in seen.tags and "i" not in seen.tags
    assert "&lt;i&gt;disc.edgead" in text and "http:" not in text and "https:" not in text
    assert seen.tags["svg"] == 3 and seen.tags["rect"] == 3 * 48
    assert "brgconv" in text or "Convolution" in text


def test_a_slower_engine_fails_and_the_same_again_passes(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real, on a machine that may be busy, so the slowdown is huge: every batch is computed 60 times."""
    base, kept = tmp_path / "base.json", tmp_path / "kept.json"
    assert main([*FAKE, "--save-baseline", str(base)]) == 0
    again = main([*FAKE, "--baseline", str(base), "--fail-above", "300%", "--save-baseline", str(kept)])
    assert again == 0 and kept.exists()
    capsys.readouterr()
    once = FakeEngine.infer_impl

    def slowly(self: FakeEngine, batch_nhwc: BatchArray) -> Outputs:
        for _ in range(59):
            once(self, batch_nhwc)
        return once(self, batch_nhwc)

    monkeypatch.setattr(FakeEngine, "infer_impl", slowly)
    told = tmp_path / "slow.json"
    slow = ("--baseline", str(base), "--fail-above", "300%", "--export-json", str(told))
    assert main([*FAKE, *slow, "--save-baseline", str(kept), "--force"]) == REGRESSION
    printed = capsys.readouterr()
    gate = strict(told.read_text())["gate"]
    assert "total" in gate["slower"] and gate["changes"]["total"]["low"] > 2.5
    assert "slower than the baseline" in printed.err.splitlines()[-1] and "against the baseline" in printed.out
    assert "no baseline is saved" in printed.err
    assert strict(kept.read_text())["median_ms"]["infer"] < strict(told.read_text())["latency_ms"]["infer"]["p50"]


def test_a_baseline_of_a_busy_machine_is_saved_with_a_warning(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base.json"
    for share, warned in ((0.5, True), (0.05, False)):
        monkeypatch.setattr("edge_ad.runtime.instruments.bench.busy.OtherPrograms.share", lambda _, share=share: share)
        assert main([*FAKE, "--save-baseline", str(base), "--force"]) == 0
        printed = capsys.readouterr()
        assert ("poor baseline" in printed.err) is warned
        assert ("other programs had 50% of the processors" in printed.out) is warned
        assert strict(base.read_text())["others"] == share


def test_json_goes_to_standard_output_alone(capsys: Capture) -> None:
    assert main([*FAKE, "--json"]) == 0
    told = strict(capsys.readouterr().out)
    assert told["roofline"]["reason"] == "the engine 'fake' computes no graph" and told["layers"]["layers"] == []
    assert all(math.isfinite(value) for row in told["latency_ms"].values() for value in row.values())


def test_a_batch_counts_its_frames(capsys: Capture) -> None:
    assert main([*FAKE, "--json", "--batch", "3"]) == 0
    told = strict(capsys.readouterr().out)
    assert told["run"]["frames"] == 3 * told["run"]["calls"] and told["subject"]["batch"] == 3
    assert told["frames_per_s"] == pytest.approx(3000 / told["latency_ms"]["total"]["mean"])


def test_layers_come_from_onnx_runtime_too(disc_graph: bytes) -> None:
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.engine import EngineSpec

    manifest = Bundle.read(DISC).manifest
    spec = EngineSpec(manifest.input, manifest.outputs, "fp32", 1, "")
    found = layers.layer_times("onnxruntime", disc_graph, spec, np.zeros((1, 256, 256, 3), np.uint8))
    assert "Conv" in {layer.kind for layer in found.layers}
    assert [layer.mean_ms for layer in found.layers] == sorted((layer.mean_ms for layer in found.layers), reverse=True)
    assert layers.layer_times("tensorrt", b"", spec, np.zeros((1, 1, 1, 3), np.uint8)).layers == ()


@pytest.fixture
def disc_graph() -> bytes:
    return (Path(DISC) / "model.onnx").read_bytes()


def test_a_users_picture_takes_the_place_of_the_made_one(tmp_path: Path, capsys: Capture) -> None:
    picture = tmp_path / "part.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(picture)
    fake = ("bench", DISC, "--engine", "fake", *SHORT, "--image", str(picture))
    base = tmp_path / "base.json"
    assert main([*fake, "--json", "--save-baseline", str(base)]) == 0
    told = strict(capsys.readouterr().out)
    assert told["subject"]["frame_hw"] == [40, 30] and told["subject"]["picture"].startswith("sha256:")
    Image.fromarray(np.full((40, 30, 3), 3, np.uint8)).save(picture)
    assert main([*fake, "--baseline", str(base)]) == IMAGE  # black
    assert "cannot be judged" in capsys.readouterr().err
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(picture)
    assert main([*fake, "--baseline", str(base)]) == CONFIG
    assert "picture: the baseline has" in capsys.readouterr().err


def test_another_subject_than_the_baselines_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base.json"
    assert main([*FAKE, "--save-baseline", str(base)]) == 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("edge_ad.runtime.instruments.bench.run.measure", never)
    capsys.readouterr()
    assert main([*FAKE, "--frame", "64x64", "--batch", "2", "--baseline", str(base)]) == CONFIG
    told = capsys.readouterr().err
    assert "batch: the baseline has 1, this run 2" in told and "frame: the baseline has 256x256, this run 64x64" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--duration", "0"), CONFIG, "duration_s: wanted a number above 0"),
        (("--percentile", "50,100"), CONFIG, "percentiles: wanted numbers between 0 and 100"),
        (("--percentile", "a"), CONFIG, "percentiles: wanted numbers"),
        (("--frame", "1920"), CONFIG, "frame_hw: wanted WIDTHxHEIGHT"),
        (("--frame", "0x5"), CONFIG, "frame_hw: wanted WIDTHxHEIGHT"),
        (("--frame", "64x64", "--image", "a.png"), CONFIG, "either --frame or --image"),
        (("--fail-above", "10%"), CONFIG, "wanted a --baseline"),
        (("--baseline", "b", "--fail-above", "10"), CONFIG, "fail_above: wanted a share such as 10% or 0.1"),
        (("--baseline", "b", "--fail-above", "nan"), CONFIG, "fail_above: wanted a share"),
        (("--baseline", "absent"), CONFIG, "--save-baseline writes one"),
        (("--device", "0"), CONFIG, "device: is for --engine tensorrt"),
        (("--dla", "0"), CONFIG, "dla: is for --engine tensorrt"),
        (("--engine", "none"), CONFIG, "engine: wanted one of"),
        (("--html", "a", "--export-json", "a"), CONFIG, "another file for each"),
        (("--batch", "65"), CONFIG, "batch: wanted a number of at most 64"),
        (("--html", "absent/a.html"), OUTPUT, "in no folder that exists"),
        (("--html", "."), OUTPUT, "is a folder"),
        (("--image", "absent.png"), IMAGE, "absent.png"),
    ],
)
def test_a_wrong_option_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, options: tuple[str, ...], code: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", DISC, *options]) == code
    seen = capsys.readouterr().err
    assert told in seen and len(seen.splitlines()) == 1


def test_all_faults_are_told_at_once_and_a_file_that_exists_is_kept(tmp_path: Path, capsys: Capture) -> None:
    assert main(["bench", DISC, "--duration", "-1", "--fail-above", "1%", "--batch", "x"]) == CONFIG
    told = capsys.readouterr().err
    assert all(fault in told for fault in ("duration_s", "fail-above", "batch"))
    there = tmp_path / "there.html"
    there.write_text("mine")
    assert main(["bench", DISC, "--html", str(there)]) == OUTPUT
    assert "--force" in capsys.readouterr().err and there.read_text() == "mine"
    assert main(["bench", str(tmp_path)]) == BUNDLE
