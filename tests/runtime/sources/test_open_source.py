"""Which source a user's words mean, and that finding out loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from edge_ad.errors import SourceError
from edge_ad.runtime.sources import KINDS, open_source


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("0", "CameraSource"),
        ("camera:12", "CameraSource"),
        ("sim:", "SimulatedLine"),
        ("sim:?fps=30", "SimulatedLine"),
        ("rtsp://host/live", "StreamSource"),
        ("RTSPS://host/live", "StreamSource"),
        ("http://host/still.jpg", "StreamSource"),
        ("udp://239.0.0.1:1234", "StreamSource"),
        ("tcp://host:1", "StreamSource"),
        ("{folder}", "FileSource"),
        ("{folder}/a.png", "FileSource"),
        ("{folder}/*.png", "FileSource"),
        ("{folder}/clip.mp4", "VideoSource"),
        ("{folder}/no_suffix", "VideoSource"),
    ],
)
def test_each_form_is_its_own_kind_of_source(tmp_path: Path, uri: str, kind: str) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "no_suffix").write_bytes(b"")
    uri = uri.format(folder=tmp_path)
    source = open_source(uri)
    assert type(source).__name__ == kind
    assert source.live == (kind in ("CameraSource", "StreamSource") or "fps" in uri)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("no/such/path", "does not exist; wanted camera:N"),
        ("", "does not exist"),
        ("no/such.png", "does not exist"),
        ("ftp://user:hunter2@host/x", "unknown scheme 'ftp'; known are rtsp"),
        ("file:///tmp/x.png", "give the path itself"),
        ("rtmp://u:hunter2@h/x?a=b", "unknown scheme 'rtmp'"),
        ("rtmp://u:hunter2@h/x[1]*", "unknown scheme 'rtmp'"),
        ("u:hunter2@h/x?a=b", "pattern ***@h/x?a=b matches no file"),
        ("c://no/such/*.png", "pattern c://no/such/*.png matches no file"),
        ("rtsp:/user:hunter2@host/x", "does not exist"),
        ("a\x00b", "does not exist"),
    ],
)
def test_what_means_nothing_is_told_in_one_line(uri: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    text = str(caught.value)
    assert words in text
    assert "\n" not in text and "hunter2" not in text


def test_a_path_that_exists_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rtmp:").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "rtmp:" / "a?b.png")
    monkeypatch.chdir(tmp_path)
    with open_source("rtmp://a?b.png") as source:
        frame = source.read()
    assert frame is not None and frame.error is None and frame.path == "rtmp://a?b.png"


def test_every_kind_can_be_imported() -> None:
    import importlib

    for kind in KINDS:
        module, _, function = kind.opener.partition(":")
        assert hasattr(importlib.import_module(module), function.split(".")[0])


def test_importing_and_finding_a_source_loads_no_image_library() -> None:
    script = (
        "import sys\n"
        "from edge_ad.runtime.sources import open_source\n"
        "for uri in ('0', 'rtsp://host/x', 'sim:?fps=60'): open_source(uri)\n"
        "print(sorted({'cv2', 'PIL', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
