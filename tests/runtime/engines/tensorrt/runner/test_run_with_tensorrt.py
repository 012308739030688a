"""`edge-ad build` and `edge-ad run --engine tensorrt`, as a user types them, on the emulated driver."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_ad.cli.main import main
from edge_ad.runtime.engines.tensorrt.choices import Choices, write_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import PlanNeed, this_platform
from edge_ad.runtime.engines.tensorrt.gpu import find_gpus

pytestmark = pytest.mark.rung(7)

# The graph is computed by ONNX Runtime here and by OpenVINO there: float32, sums in another order, about 1e-6 in these
# probabilities. 2e-4 is what a GPU may differ by, which adds up in yet another order and has its own exponential.
SCORE_ATOL = 2e-4
DEVICE_SCORE_ATOL = 1e-3  # where some values of the model input are a grey level off
FRAMES = 12
SOURCE = ["--source", "sim:?size=160x120&seed=1&defects=0.5", "--max-frames", str(FRAMES)]
COMMAND = ("-W", "error", "-m", "edge_ad")


def _records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _need(engines: Path) -> PlanNeed:
    """What a run asks for that the engine in a folder fits."""
    (sidecar,) = engines.glob("*.json")
    built = json.loads(sidecar.read_text())["fingerprint"]
    return PlanNeed(
        "tensorrt", built["version"], 86, built["gpu"], "fp32", 1, built["onnx_sha256"], None, this_platform()
    )


def test_verdicts_are_the_same_where_the_kernel_makes_the_maps(
    emulated: Callable[..., Any],
    cpu_kernels: Path,
    tiny_bundle: Path,
    engine_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = (str(tiny_bundle), "--engine-cache", str(tmp_path / "engines"))
    assert emulated(*COMMAND, "build", *options, "--tail", "kernel").code == 0
    command = ("run", *options, "--engine", "tensorrt", *SOURCE)
    done = emulated(*COMMAND, *command, EMULATED_CUDA_KERNELS=str(cpu_kernels))
    assert done.code == 0, done.err
    assert main(["run", str(tiny_bundle), "--engine-cache", str(engine_cache), *SOURCE]) == 0
    wanted = _records(capsys.readouterr().out)
    got = _records(done.out)
    assert len(got) == len(wanted) == FRAMES
    for one, other in zip(got, wanted, strict=True):
        assert (one["status"], one["verdict"], one["engine"]) == ("ok", other["verdict"], "tensorrt")
        assert math.isclose(one["score"], other["score"], rel_tol=0, abs_tol=SCORE_ATOL)
        assert [region["box_xyxy"] for region in one["regions"]] == [region["box_xyxy"] for region in other["regions"]]
    assert done.report["launches"] == FRAMES + 1
    assert done.report["faults"] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "3"], "GPU 3 does not exist; visible to CUDA: 0 (emulated GPU)"),
        (["--dla", "1"], "built for the GPU, wanted DLA core 1; build one"),
    ],
)
def test_another_device_than_the_one_that_is_there(
    emulated: Callable[..., Any], engines: Path, tiny_bundle: Path, options: list[str], says: str
) -> None:
    command = ("run", str(tiny_bundle), "--engine", "tensorrt", "--engine-cache", str(engines), *SOURCE)
    done = emulated(*COMMAND, *command, *options)
    assert done.code == 9
    (line,) = done.err.splitlines()
    assert says in line


@pytest.mark.parametrize("option", ["--device", "--dla"])
def test_a_device_is_for_tensorrt(tiny_bundle: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["run", str(tiny_bundle), option, "0", *SOURCE]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{option[2:]}: is for --engine tensorrt, not for openvino; leave it out" in line


@pytest.mark.parametrize("settings", [{}, {"EMULATED_CUDA_INTEGRATED": "1"}, {"EMULATED_CUDA_ORDER": "7"}])
def test_verdicts_are_those_of_openvino(
    emulated: Callable[..., Any],
    engines: Path,
    tiny_bundle: Path,
    engine_cache: Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, str],
) -> None:
    done = emulated(
        *COMMAND, "run", str(tiny_bundle), "--engine", "tensorrt", "--engine-cache", str(engines), *SOURCE, **settings
    )
    assert done.code == 0, done.err
    assert done.err.startswith("engine tensorrt, fp32, from the cache")
    assert main(["run", str(tiny_bundle), "--engine-cache", str(engine_cache), *SOURCE]) == 0
    wanted = _records(capsys.readouterr().out)
    got = _records(done.out)
    assert len(got) == len(wanted) == FRAMES
    for one, other in zip(got, wanted, strict=True):
        assert (one["status"], one["verdict"], one["engine"]) == ("ok", other["verdict"], "tensorrt")
        assert math.isclose(one["score"], other["score"], rel_tol=0, abs_tol=SCORE_ATOL)
        assert [region["box_xyxy"] for region in one["regions"]] == [region["box_xyxy"] for region in other["regions"]]
    assert len({entry["score"] for entry in got}) == FRAMES  # control: the frames differ
    report = done.report
    assert report["faults"] == []
    assert report["copies"] == (0 if "EMULATED_CUDA_INTEGRATED" in settings else 4 * (FRAMES + 1))  # one to warm up
    for name in ("device_allocations", "host_allocations", "streams", "events", "primary_retains"):
        assert report[name] == 0


def test_verdicts_are_the_same_where_launches_are_replayed(
    emulated: Callable[..., Any], engines: Path, tiny_bundle: Path, cuda_graph: dict[str, str]
) -> None:
    command = ("run", str(tiny_bundle), "--engine", "tensorrt", "--engine-cache", str(engines), *SOURCE)
    launched = emulated(*COMMAND, *command)
    write_choices(engines, _need(engines), Choices(cuda_graph=True))
    replayed = emulated(*COMMAND, *command)
    assert replayed.code == 0, replayed.err
    wanted, got = _records(launched.out), _records(replayed.out)
    for name in ("status", "verdict", "score", "regions"):
        assert [record[name] for record in got] == [record[name] for record in wanted]
    assert len({record["score"] for record in got}) == FRAMES
    assert launched.report["graph_launches"] == 0
    assert replayed.report["graph_launches"] == FRAMES + 1  # recorded while it is loaded; one to warm up
    assert replayed.report["faults"] == []
    for name in ("graphs", "graph_execs", "captures", "device_allocations", "streams", "events"):
        assert replayed.report[name] == 0


def test_a_line_of_cameras_does_all_that_the_selftest_may_choose(
    emulated: Callable[..., Any],
    cpu_kernels: Path,
    cuda_graph: dict[str, str],
    tiny_bundle: Path,
    engine_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Six cameras in one file, each with a part of the picture of its own, in batches; all three choices at once."""
    engines = tmp_path / "engines"
    build = ("build", str(tiny_bundle), "--engine-cache", str(engines), "--batch", "3", "--tail", "kernel")
    assert emulated(*COMMAND, *build).code == 0
    write_choices(engines, _need(engines), Choices("kernel", "device", cuda_graph=True))
    cameras = [
        {
            "name": f"camera {number}",
            "source": f"sim:?size=160x120&seed={number}&defects=0.5",
            "roi": [4 * number, 3 * number, 160 - number, 120 - 2 * number],
            "max_frames": 3,
        }
        for number in range(6)
    ]
    line = tmp_path / "line.yaml"
    line.write_text(json.dumps({"bundle": str(tiny_bundle), "batch": 3, "blur_check": "off", "cameras": cameras}))
    command = ("run", "-c", str(line), "--engine-cache")
    done = emulated(*COMMAND, *command, str(engines), "--engine", "tensorrt", EMULATED_CUDA_KERNELS=str(cpu_kernels))
    assert done.code == 0, done.err
    assert main([*command, str(engine_cache)]) == 0
    got, wanted = (
        {(record["source"], record["frame_id"]): record for record in _records(text)}
        for text in (done.out, capsys.readouterr().out)
    )
    assert got.keys() == wanted.keys() and len(got) == 6 * 3
    for key, record in wanted.items():
        other = got[key]
        assert (other["status"], other["engine"]) == ("ok", "tensorrt")
        assert (other["verdict"], other["inspected_box"]) == (record["verdict"], record["inspected_box"])
        assert math.isclose(other["score"], record["score"], rel_tol=0, abs_tol=DEVICE_SCORE_ATOL)
    assert len({record["score"] for record in got.values()}) == len(got)  # control: the frames differ
    report = done.report
    assert report["graph_launches"] > 0
    assert report["launches"] > len(got)  # each frame's, those of the tail beside them
    assert report["faults"] == []
    for name in ("graphs", "graph_execs", "device_allocations", "host_allocations", "streams", "events", "modules"):
        assert report[name] == 0, name


