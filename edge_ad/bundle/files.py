"""The files inside of a bundle: names that stay inside, their bytes and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Event

from edge_ad.errors import BundleError, BundleUnavailableError, may_pass, os_reason

AT_ONCE = 4  # files that are hashed; a station hashes all of a bundle at every start


def safe_name(name: str) -> PurePosixPath:
    """A file name of a bundle, refused unless it is relative and stays inside."""
    pure = PurePosixPath(name)
    if (
        not name
        or pure.is_absolute()
        or ".." in pure.parts
        or "\\" in name
        or ":" in name
        or "\0" in name
        or pure.parts == ()
    ):
        raise BundleError(f"bundle: file name {name!r} points outside of the bundle")
    return pure


def check_there(path: Path, manifest: str) -> None:
    """Raise BundleUnavailableError where there is nothing at all, as before a share is mounted."""
    try:
        if path.is_dir():
            if not any(path.iterdir()):
                remedy = "nor anything else; mount what it lies on, or copy it there"
                raise BundleUnavailableError(f"bundle {path}: no {manifest} in it, {remedy}")
            return
        if path.exists():
            raise BundleError(f"bundle {path}: is a file, not a directory; 'edge-ad export' writes one")
    except OSError as exc:
        raise unreadable(path, exc) from exc
    raise BundleUnavailableError(
        f"bundle {path}: does not exist; 'edge-ad export' writes one, a share has to be mounted"
    )


def file_inside(root: Path, name: str) -> Path:
    """Where a file of a bundle lies. Raises: BundleError when it is missing, a link, or not inside."""
    target = root / safe_name(name)
    try:
        resolved = target.resolve()
        if not resolved.is_relative_to(root.resolve()) or target.is_symlink():
            raise BundleError(f"bundle {root}: {name} is a link or lies outside of the bundle")
        if not resolved.is_file():
            raise BundleError(f"bundle {root}: {name} is missing; copy or export it again")
    except OSError as exc:
        raise unreadable(target, exc) from exc
    return resolved


def read_all(path: Path, max_bytes: int) -> bytes:
    """Bytes of a file. Raises: BundleError when it cannot be read, or has more than `max_bytes`."""
    if size_of(path) > max_bytes:
        raise BundleError(f"{path}: larger than {max_bytes} bytes, which no such file is")
    try:
        return path.read_bytes()
    except OSError as exc:
        raise unreadable(path, exc) from exc


def unreadable(path: Path, exc: OSError) -> BundleError:
    """What to raise when the system does not give a file or folder out."""
    kind = BundleUnavailableError if may_pass(exc) else BundleError
    return kind(f"{path}: cannot be read: {os_reason(exc)}")


def size_of(path: Path) -> int:
    """Bytes that a file has. Raises: BundleError when it cannot be read."""
    try:
        return path.stat().st_size
    except OSError as exc:
        raise unreadable(path, exc) from exc


def sha256_of_each(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of files, in their order, some at the same time. Raises: BundleError for one that cannot be read."""
    given_up = Event()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            return list(pool.map(partial(_sha256_of, given_up=given_up), paths))
        except BaseException:  # nobody waits for the others any more, which may be of some gigabytes
            given_up.set()
            raise


def _sha256_of(path: Path, given_up: Event) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while not given_up.is_set() and (chunk := file.read(1 << 20)):
                digest.update(chunk)
    except OSError as exc:
        raise unreadable(path, exc) from exc
    return digest.hexdigest()
