"""`line.yaml` and options become settings; whatever is wrong is said at once, with key paths and without secrets."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import ConfigError, EdgeAdError
from edge_ad.runtime.http.settings import HttpSettings
from edge_ad.runtime.line.scheduling.trigger import EVERY_FRAME, Interval, Software
from edge_ad.runtime.sinks.settings import MqttSettings, PictureSettings, RecordSettings, SinkSettings
from edge_ad.runtime.station.file import examine_line, read_line, run_options
from edge_ad.runtime.station.settings import CameraSettings, Limits, LineSettings

FULL: dict[str, Any] = {
    "bundle": "bottle.edgead",
    "engine": "onnxruntime",
    "precision": "fp32",
    "engine_cache": "cache",
    "batch": 2,
    "output": "out",
    "cameras": [
        {
            "name": "top",
            "source": "rtsp://user:secret@cam1/stream",
            "threshold": 0.62,
            "budget_ms": 100,
            "buffer": "freshest",
            "roi": [10, 20, 400, 300],
            "vid_stride": 2,
            "max_fps": 12.5,
            "max_frames": 1000,
            "silence_s": 2,
        },
        {"name": "side", "source": "camera:1", "trigger": "software", "trigger_timeout_ms": 250},
        {"source": "camera:2", "trigger": {"interval_ms": 500}, "silence_s": None},
    ],
    "show": True,
    "sinks": {"pictures": {"save": ["masks"], "which": "rejects"}, "records": {"rotate_mb": 5}},
    "triggers": {"mqtt": {"host": "broker"}},
    "http": {"host": "127.0.0.1", "port": 9000, "token_env": "LINE_TOKEN"},
    "limits": {"max_miss_rate": 0.01},
}


def written(folder: Path, data: Any) -> Path:
    path = folder / "line.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), "utf-8")
    return path


def faults(folder: Path, data: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_line(written(folder, data), options)
    return caught.value.faults


def test_the_whole_file(tmp_path: Path) -> None:
    line = read_line(written(tmp_path, FULL), {})
    assert (line.bundle, line.engine, line.precision, line.batch) == (Path("bottle.edgead"), "onnxruntime", "fp32", 2)
    assert (line.engine_cache, line.output, line.show, line.limits) == (Path("cache"), Path("out"), True, Limits(0.01))
    assert line.sinks == SinkSettings(RecordSettings(rotate_mb=5), PictureSettings(("masks",), "rejects"))
    assert line.triggers.mqtt == MqttSettings("broker")
    assert line.http == HttpSettings("127.0.0.1", 9000, "LINE_TOKEN")
    top, side, third = line.cameras
    assert (top.threshold, top.budget_ms, top.buffer, top.roi) == (0.62, 100.0, "freshest", (10, 20, 400, 300))
    assert (top.vid_stride, top.max_fps, top.max_frames, top.silence_s) == (2, 12.5, 1000, 2.0)
    assert [camera.rule for camera in line.cameras] == [EVERY_FRAME, Software(250.0), Interval(500.0)]
    assert (side.name, third.name, third.silence_s) == ("side", None, None)


def test_the_smallest_file_and_what_it_means(tmp_path: Path) -> None:
    line = read_line(written(tmp_path, "bundle: b\ncameras:\n- source: camera:0\n"), {})
    assert line == run_options({"bundle": "b", "source": "camera:0"}, "options")
    assert (line.engine, line.http, line.output, line.limits) == ("openvino", None, None, Limits())
    assert line.cameras[0].buffer == "auto" and line.cameras[0].silence_s == 5.0


def test_cameras_may_share_what_they_have_in_common(tmp_path: Path) -> None:
    text = "bundle: b\ncameras:\n- &one {source: 'camera:0', budget_ms: 80}\n- {<<: *one, source: 'camera:1'}\n"
    assert [camera.budget_ms for camera in read_line(written(tmp_path, text), {}).cameras] == [80.0, 80.0]


def test_plain_words_mean_what_was_written(tmp_path: Path) -> None:
    """YAML 1.1 reads these as False, True, 8 and 90."""
    camera = "{source: yes, name: 1:30, threshold: 1e-3, budget_ms: 010}"
    text = f"bundle: off\nblur_check: off\nshow: on\ncameras:\n- {camera}\n"
    line = read_line(written(tmp_path, text), {})
    assert (line.bundle, line.blur_check, line.show) == (Path("off"), "off", True)
    (top,) = line.cameras
    assert (top.source, top.name, top.threshold, top.budget_ms) == ("yes", "1:30", 0.001, 10.0)
    assert "stands in quotes" in "".join(faults(tmp_path, "bundle: b\ncameras:\n- {source: '0', name: 010}\n"))


def test_options_take_the_place_of_the_file(tmp_path: Path) -> None:
    options = {
        "bundle": "other.edgead",
        "engine": "fake",
        "threshold": "0.9",
        "budget_ms": "33",
        "output": "elsewhere",
        "max_miss_rate": "0.5",
        "http": "[::1]:9100",
    }
    line = read_line(written(tmp_path, FULL), options)
    assert (line.bundle, line.engine, line.output) == (Path("other.edgead"), "fake", Path("elsewhere"))
    assert [camera.threshold for camera in line.cameras] == [0.9] * 3
    assert [camera.budget_ms for camera in line.cameras] == [33.0] * 3
    assert line.limits == Limits(0.5)
    assert line.http == HttpSettings("::1", 9100, "LINE_TOKEN")
    assert [camera.name for camera in line.cameras] == ["top", "side", None]


def test_sources_may_stand_in_for_those_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, FULL)
    line = read_line(path, {"source": ("a.mp4", "b.mp4", "c.mp4")})
    assert [(camera.name, camera.source) for camera in line.cameras] == [
        ("top", "a.mp4"),
        ("side", "b.mp4"),
        (None, "c.mp4"),
    ]
    assert faults(tmp_path, FULL, source=("a.mp4",)) == (
        "source: got 1, wanted one for each of the 3 cameras of the file",
    )


def test_every_fault_at_once_with_its_key_path(tmp_path: Path) -> None:
    data = copy.deepcopy(FULL)
    data |= {"bundle": 3, "engines": "openvino", "batch": 0, "precision": "fp64"}
    data["cameras"][0] |= {"roi": [10, 20, 5, 300], "threshold": True, "budget": 5}
    data["cameras"][1] |= {"vid_stride": 2, "name": "top", "trigger_timeout_ms": 0}
    data["cameras"][2] |= {"trigger": {"interval_ms": "soon"}, "source": ""}
    data["cameras"].append("camera:5")
    data["sinks"] = {"pictures": {"save": ["masks", "movies"]}}
    data["http"] |= {"port": 70000, "cors": True}
    data["limits"]["max_miss_rate"] = 2
    found = faults(tmp_path, data, max_fps="fast")
    for start in (
        "max_fps: wanted a number, got 'fast'",
        "bundle: wanted a path, got 3",
        "engines: unknown key",
        "batch: wanted a number above 0, got 0",
        "precision: wanted 'fp32', 'fp16' or 'int8'",
        "cameras.0.threshold: wanted a number, got True",
        "cameras.0.budget: unknown key",
        "cameras.0.roi: wanted [left, top, right, bottom]",
        "cameras.1.vid_stride: is for the trigger every_frame",
        "cameras.1.trigger_timeout_ms: wanted a number of at least 1",
        "cameras.2.trigger: wanted an interval_ms",
        "cameras.2.source: wanted a source",
        "cameras.3: wanted a mapping, got 'camera:5'",
        "cameras: 2 of them have the name 'top'",
        "sinks.pictures.save: wanted a list of masks, overlays",
        "http.port: wanted a number of at most 65535",
        "http.cors: unknown key",
        "limits.max_miss_rate: wanted a number of at most 1",
    ):
        assert len([line for line in found if line.startswith(start)]) == 1, (start, found)
    assert len(found) == 18


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"cameras": []}, "cameras: wanted 1 or more entries"),
        ({"cameras": {"source": "camera:0"}}, "cameras: wanted a list"),
        ({"cameras": None}, "cameras: wanted a list"),
        ({"cameras": [{"name": "x"}]}, "cameras.0.source: missing; wanted it, or source_env"),
        (
            {"cameras": [{"source": "camera:0", "source_env": "X"}]},
            "cameras.0.source: wanted either this or source_env",
        ),
        ({"cameras": [{"source": ""}]}, "cameras.0.source: wanted a source"),
        ({"cameras": [{"source_env": "NOT_SET"}]}, "cameras.0.source_env: the environment variable NOT_SET is not set"),
        ({"cameras": [{"source_env": "rtsp://a:b@c"}]}, "cameras.0.source_env: wanted the name of an environment"),
        ({"cameras": [{"source": "line.streams"}]}, "cameras.0.source: a list of sources is for --source"),
        ({"cameras": [{"source": "a", "name": "a\tb"}]}, "cameras.0.name: wanted 1 to 200 printable"),
        ({"cameras": [{"source": "a\0b"}]}, "cameras.0.source: wanted a source"),
        ({"cameras": [{"source": "a", "roi": [0, 0, 5]}]}, "cameras.0.roi"),
        ({"cameras": [{"source": "a", "roi": [-1, 0, 5, 5]}]}, "cameras.0.roi.0: wanted a number of at least 0"),
        ({"cameras": [{"source": "a", "trigger": "hardware"}]}, "cameras.0.trigger: wanted every_frame, software or"),
        ({"cameras": [{"source": "a", "trigger": {"interval_ms": 5, "x": 1}}]}, "cameras.0.trigger: wanted every"),
        ({"cameras": [{"source": "a", "trigger": {"interval_ms": float("nan")}}]}, "cameras.0.trigger: wanted an"),
        ({"cameras": [{"source": "a", "trigger": "software", "buffer": "freshest"}]}, "cameras.0.buffer"),
        ({"cameras": [{"source": "a", "threshold": float("inf")}]}, "cameras.0.threshold: wanted a finite number"),
        ({"output": "a\0b"}, "output: wanted a path that the system can name"),
        ({"dla": 1}, "dla: is for --engine tensorrt, not for onnxruntime"),
        ({"output": None}, "sinks.pictures.save: wanted an --output folder"),
        ({"sinks": {"pictures": {"which": "rejects"}}}, "sinks.pictures.which: chooses among pictures"),
        ({"cameras": [{"source": "a"}]}, "triggers.mqtt: no camera has the trigger software"),
        (
            {"cameras": [{"source": "a", "trigger": "software", "watch": True}]},
            "cameras.0.watch: a picture that arrives",
        ),
        ({"cameras": [{"source": "a", "loop": True, "watch": True}]}, "cameras.0.loop: a watched folder has no end"),
        ({"http": {"host": "0.0.0.0"}}, "http.host: 0.0.0.0 can be reached from other machines"),
        ({"http": {"host": "::"}}, "http.host: :: can be reached from other machines"),
        ({"http": {"host": "station7"}}, "http.host: station7 can be reached from other machines"),
        ({"http": {"host": "a b"}}, "http.host: wanted an address or name"),
        ({1: 2}, "1: unknown key"),
    ],
)
def test_one_fault(tmp_path: Path, changes: dict[Any, Any], start: str) -> None:
    found = faults(tmp_path, FULL | changes)
    assert [line for line in found if line.startswith(start)], found


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"bundle": "b"}, "source: wanted either --source or --camera"),
        (
            {"bundle": "b", "source": "x", "source_env": ("Y",)},
            "source: wanted either --source or --camera, or --source",
        ),
        ({"bundle": "b", "source_env": ("NOT_SET",)}, "source_env: the environment variable NOT_SET is not set"),
        ({"bundle": "b", "source_env": ("a b",)}, "source_env: wanted the name of an environment variable"),
        ({"bundle": "b", "source": "x", "max_fps": "0"}, "max_fps: wanted a number above 0"),
        ({"bundle": "b", "source": ("x", "y"), "budget_ms": "-1"}, "budget_ms: wanted a number above 0"),
        ({"bundle": "b", "source": "x", "save": "movies"}, "save: wanted a list of masks, overlays"),
        ({"bundle": "b", "source": "x", "http": "here"}, "http: wanted PORT or HOST:PORT"),
        ({"bundle": "b", "source": "x", "http": "0.0.0.0:80"}, "http.host: 0.0.0.0 can be reached"),
        ({"bundle": "b", "source": "x", "http": "99999"}, "http.port: wanted a number of at most 65535"),
    ],
)
def test_faults_of_options_have_their_names(values: dict[str, Any], start: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_options(values, "run options")
    (line,) = caught.value.faults
    assert line.startswith(start)


@pytest.mark.parametrize(
    "changes",
    [
        {"http": {"token_env": "hunter2 is it"}},
        {"http": {"token_env": ["hunter2"]}},
        {"http": {"host": "127.0.0.1", "token_env": {"value": "hunter2"}}},
        {"cameras": "rtsp://admin:hunter2@10.0.0.5/stream"},
        {"cameras": {"source": "rtsp://admin:hunter2@10.0.0.5/stream"}},
        {"cameras": ["rtsp://admin:hunter2@10.0.0.5/stream"]},
        {"cameras": [{"source": ["rtsp://admin:hunter2@10.0.0.5/stream"]}]},
        {"cameras": [{"source": "camera:0", "roi": "rtsp://admin:hunter2@10.0.0.5/stream"}]},
        {"cameras": [{"source": "camera:0", "rtsp://admin:hunter2@10.0.0.5/stream": None}]},
        {"cameras": [{"source_env": "rtsp://admin:hunter2@10.0.0.5/stream"}]},
        {"rtsp://admin:hunter2@10.0.0.5/stream": None},
    ],
)
def test_a_fault_shows_no_secret(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert "hunter2" not in " ".join(faults(tmp_path, FULL | changes))


def test_a_source_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDE", "rtsp://admin:hunter2@10.0.0.5/stream")
    monkeypatch.setenv("TOP", "camera:3")
    cameras = [{"source_env": "SIDE", "threshold": 0.5}, {"source": "camera:1"}]
    line = read_line(written(tmp_path, {"bundle": "b", "cameras": cameras}), {})
    assert [camera.source for camera in line.cameras] == ["rtsp://admin:hunter2@10.0.0.5/stream", "camera:1"]
    other = read_line(written(tmp_path, {"bundle": "b", "cameras": cameras}), {"source_env": ("TOP", "SIDE")})
    assert [camera.source for camera in other.cameras] == ["camera:3", "rtsp://admin:hunter2@10.0.0.5/stream"]
    assert [camera.threshold for camera in other.cameras] == [0.5, None]
    videos = read_line(written(tmp_path, {"bundle": "b", "cameras": cameras}), {"source": ("a.mp4", "b.mp4")})
    assert [camera.source for camera in videos.cameras] == ["a.mp4", "b.mp4"]
    alone = run_options({"bundle": "b", "source_env": ("TOP", "SIDE")}, "options")
    assert [camera.source for camera in alone.cameras] == ["camera:3", "rtsp://admin:hunter2@10.0.0.5/stream"]
    monkeypatch.delenv("SIDE")
    left, found = examine_line(written(tmp_path, {"bundle": "b", "cameras": [*cameras, {"name": "x", "roi": 1}]}), {})
    assert [camera.source for camera in left.cameras] == ["camera:1"]
    assert len(found) == 3 and "cameras.0.source_env: the environment variable SIDE is not set" in found


def test_what_is_sound_is_kept_beside_what_is_not(tmp_path: Path) -> None:
    data = {"bundle": "b", "cameras": [{"source": "one", "budget_ms": -1, "threshold": 0.5}, {"source": 1}], "x": 1}
    line, found = examine_line(written(tmp_path, data), {})
    assert len(found) == 3
    assert isinstance(line, LineSettings) and line.bundle == Path("b")
    assert [(camera.source, camera.threshold, camera.budget_ms) for camera in line.cameras] == [("one", 0.5, None)]


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6) | st.integers(10**20, 10**21),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["software", "every_frame", "camera:0", "fake", "127.0.0.1", "LINE_TOKEN", "0.5", "a\nb", "é\u2028"]
    ),
    st.dates(),
    st.binary(max_size=4),
)
KEYS = st.sampled_from(
    [*FULL, *FULL["cameras"][0], *FULL["http"], "trigger", "interval_ms", "save", "max_miss_rate", "x"]
) | st.text(max_size=5)
TREES = st.recursive(
    SCALARS, lambda kids: st.lists(kids, max_size=4) | st.dictionaries(KEYS, kids, max_size=5), max_leaves=15
)


@st.composite
def mutants(draw: Any) -> Any:
    """The good file with a few of its places changed, dropped or joined by another."""
    data = copy.deepcopy(FULL)
    for _ in range(draw(st.integers(1, 4))):
        node: Any = data
        while True:
            places = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(node[place], (dict, list)) and draw(st.booleans()):
                node = node[place]
                continue
            how = draw(st.sampled_from(["change", "drop", "join"]))
            if how == "change":
                node[place] = draw(TREES)
            elif how == "drop":
                del node[place]
            elif isinstance(node, dict):
                node[draw(KEYS)] = draw(TREES)
            else:
                node.append(draw(TREES))
            break
    return data


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.one_of(TREES, mutants()))
def test_whatever_the_file_holds_there_are_settings_or_one_clean_error(tmp_path_factory: Any, data: Any) -> None:
    path = written(tmp_path_factory.getbasetemp(), yaml.safe_dump(data, allow_unicode=True))
    line, error = None, None
    try:
        line = read_line(path, {})
    except EdgeAdError as exc:
        error = exc
    if line is None:
        assert isinstance(error, ConfigError)
        assert error.faults and all(fault and "\n" not in fault for fault in error.faults)
    else:
        assert line.cameras and all(camera.source for camera in line.cameras)
        assert line.http is None or line.http.is_loopback or line.http.token_env


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=st.text(max_size=60) | st.text("[]{}&*!|>-:#'\"\n ,ab0", max_size=40))
def test_whatever_the_text_is_there_is_one_clean_error(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError):
        read_line(path, {})


def test_the_example_in_the_documentation_is_a_line(tmp_path: Path) -> None:
    document = (Path(__file__).resolve().parents[3] / "docs" / "line.md").read_text("utf-8")
    text = document.split("<!-- line.yaml -->\n```yaml\n")[1].split("```")[0]
    line = read_line(written(tmp_path, text), {})
    assert [camera.name for camera in line.cameras] == ["top", "side", "belt"]
    assert line.cameras[1].rule == Software(250.0)
    assert line.cameras[0].roi == (320, 0, 1600, 1080)
    shown = set(yaml.safe_load(text)) | {key for camera in yaml.safe_load(text)["cameras"] for key in camera}
    known = {*LineSettings.__dataclass_fields__, *CameraSettings.__dataclass_fields__}
    assert all(re.search(rf"# {key}:", text) for key in known - shown), known - shown
    assert "# device: 0" in text and "# dla: 0" in text
