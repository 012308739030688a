"""`edge-ad selftest`, as a user types it, on the emulated driver: what passes, what has to fail, what is recorded."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.bundle import Bundle
from edge_ad.runtime.engines.tensorrt import kernels
from edge_ad.runtime.engines.tensorrt.choices import Choices, read_choices, write_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import PlanNeed, Tail, this_platform
from edge_ad.runtime.engines.tensorrt.plans import PlanFile

pytestmark = pytest.mark.rung(7)

COMMAND = ("-W", "error", "-m", "edge_ad")
FRAMES = "3"  # too few to choose by: the way that needs least is taken
PICTURES = 3
RUN_FRAMES = 4
GATE, ENGINE = 13, 9
MUTATIONS = {
    "resize_smooth.cu": ("row_weights + row * shape.row_taps", "row_weights + (row & ~1) * shape.row_taps"),
    "preprocess.cu": ("pixels[start + k]", "pixels[start]"),
}
"""Part of a kernel's source, and what takes its place: two rows share their weights, one pixel stands for all."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        coarse.resize((90, 70 + index), Image.Resampling.NEAREST).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def edge_ad(emulated: Callable[..., Any], cpu_kernels: Path, tiny_bundle: Path, engines: Path) -> Callable[..., Any]:
    """Run a command of edge-ad with the small bundle; keywords are variables of its environment."""

    def run(command: str, *options: str, **settings: str) -> Any:
        arguments = (*COMMAND, command, str(tiny_bundle), "--engine-cache", str(engines), *options)
        return emulated(*arguments, **{"EMULATED_CUDA_KERNELS": str(cpu_kernels), **settings})

    return run


WITHOUT_CUDA_GRAPHS = """
import sys
sys.modules.update({"cuda.bindings.driver": None, "cuda.cuda": None})
from edge_ad.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where engines are kept from one test to the next."""
    return tmp_path_factory.mktemp("kept") / "engines"


@pytest.fixture
def with_both_tails(edge_ad: Callable[..., Any], engines: Path, kept: Path) -> None:
    """Both engines, as `edge-ad build` makes them."""
    if not kept.exists():
        for tail in ("graph", "kernel"):
            assert edge_ad("build", "--tail", tail).code == 0
        shutil.copytree(engines, kept)
    shutil.copytree(kept, engines, dirs_exist_ok=True)


@pytest.fixture
def selftest(edge_ad: Callable[..., Any], pictures: Path) -> Callable[..., Any]:
    def run(*options: str, **settings: str) -> Any:
        return edge_ad("selftest", "--images", str(pictures), "--frames", FRAMES, *options, **settings)

    return run


@pytest.fixture
def need(tiny_bundle: Path) -> PlanNeed:
    """What `edge-ad run` asks for on the emulated GPU."""
    bundle = Bundle.read(tiny_bundle)
    sha256 = bundle.manifest.files[bundle.model_file("fp32")]
    return PlanNeed("tensorrt", "10.3.0", 86, "emulated GPU", "fp32", 1, sha256, None, this_platform())


