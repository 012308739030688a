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

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import ImageError
from edge_ad.image.geometry import place
from edge_ad.image.preprocess import Preprocessor, chosen_resizer
from edge_ad.image.resize import native
from edge_ad.image.resize.native import NativeResizer, load_native, native_resizer
from edge_ad.image.resize.strips import PillowResizer

SOURCE = Path(native.__file__).with_name("resize.c")
COMPILER = shutil.which("gcc") or shutil.which("cc")
SPEC = PreprocessSpec(96, 96, resize=96)

EVERY_SIZE = """
import ctypes, sys
import numpy as np
from PIL import Image
from edge_ad.image.geometry import place
from edge_ad.image.preprocess import Preprocessor
from edge_ad.image.resize import native
from edge_ad.bundle.specs import PreprocessSpec

native.BAND_PIXELS = 500  # small frames are shared out too
checked = native.NativeResizer(getattr(ctypes.CDLL(sys.argv[1]), native.FUNCTION))
random = np.random.default_rng(7)
views = (lambda frame: frame, lambda frame: frame[::-1], lambda frame: frame[:, ::-1], lambda frame: frame[::2, 1:])
for case in range(200):
    frame_hw, crop = random.integers(2, 130, 2), random.integers(1, 90, 2).tolist()
    if case % 40 == 0:
        frame_hw = (1, 20_000) if case % 80 else (20_000, 1)
    mode = ("shorter_side_crop", "stretch", "letterbox")[case % 3]
    spec = PreprocessSpec(*crop, resize_mode=mode, resize=int(random.integers(1, 100)) if case % 3 == 0 else None)
    whole = random.integers(0, 256, (*frame_hw, 3), np.uint8)  # a piece of memory of its own, with a guard around it
    frame = views[case % 4](whole) if min(frame_hw) > 1 else whole
    got = Preprocessor(spec, threads=1 + case % 3, resizer=checked)(frame)
    rows, columns = got.geometry.resized_hw
    if rows * columns > 1_000_000:
        continue
    narrow = Image.fromarray(np.ascontiguousarray(frame)).resize((columns, len(frame)), Image.Resampling.BILINEAR)
    pillow = np.asarray(narrow.resize((columns, rows), Image.Resampling.BILINEAR))
    left, top, right, bottom = got.geometry.content_box
    y, x = top + got.geometry.top, left + got.geometry.left
    wanted = pillow[y : y + bottom - top, x : x + right - left]
    assert (got.image_hwc[top:bottom, left:right] == wanted).all(), (spec, frame.shape)
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


@pytest.fixture
def sanitizer() -> str:
    """Path of AddressSanitizer's library."""
    if COMPILER is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler (apt install gcc libc6-dev)")
    asked = [COMPILER, "-print-file-name=libasan.so"]
    path = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    if not os.path.isabs(path):
        pytest.skip("the compiler has no libasan")
    return path


def test_it_stays_within_its_memory_under_sanitizers(sanitizer: str, tmp_path: Path) -> None:
    library, options = tmp_path / "checked.so", ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built = [str(COMPILER), "-O1", "-g", "-shared", "-fPIC", *options, "-o", library, SOURCE]
    subprocess.run(built, check=True, capture_output=True, timeout=120)
    environment = {**os.environ, "LD_PRELOAD": sanitizer, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-c", EVERY_SIZE, library],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "all equal"), done.stderr[-2000:]


def test_the_sanitizers_would_see_a_row_too_many(sanitizer: str, tmp_path: Path) -> None:
    """Control: a copy of the source that reads one row beyond the frame."""
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
    command = [str(COMPILER), "-O1", "-g", "-fsanitize=address,undefined", "-o", program, tmp_path / "main.c"]
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
