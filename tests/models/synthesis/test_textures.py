"""Where textures come from: folders with the files that real folders hold, and drawn patterns."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_ad.errors import ImageError, SourceError
from edge_ad.models.synthesis import procedural, textures
from edge_ad.models.synthesis.textures import FolderTextures, ProceduralTextures, open_textures

SHAPE = (32, 48)


def plain(path: Path, colour: int, size_wh: tuple[int, int] = (60, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_wh, (colour, colour, colour)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(4):
        plain(tmp_path / f"kind{index % 2}" / f"{index}.png", 10 * (index + 1))
    return tmp_path


def test_every_picture_is_drawn_equally_often(folder: Path) -> None:
    """1,000 draws of 4: binomial, 250 ± 13.7; five standard deviations are allowed."""
    pool, rng = FolderTextures(folder), np.random.default_rng(0)
    counts = Counter(int(pool.sample(rng, SHAPE)[0, 0, 0]) for _ in range(1000))
    assert sorted(counts) == [10, 20, 30, 40]
    assert all(abs(count - 250) < 69 for count in counts.values()), counts
    assert len(pool) == 4 and pool.description == f"4 pictures of {folder}"


@pytest.mark.parametrize("size_wh", [(300, 100), (100, 300), (20, 20), (48, 32), (7, 90)])
def test_a_texture_is_a_crop_of_the_picture_scaled_to_cover(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    scale = max(SHAPE[0] / size_wh[1], SHAPE[1] / size_wh[0])
    width, height = max(SHAPE[1], int(size_wh[0] * scale)), max(SHAPE[0], int(size_wh[1] * scale))
    assert (width, height)[0 if width - SHAPE[1] < height - SHAPE[0] else 1] in (*SHAPE, SHAPE[0] + 1, SHAPE[1] + 1)
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    places = set()
    pool = FolderTextures(tmp_path)
    for seed in range(30):
        got = pool.sample(np.random.default_rng(seed), SHAPE)
        assert got.shape == (*SHAPE, 3) and got.dtype == np.uint8
        windows = np.lib.stride_tricks.sliding_window_view(whole, (*SHAPE, 3))[:, :, 0]
        found = np.argwhere((windows == got).all(axis=(2, 3, 4)))
        assert len(found) == 1
        places.add(tuple(found[0]))
    room = (width - SHAPE[1] + 1) * (height - SHAPE[0] + 1)
    assert len(places) > min(room, 30) / 3


def test_a_draw_does_not_depend_on_what_was_drawn_before(folder: Path) -> None:
    """Nor on the cache, nor on a broken picture that was met earlier."""
    whole = (folder / "kind0/0.png").read_bytes()
    (folder / "kind0/broken.png").write_bytes(whole[: len(whole) - 30])
    fresh = [FolderTextures(folder).sample(np.random.default_rng(seed), SHAPE) for seed in range(40)]
    pool, uncached = FolderTextures(folder), FolderTextures(folder, cache_bytes=0)
    for seed in reversed(range(40)):
        np.testing.assert_array_equal(pool.sample(np.random.default_rng(seed), SHAPE), fresh[seed])
        np.testing.assert_array_equal(uncached.sample(np.random.default_rng(seed), SHAPE), fresh[seed])
    assert len(pool.unreadable) == 1 and "broken.png" in pool.unreadable[0]


def test_unreadable_pictures_are_counted_and_named(folder: Path) -> None:
    (folder / "kind0/text.png").write_text("no picture")
    (folder / "kind0/empty.jpg").write_bytes(b"")
    pool = FolderTextures(folder)
    assert len(pool) == 4
    assert pool.description.startswith(f"4 pictures of {folder}; passed over 2 unreadable, the first: picture ")
    assert "empty.jpg: the file is empty" in pool.description
    rng = np.random.default_rng(0)
    assert {int(pool.sample(rng, SHAPE)[0, 0, 0]) for _ in range(60)} == {10, 20, 30, 40}


def test_no_picture_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent, which does not exist"):
        FolderTextures(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"notes\.txt, which is a file"):
        FolderTextures(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match=r"holds no texture: looked for \.apng.*none for drawn patterns"):
        FolderTextures(tmp_path)
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(SourceError, match=r"none of the 1 textures in .* can be read; the first: picture .*a\.png"):
        FolderTextures(tmp_path)


def test_pictures_that_break_in_the_middle_are_refused_when_none_is_left(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    pool = FolderTextures(tmp_path)
    with pytest.raises(SourceError, match=r"none of the 2 textures"):
        pool.sample(np.random.default_rng(0), SHAPE)


def test_pictures_are_decoded_once_while_the_cache_holds_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    really_read = textures.read_picture

    def watched(path: str) -> np.ndarray:
        read[path] += 1
        return really_read(path)

    monkeypatch.setattr(textures, "read_picture", watched)
    one_texture = 48 * 48 * 3
    for n_kept, most in ((4, 1), (1, 50)):
        pool, rng = FolderTextures(folder, cache_bytes=n_kept * one_texture), np.random.default_rng(0)
        read.clear()
        for _ in range(100):
            pool.sample(rng, SHAPE)
            assert pool._cache._bytes <= n_kept * one_texture
        assert len(read) == 4 and max(read.values()) <= most
        assert (max(read.values()) == 1) == (n_kept == 4)


def test_threads_may_draw_at_once(folder: Path) -> None:
    (folder / "text.png").write_text("x")
    pool = FolderTextures(folder, cache_bytes=2 * 48 * 48 * 3)
    want = [FolderTextures(folder).sample(np.random.default_rng(seed), SHAPE) for seed in range(40)]
    wrong: list[object] = []

    def draw() -> None:
        try:
            drawn = [pool.sample(np.random.default_rng(seed), SHAPE) for seed in range(40)]
            wrong.extend(seed for seed in range(40) if not np.array_equal(drawn[seed], want[seed]))
        except (ImageError, SourceError, RuntimeError) as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=draw) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_without_a_folder_patterns_are_drawn_and_the_log_says_so(folder: Path) -> None:
    pool = open_textures(None)
    assert isinstance(pool, ProceduralTextures)
    assert len(pool) >= 12
    assert pool.description == f"{len(pool)} families of drawn patterns (no folder of textures was given)"
    assert isinstance(open_textures(folder), FolderTextures)


@pytest.mark.parametrize("family", procedural.FAMILIES, ids=lambda family: family.__name__)
@pytest.mark.parametrize("shape", [(64, 64), (40, 97), (9, 5), (1, 1)])
def test_every_family_draws_a_field_of_any_size(family: procedural.Field, shape: tuple[int, int]) -> None:
    for seed in range(4):
        field = family(shape, np.random.default_rng(seed))
        assert field.shape == shape and field.dtype == np.float32
        assert np.isfinite(field).all() and field.min() >= 0 and field.max() <= 1
        np.testing.assert_array_equal(field, family(shape, np.random.default_rng(seed)))
    if min(shape) >= 40:
        fields = [family(shape, np.random.default_rng(seed)) for seed in range(4)]
        assert not any(np.array_equal(fields[0], other) for other in fields[1:])
        assert np.mean([field.std() for field in fields]) > 0.02


def test_drawn_textures_are_varied_and_repeatable() -> None:
    """A pool that drew one kind or one colour would teach the detector that kind or colour."""
    pool = ProceduralTextures()
    drawn = [pool.sample(np.random.default_rng([1, seed]), (64, 64)) for seed in range(200)]
    assert all(texture.shape == (64, 64, 3) and texture.dtype == np.uint8 for texture in drawn)
    means = np.stack([texture.mean(axis=(0, 1)) for texture in drawn])
    assert (means.std(axis=0) > 40).all() and np.abs(means.mean(axis=0) - 127.5).max() < 25
    contrasts = np.array([texture.mean(axis=2).std() for texture in drawn])
    assert np.quantile(contrasts, 0.1) < 15 and np.quantile(contrasts, 0.9) > 40
    assert (contrasts > 1).mean() > 0.97
    again = [pool.sample(np.random.default_rng([1, seed]), (64, 64)) for seed in range(200)]
    assert all(np.array_equal(first, second) for first, second in zip(drawn, again, strict=True))


def test_every_family_is_drawn_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 draws of 20: binomial, 100 ± 9.7; five standard deviations are allowed."""
    drawn: Counter[int] = Counter()

    def spy(index: int) -> procedural.Field:
        def family(shape_hw: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
            drawn[index] += 1
            return np.zeros(shape_hw, np.float32)

        return family

    monkeypatch.setattr(textures, "FAMILIES", tuple(spy(index) for index in range(20)))
    rng = np.random.default_rng(3)
    for _ in range(2000):
        ProceduralTextures().sample(rng, (2, 2))
    assert len(drawn) == 20 and all(abs(count - 100) < 49 for count in drawn.values()), drawn