def test_a_lost_device_does_not_end_the_line(emulated: Callable[..., Any], engines: Path, tiny_bundle: Path) -> None:
    command = ("run", str(tiny_bundle), "--engine", "tensorrt", "--engine-cache", str(engines), *SOURCE)
    done = emulated(*COMMAND, *command, EMULATED_CUDA_FAIL="cuLaunchHostFunc 6 700 1")
    assert done.code == 0, done.err
    entries = _records(done.out)
    statuses = [entry["status"] for entry in entries]
    assert (len(entries), statuses[:6]) == (FRAMES, ["ok"] * 4 + ["error", "ok"])  # the next frame waits for a process
    # Which loses the GPU too, after as many launches: those are the frames that were in hand then.
    lost = [entry for entry in entries if entry["status"] == "error"]
    assert len(lost) < FRAMES / 2
    assert all("the GPU is lost to this process" in entry["reason"] for entry in lost)
    assert "the engine computes again, in a fresh process (number 1)" in done.err
    assert "Traceback" not in done.err


def test_without_an_engine_the_command_says_how_to_build_one(
    emulated: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    command = ("run", str(tiny_bundle), "--engine", "tensorrt", "--engine-cache", str(tmp_path), *SOURCE)
    done = emulated(*COMMAND, *command)
    assert done.code == 9
    (line,) = done.err.splitlines()
    assert "none was built from this bundle's fp32 model; build one on this machine with 'edge-ad build'" in line


def test_without_a_device_the_command_says_so(emulated: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    command = ("run", str(tiny_bundle), "--engine", "tensorrt", "--engine-cache", str(tmp_path), *SOURCE)
    done = emulated(*COMMAND, *command, EMULATED_CUDA_NO_DEVICE="1")
    assert done.code == 9
    (line,) = done.err.splitlines()
    assert "no NVIDIA GPU can be used here" in line


def test_without_a_driver_the_command_says_so(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        count = len(find_gpus())
    except Exception:
        count = 0
    if count:
        pytest.skip("this machine has a GPU")
    assert main(["run", str(tiny_bundle), "--engine", "tensorrt", *SOURCE]) == 9
    (line,) = capsys.readouterr().err.splitlines()
    assert "no NVIDIA GPU can be used here" in line and "install NVIDIA's driver" in line
