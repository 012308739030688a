"""The compiled resize beyond what it computes: memory it may touch, threads, what is said when it cannot be used."""

from __future__ import annotations

import importlib.machinery
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_ad.errors import ImageError
from edge_ad.geometry import place
from edge_ad.preprocess import Preprocessor, chosen_resizer
from edge_ad.resize import native
from edge_ad.resize.native import NativeResizer, load_native, native_resizer
from edge_ad.resize.strips import PillowResizer
from edge_ad.specs import PreprocessSpec

SOURCE = Path(native.__file__).with_name("resize.c")
COMPILER = shutil.which("gcc") or shutil.which("cc")
SPEC = PreprocessSpec(96, 96, resize=96)

EVERY_SIZE = """
import ctypes, sys
import numpy as np
from edge_ad.preprocess import Preprocessor
from edge_ad.resize.native import FUNCTION, NativeResizer
from edge_ad.resize.strips import PillowResizer
from edge_ad.specs import PreprocessSpec

checked = NativeResizer(getattr(ctypes.CDLL(sys.argv[1]), FUNCTION))
random = np.random.default_rng(7)
modes = ("shorter_side_crop", "stretch", "letterbox")
for case in range(150):
    frame_hw, crop = random.integers(1, 130, 2), random.integers(1, 90, 2).tolist()
    resize = int(random.integers(1, 100)) if case % 3 == 0 else None
    spec = PreprocessSpec(*crop, resize_mode=modes[case % 3], resize=resize)
    frame = random.integers(0, 256, (*frame_hw, 3), np.uint8)  # a piece of memory of its own, with a guard around it
    got, wanted = (Preprocessor(spec, resizer=way)(frame).image_hwc for way in (checked, PillowResizer()))
    assert np.abs(got.astype(int) - wanted).max() <= 1 and (got != wanted).mean() < 0.01, (spec, frame.shape)
print("all equal")
"""


def _frame(height: int = 200, width: int = 300, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def unknown() -> Any:
    """As if nothing had been looked for yet."""
    native_resizer.cache_clear()
    yield
    native_resizer.cache_clear()


@pytest.mark.skipif(COMPILER is None, reason="no C compiler (apt install gcc libc6-dev)")
@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers are loaded as on Linux")
def test_it_stays_within_its_memory_under_sanitizers(tmp_path: Path) -> None:
    assert COMPILER is not None
    library, options = tmp_path / "checked.so", ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built = [COMPILER, "-O1", "-g", "-shared", "-fPIC", *options, "-o", library, SOURCE]
    subprocess.run(built, check=True, capture_output=True, timeout=120)
    runtime = subprocess.run(
        [COMPILER, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()
    if not os.path.isabs(runtime):
        pytest.skip("the compiler has no libasan")
    environment = {**os.environ, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-c", EVERY_SIZE, library],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "all equal"), done.stderr[-2000:]


@pytest.mark.skipif(COMPILER is None, reason="no C compiler (apt install gcc libc6-dev)")
def test_the_sanitizers_would_see_a_row_too_many(tmp_path: Path) -> None:
    """Control: a copy of the source that reads one row beyond the frame."""
    assert COMPILER is not None
    source = SOURCE.read_text(encoding="utf-8")
    faulty = source.replace("row += SIDE) {", "row += SIDE) {\n      narrow[0] = frame[job->frame_pitch * height];")
    assert faulty != source
    (tmp_path / "faulty.c").write_text(faulty, encoding="utf-8")
    main = """
#include "faulty.c"
int main(void) {
  enum { N = 40 };
  int32_t starts[N], weights[N];
  uint8_t *frame = calloc(N * N, 3), *image = calloc(N * N, 3);
  for (int i = 0; i < N; i++) starts[i] = i, weights[i] = 1 << WEIGHT_BITS;
  Job job = {frame, 3 * N, image, 3 * N, starts, weights, starts, weights, N, 1, N, 1, 0};
  return edge_ad_resize_1(&job);
}
"""
    (tmp_path / "main.c").write_text(main, encoding="utf-8")
    program = tmp_path / "program"
    command = [COMPILER, "-O1", "-g", "-fsanitize=address,undefined", "-o", program, tmp_path / "main.c"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr


def test_one_resizer_serves_many_threads(compiled: NativeResizer) -> None:
    frames = [_frame(seed=seed) for seed in range(8)]
    wanted = [Preprocessor(SPEC, resizer=PillowResizer())(frame).image_hwc for frame in frames]

    def resized(frame: np.ndarray) -> np.ndarray:
        return Preprocessor(SPEC, threads=1, resizer=compiled)(frame).image_hwc

    with ThreadPoolExecutor(4) as pool:
        for got, right in zip(pool.map(resized, frames * 5), wanted * 5, strict=True):
            np.testing.assert_array_equal(got, right)


def test_work_is_shared_out_only_where_there_is_enough(compiled: NativeResizer) -> None:
    spec = PreprocessSpec(288, 288, resize=288)

    def parts(height: int, width: int, threads: int) -> int:
        frame, out = _frame(height, width), np.empty((288, 288, 3), np.uint8)
        return len(compiled.parts(frame, "rgb", place(spec, (height, width)), out, threads))

    assert parts(480, 640, 4) == 1
    assert parts(1080, 1920, 4) == 4
    assert parts(1080, 1920, 2) == 2
    assert parts(1080, 1920, 1) == 1


def test_without_memory_the_frame_is_what_is_wrong() -> None:
    with pytest.raises(ImageError, match=r"no memory is left to resize 300x200 pixels; close other programs"):
        Preprocessor(SPEC, resizer=NativeResizer(lambda job: 1))(_frame())


def test_where_nothing_was_compiled_pillow_resizes(monkeypatch: pytest.MonkeyPatch, unknown: Any) -> None:
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)
    assert native_resizer() is None
    assert chosen_resizer().name == "Pillow"


@pytest.mark.parametrize("content", ["no library", None], ids=["damaged", "of something else"])
def test_what_cannot_be_loaded_is_said_once_and_pillow_resizes(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unknown: Any
) -> None:
    library = tmp_path / "_resize.abi3.so"
    if content is None:
        other = importlib.machinery.PathFinder.find_spec("_ctypes")
        if other is None or other.origin in (None, "built-in"):
            pytest.skip("this Python has no library of its own to try")
        shutil.copy(str(other.origin), library)
    else:
        library.write_text(content)
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(library)))
    with pytest.raises(OSError, match=r"_resize\.abi3\.so"):
        load_native()
    with caplog.at_level(logging.WARNING):
        ways = {chosen_resizer().name for _ in range(3)}
    assert ways == {"Pillow"}
    assert len(caplog.messages) == 1 and "frames are resized with Pillow" in caplog.messages[0]
    np.testing.assert_array_equal(
        Preprocessor(SPEC)(_frame()).image_hwc, Preprocessor(SPEC, resizer=PillowResizer())(_frame()).image_hwc
    )