@pytest.fixture(scope="session")
def wrong_kernels(emulated_driver: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both kernels with a fault each, for the emulated driver."""
    harness = sys.modules["edge_ad_tests_cuda_on_cpu_harness"]
    folder = tmp_path_factory.mktemp("wrong_kernels")
    sources = folder / "sources"
    sources.mkdir()
    for name, (right, wrong) in MUTATIONS.items():
        text = (Path(kernels.__file__).parent / name).read_text()
        assert text.count(right) == 1
        (sources / name).write_text(text.replace(right, wrong))
    harness.Compiler(folder).library(folder / "kernels.so", sources)
    return folder / "kernels.so"


def _launches_of_a_run(edge_ad: Callable[..., Any], **settings: str) -> int:
    source = ("--source", "sim:?size=80x64&seed=1", "--max-frames", str(RUN_FRAMES))
    done = edge_ad("run", "--engine", "tensorrt", *source, **settings)
    assert done.code == 0, done.err
    return int(done.report["launches"])


def _damage(engines: Path, tail: Tail, graph: bytes) -> None:
    """Let the engine with a tail compute another graph; its sidecar still vouches for it."""
    for path in engines.glob("*.plan"):
        place = PlanFile(path)
        fingerprint, plan = place.fingerprint(), place.read()
        assert fingerprint is not None and plan is not None
        if fingerprint.tail == tail:
            magic, head, _ = plan.split(b"\n", 2)
            place.write(fingerprint, b"\n".join((magic, head, graph)))


def test_engines_are_built_examined_and_said_on_one_page(
    edge_ad: Callable[..., Any], selftest: Callable[..., Any], engines: Path, need: PlanNeed
) -> None:
    done = selftest("--build", "--budget-ms", "100000")
    assert done.code == 0, done.err
    assert done.err.count("building fp32 for emulated GPU (SM86)") == 2
    page = done.out
    assert page.splitlines()[-1].startswith("PASSED")
    assert 20 < len(page.splitlines()) < 70
    for words in (
        "edge-ad selftest of engine tensorrt",
        "emulated GPU, SM 8.6",
        "TensorRT 10.3.0",
        "CUDA driver",
        "sha256 ",
        "fingerprint ",
        "Engine against onnxruntime on the CPU (fp32 model), 3 pictures of pictures",
        "budget 100000 ms: kept",
        "recorded for 'edge-ad run': defaults, in ",
    ):
        assert words in page, words
    for tail in ("graph", "kernel"):
        assert re.search(rf"^  {tail} tail +1 .* 0 of 3 .* ok$", page, re.MULTILINE)
    assert re.search(r"^  kernel tail + \d\.\de-0\d +\d\.\de-0\d +ok$", page, re.MULTILINE)
    assert re.search(r"^  [01] in 0\S* %  ok$", page, re.MULTILINE)
    for way in ("defaults", "kernel tail", "device preprocessing", "kernel tail [+] device preprocessing"):
        assert re.search(rf"^  {way}( +\d+\.\d\d){{6}}", page, re.MULTILINE), way
    for name in ("device_allocations", "host_allocations", "streams", "events", "modules", "primary_retains"):
        assert done.report[name] == 0, name
    assert done.report["faults"] == []
    choices = read_choices(engines, need)
    assert choices is not None and choices.tail == "graph" and choices.medians_ms.keys() >= {"defaults", "kernel tail"}
    assert _launches_of_a_run(edge_ad) == 0


@pytest.mark.usefixtures("with_both_tails")
def test_an_engine_whose_outputs_are_scaled_fails_and_the_other_one_is_run(
    edge_ad: Callable[..., Any], selftest: Callable[..., Any], engines: Path, halved_graph: bytes, need: PlanNeed
) -> None:
    _damage(engines, "graph", halved_graph)
    done = selftest("--json")
    assert done.code == GATE
    report = json.loads(done.out)
    assert report["verdict"].startswith("FAILED: graph tail: batch 1: patch map off by ")
    assert {failure.split(": ")[0] for failure in report["failures"] if "CUDA graph" not in failure} == {"graph tail"}
    assert [row["way"] for row in report["latency"]][:2] == ["kernel tail", "kernel tail + device preprocessing"]
    assert report["fastest"] == "kernel tail"
    (line,) = done.err.splitlines()
    assert line.startswith("edge-ad: error: selftest: FAILED: graph tail")
    choices = read_choices(engines, need)
    assert choices is not None and choices.tail == "kernel"
    assert _launches_of_a_run(edge_ad) == RUN_FRAMES + 1  # what was recorded is what is run; one to warm up
    _damage(engines, "kernel", halved_graph)
    done = selftest("--no-record")
    assert done.code == GATE
    assert "not recorded, as was asked for; WARNING: what is recorded, kernel tail, has failed" in done.out
    assert read_choices(engines, need) == choices


@pytest.mark.usefixtures("with_both_tails")
def test_wrong_kernels_fail_and_are_not_run_any_more(
    edge_ad: Callable[..., Any], selftest: Callable[..., Any], engines: Path, wrong_kernels: Path, need: PlanNeed
) -> None:
    write_choices(engines, need, Choices(tail="kernel", preprocess="device"))
    settings = {"EMULATED_CUDA_KERNELS": str(wrong_kernels)}
    done = selftest("--json", **settings)
    assert done.code == GATE
    report = json.loads(done.out)
    wrong = {failure.split(": ")[0] for failure in report["failures"] if "CUDA graph" not in failure}
    assert wrong == {"kernel tail", "device preprocessing"}
    assert any("off the float64 operator by" in failure for failure in report["failures"])
    assert any("grey levels, allowed 1" in failure for failure in report["failures"])
    assert report["latency"][0]["way"] == report["fastest"] == "defaults"
    assert not any("kernel" in row["way"] or "device" in row["way"] for row in report["latency"])
    choices = read_choices(engines, need)
    assert choices is not None and (choices.tail, choices.preprocess) == ("graph", "cpu")
    assert _launches_of_a_run(edge_ad, **settings) == 0


def test_what_is_not_there_is_said_and_the_rest_examined(
    edge_ad: Callable[..., Any], emulated: Callable[..., Any], tiny_bundle: Path, engines: Path, pictures: Path
) -> None:
    options = (str(tiny_bundle), "--engine-cache", str(engines), "--images", str(pictures), "--frames", "1")
    done = emulated(*COMMAND, "selftest", *options)
    assert done.code == ENGINE
    assert done.out == ""
    (line,) = done.err.splitlines()
    command = f"edge-ad build {tiny_bundle} --precision fp32"
    assert f"no TensorRT engine can be tested: build the engine: {command} --engine-cache {engines}; " in line
    assert f"build the engine: {command} --tail kernel --engine-cache {engines}" in line
    assert edge_ad("build").code == 0
    done = emulated("-W", "error", "-c", WITHOUT_CUDA_GRAPHS, "selftest", *options)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[-1] == "PASSED; not checked: kernel tail, CUDA graph, device preprocessing"
    missing = {line.split(": ")[0].strip(): line for line in lines[lines.index("Not checked") + 1 :]}
    tail = f"wanted kernel; build the engine: {command} --tail kernel --engine-cache {engines}"
    assert missing["kernel tail"].endswith(tail)
    assert "the GPU failed to load the kernel for frames" in missing["device preprocessing"]
    assert not any(" + CUDA graph" in line for line in lines)
    assert done.report["faults"] == []


@pytest.mark.usefixtures("with_both_tails")
def test_a_gpu_that_is_lost_ends_it_in_one_line_and_nothing_in_question_is_left_recorded(
    selftest: Callable[..., Any], engines: Path, need: PlanNeed
) -> None:
    write_choices(engines, need, Choices(tail="kernel"))
    done = selftest(EMULATED_CUDA_FAIL="cuLaunchKernel 3 700 1")
    assert done.code == ENGINE
    assert "edge-ad: error: self-test: the GPU is lost to this process" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert read_choices(engines, need) == Choices()
