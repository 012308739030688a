"""`edge-ad check -c`: all that is wrong with a line, without running it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from line_yaml import two_cameras, written

from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def line(tiny_bundle: Path, tmp_path: Path) -> dict[str, Any]:
    return two_cameras(tiny_bundle, tmp_path)


def test_nothing_is_wrong(line: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    before = sorted(tmp_path.rglob("*"))
    path = written(tmp_path, line)
    assert main(["check", "-c", path]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}: nothing stands in the way of this line (2 cameras, engine fake)\n"
    assert captured.err == ""
    assert sorted(tmp_path.rglob("*")) == [*before, Path(path)]  # it wrote nothing


def test_all_that_is_wrong_at_once(
    line: dict[str, Any], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    line |= {
        "bundle": str(tmp_path / "none.edgead"),
        "output": str(tmp_path / "file" / "out"),
        "http": {"host": "0.0.0.0", "port": 0, "token_env": "NO_SUCH_TOKEN"},
        "colour": "blue",
    }
    line["cameras"] = [
        {"source": str(tmp_path / "no-such.mp4")},
        {"source": "sim:?fps=fast", "threshold": "high"},
        {"source": str(tmp_path), "buffer": "freshest"},
        {"source": "camera:99"},
        {"source": "rtsp://user:hunter2@127.0.0.1:1/x"},
        {"source": "sim:?frames=2", "buffer": "freshest"},
    ]
    path = written(tmp_path, line)
    assert main(["check", "-c", path]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hunter2" not in captured.err
    lines = [text for text in captured.err.splitlines() if not text.startswith("warning: not taken for pictures")]
    found = [text.removeprefix(f"edge-ad: error: {path}: ") for text in lines]
    starts = [
        "colour: unknown key",
        "cameras.1.threshold: wanted a number, got 'high'",
        f"bundle: bundle {tmp_path / 'none.edgead'}: does not exist",
        f"cameras.0.source: source '{tmp_path / 'no-such.mp4'}' does not exist",
        "cameras.1.source: 'sim:?fps=fast': fps: wanted",
        "cameras.2.source: folder",
        "cameras.5.buffer: this source waits to be read",
        f"output: {tmp_path / 'file' / 'out'} cannot be written: {tmp_path / 'file'}, in its path, is a file",
        "http.token_env: the environment holds no variable NO_SUCH_TOKEN",
    ]
    for start in starts:
        assert [text for text in found if text.startswith(start)], (start, found)
    assert len(found) == len(starts)


def broken_bundle(folder: Path, line: dict[str, Any]) -> None:
    line["bundle"] = str(folder)


def broken_source(folder: Path, line: dict[str, Any]) -> None:
    line["cameras"][1]["source"] = "gopher://x"


def broken_engine(folder: Path, line: dict[str, Any]) -> None:
    line["engine"] = "tensorrt"


def broken_output(folder: Path, line: dict[str, Any]) -> None:
    (folder / "taken").write_text("")
    line["output"] = str(folder / "taken")


def broken_cache(folder: Path, line: dict[str, Any]) -> None:
    (folder / "taken").write_text("")
    line["engine_cache"] = str(folder / "taken" / "cache")


def broken_batch(folder: Path, line: dict[str, Any]) -> None:
    line["batch"] = 65


def broken_address(folder: Path, line: dict[str, Any]) -> None:
    line["http"] = {"host": "10.0.0.1"}


@pytest.mark.parametrize(
    ("damage", "code", "where"),
    [
        (broken_bundle, 5, "bundle"),
        (broken_source, 7, "cameras.1.source"),
        (broken_engine, 10, "engine"),
        (broken_output, 11, "output"),
        (broken_cache, 11, "engine_cache"),
        (broken_batch, 3, "batch"),
        (broken_address, 3, "http.host"),
    ],
)
def test_each_kind_has_its_exit_code(
    line: dict[str, Any],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path, dict[str, Any]], None],
    code: int,
    where: str,
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pycuda" else find(name, *a))
    damage(tmp_path, line)
    path = written(tmp_path, line)
    assert main(["check", "-c", path]) == code
    (text,) = capsys.readouterr().err.splitlines()
    assert text.startswith(f"edge-ad: error: {path}: {where}: ")


@pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")
def test_a_cache_that_would_not_be_used_is_remarked_on(line: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache").chmod(0o777)
    path = written(tmp_path, line)
    assert main(["check", "-c", path]) == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        f"warning: {path}: engine_cache: {tmp_path / 'cache'} is not used:"
        f" others can write to {tmp_path / 'cache'} (mode 0777)"
    )


def test_thresholds_that_decide_nothing_are_remarked_on(
    line: dict[str, Any], two_precisions: Path, tmp_path: Path, capsys: Capture
) -> None:
    line["cameras"][0]["threshold"] = 5
    assert main(["check", "-c", written(tmp_path, line)]) == 0
    assert "cameras.0.threshold: scores lie between 0 and 1; 5 gives one verdict" in capsys.readouterr().err


def test_a_missing_file(tmp_path: Path, capsys: Capture) -> None:
    for command in ("run", "check"):
        assert main([command, "-c", str(tmp_path / "none.yaml")]) == 18
        assert "none.yaml: cannot be read: no such file" in capsys.readouterr().err


NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(-5, 10**12), st.floats())
VALUES = st.one_of(NUMBERS, st.text(max_size=6), st.lists(st.integers(), max_size=3))
PLACES = st.sampled_from(
    [
        *(
            "engine",
            "precision",
            "engine_cache",
            "device",
            "dla",
            "batch",
            "output",
            "sinks",
            "http",
            "limits",
            "bundle",
        ),
        *(f"cameras.0.{key}" for key in ("name", "threshold", "roi", "trigger", "buffer", "max_frames", "silence_s")),
        *(f"http.{key}" for key in ("host", "port", "token_env")),
    ]
)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(st.tuples(PLACES, VALUES), min_size=1, max_size=3))
def test_whatever_the_file_says_the_check_ends_with_a_code_and_whole_lines(
    line: dict[str, Any], tmp_path: Path, capsys: Capture, changes: list[tuple[str, Any]]
) -> None:
    data = {**line, "cameras": [dict(one) for one in line["cameras"]], "http": {"port": 0}}
    for place, value in changes:
        node: Any = data
        *path, key = place.split(".")
        for step in path:
            if isinstance(node, (dict, list)):
                node = node[int(step) if step.isdigit() else step]
        if isinstance(node, dict):
            node[key] = value
    path_ = written(tmp_path, data)
    code = main(["check", "-c", path_])
    captured = capsys.readouterr()
    assert code in (0, 3, 5, 7, 9, 10, 11)
    assert (code == 0) == bool(captured.out)
    for text in captured.err.splitlines():
        assert text.startswith((f"edge-ad: error: {path_}: ", f"warning: {path_}: "))
