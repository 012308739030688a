"""The bundle: a directory that holds a model and everything needed to use it, checked byte for byte on reading.

::

    bottle.edgead/
        manifest.yaml     what `Manifest` describes, with the SHA-256 of every other file
        manifest.sha256   SHA-256 of manifest.yaml, in the form that `sha256sum -c` reads
        model.onnx        the float graph; further precisions (model.int8.onnx) and formats beside it

A bundle is immutable: it is written to a temporary directory and renamed, and no file of it is ever executed or
unpickled. The SHA-256 of the manifest covers everything and is the bundle's identity.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from edge_ad.bundle.consistency import MAX_FILE_BYTES, contradictions
from edge_ad.bundle.files import check_there, file_inside, read_all, safe_name, sha256_of_each, size_of
from edge_ad.bundle.graph.contract import CheckedGraph, GraphContract, GraphFacts, contract_of
from edge_ad.bundle.manifest import Manifest
from edge_ad.bundle.specs import Precision, Thresholds, UsabilityLimits
from edge_ad.bundle.steady import read_steadily
from edge_ad.disk.storage import fsync_directory, publish_directory, write_durably
from edge_ad.errors import BundleError, ConfigError, OutputError, os_reason
from edge_ad.validation import MAX_YAML_BYTES, build, dump_yaml, parse_yaml, plain

T = TypeVar("T")
SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""1 knows one activation, one resize, one smoothing and no threshold for pixels, which are the defaults of 2."""
MANIFEST = "manifest.yaml"
CHECKSUM = "manifest.sha256"
MAX_MANIFEST_BYTES = MAX_YAML_BYTES
LOWER_PRECISIONS: tuple[Precision, ...] = ("int8", "fp16")
"""Precisions that are preferred to fp32 once they are proven, the fastest first."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose every byte has been checked.

    Attributes:
        path: its directory.
        manifest: its content.
        sha256: identity of the bundle, the SHA-256 of manifest.yaml.
    """

    path: Path
    manifest: Manifest
    sha256: str

    @classmethod
    def read(cls, path: str | Path) -> Bundle:
        """Open a bundle and check every file of it. While it is replaced, it is the old one or the new one.

        Raises: BundleError when it is damaged, foreign or written by a newer edge-ad, and when its manifest contradicts
            itself or the contract (`edge_ad.bundle.consistency`); BundleUnavailableError when it is not there, or
            cannot be read now.
        """
        return read_steadily(Path(path), CHECKSUM, lambda: cls._read(Path(path)))

    @classmethod
    def _read(cls, path: Path) -> Bundle:
        check_there(path, MANIFEST)
        text = _checked_manifest(path)
        manifest = _parse_manifest(text, path)
        files = [file_inside(path, name) for name in manifest.files]
        for name, file in zip(manifest.files, files, strict=True):
            if (size := size_of(file)) > MAX_FILE_BYTES:
                raise BundleError(f"bundle {path}: {name} has {size} bytes, wanted at most {MAX_FILE_BYTES}")
        for (name, wanted), found in zip(manifest.files.items(), sha256_of_each(files), strict=True):
            if found != wanted:
                raise BundleError(
                    f"bundle {path}: {name} is not what was written (SHA-256 differs); copy or export it again"
                )
        return cls(path, manifest, hashlib.sha256(text).hexdigest())

    def precision(self, wanted: Precision | None) -> Precision:
        """Precision to run.

        The wanted one, held or not; else the only one that the bundle holds; else int8, or else fp16, where its gate
        has passed and it was not slower than fp32 there; else fp32.
        """
        models, records = self.manifest.models, self.manifest.quantization
        if wanted is not None:
            return wanted
        if len(models) == 1:
            return next(iter(models))
        proven = [lower for lower in LOWER_PRECISIONS if lower in records and records[lower].is_proven_and_faster]
        return proven[0] if proven else "fp32"

    def thresholds(self, precision: Precision) -> Thresholds:
        """Thresholds of a precision: its own, or else those of the bundle."""
        return self.manifest.precision_thresholds.get(precision, self.manifest.thresholds)

    @property
    def usability(self) -> UsabilityLimits:
        """From what on a frame shows too little to be judged: learned, or else what suits every line."""
        return self.manifest.usability or UsabilityLimits()

    def with_usability(self, limits: UsabilityLimits) -> Bundle:
        """This bundle with other limits. On disk nothing changes until `write_changed` writes it."""
        return replace(self, manifest=replace(self.manifest, usability=limits))

    def model_file(self, precision: Precision) -> str:
        """Name of the ONNX graph of a precision. Raises: BundleError when the bundle does not hold it."""
        name = self.manifest.models.get(precision)
        if name is None:
            held = ", ".join(self.manifest.models)
            raise BundleError(f"bundle {self.path}: holds no {precision} model, only {held}; choose one of those")
        return name

    @property
    def graph_contract(self) -> GraphContract:
        """What the graphs of this bundle have to be."""
        return contract_of(self.manifest)

    def examine_graph(self, precision: Precision) -> GraphFacts:
        """What a graph holds, said without an engine. Raises: BundleError with why no engine is given it."""
        from edge_ad.bundle.graph.check import examine_file

        name = self.model_file(precision)
        return self._fit(name, lambda: examine_file(file_inside(self.path, name), self.graph_contract))

    def read_graph(self, precision: Precision) -> CheckedGraph:
        """The graph of a precision, which an engine may see. Raises: BundleError as the two others do."""
        from edge_ad.bundle.graph.check import checked_graph

        data = self.read_file(name := self.model_file(precision))
        return self._fit(name, lambda: checked_graph(data, self.graph_contract))

    def _fit(self, name: str, look: Callable[[], T]) -> T:
        def steadily() -> T:
            try:
                return look()
            except BundleError as exc:
                self.check_unchanged()
                raise BundleError(f"bundle {self.path}: no engine is given {name}: {exc}; export it again") from exc

        return read_steadily(self.path, CHECKSUM, steadily)

    def read_file(self, name: str) -> bytes:
        """Bytes of one listed file, checked once more. Raises: BundleError when they have changed."""
        digest = self.manifest.files.get(name)
        if digest is None:
            raise BundleError(f"bundle {self.path}: {name!r} is not listed in its manifest")

        def read() -> bytes:
            data = read_all(file_inside(self.path, name), MAX_FILE_BYTES)
            if hashlib.sha256(data).hexdigest() != digest:
                self.check_unchanged()
                raise BundleError(f"bundle {self.path}: {name} changed while it was in use; copy or export it again")
            return data

        return read_steadily(self.path, CHECKSUM, read)

    def check_unchanged(self) -> None:
        """Raise BundleError when another bundle has taken the place of this one."""
        text = read_steadily(self.path, CHECKSUM, lambda: _checked_manifest(self.path))
        if hashlib.sha256(text).hexdigest() != self.sha256:
            raise BundleError(f"bundle {self.path}: was replaced while it was in use; start again with the new one")


def write_bundle(
    path: str | Path, manifest: Mapping[str, Any], files: Mapping[str, bytes], *, replace: bool = False
) -> Bundle:
    """Write a bundle atomically: all of it appears at `path`, or nothing.

    Args:
        path: directory to create; its parent must exist or can be made. A link stays, and what it points to is written.
        manifest: fields of `Manifest` but `schema_version` and `files`, as dataclasses or plain values.
        files: content of every file by its name in the bundle.
        replace: take the place of an existing bundle; anything that is no bundle is never replaced.

    Raises: OutputError when it cannot be written; whatever was at `path` before is still there.
    """
    path = Path(path)
    check_destination(path, replace=replace)
    place = Path(os.path.realpath(path))
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    fields = {"schema_version": SCHEMA_VERSION, **manifest, "files": hashes}
    text = dump_yaml(plain(build(Manifest, fields, "manifest"))).encode()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
        try:
            for name, data in {**files, MANIFEST: text, CHECKSUM: _checksum_line(text)}.items():
                target = scratch / safe_name(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                write_durably(target, data)
            scratch.chmod(0o755)
            for folder in {scratch, *(scratch.joinpath(safe_name(name)).parent for name in files)}:
                fsync_directory(folder)
            written = Bundle.read(scratch)
            publish_directory(scratch, place, replace=replace)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as exc:
        raise OutputError(f"bundle {path}: cannot be written: {os_reason(exc)}") from exc
    return Bundle(path, written.manifest, written.sha256)


def write_changed(
    bundle: Bundle,
    path: str | Path,
    changes: Mapping[str, Any],
    *,
    files: Mapping[str, bytes] = MappingProxyType({}),
    without: Collection[str] = (),
    replace: bool = False,
) -> Bundle:
    """Write a bundle that is another one but for some fields of its manifest and some files.

    Args:
        bundle: the one to start from; it stays as it is unless `path` is its own place.
        path, replace: as for `write_bundle`.
        changes: fields of `Manifest` by name.
        files: content of files by their names in the bundle; they are added, or replace those of the same name. All
            others stay byte for byte.
        without: names of files that are left out, if they are there.

    Raises: OutputError as `write_bundle` does; BundleError when the bundle has changed since it was read: what somebody
        else has written into it meanwhile is not lost.
    """
    bundle.check_unchanged()
    derived = ("schema_version", "files")
    fields = {name: value for name, value in plain(bundle.manifest).items() if name not in derived}
    kept = {name: bundle.read_file(name) for name in bundle.manifest.files if name not in {*files, *without}}
    return write_bundle(path, {**fields, **changes}, {**kept, **files}, replace=replace)


def check_destination(path: Path, *, replace: bool) -> None:
    """Raise OutputError early when a bundle could not be written to `path`."""
    if not path.name:
        raise OutputError(f"bundle {path}: wanted the name of a new directory, such as bottle.edgead")
    if not path.exists() and not path.is_symlink():
        above = next(parent for parent in path.absolute().parents if parent.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise OutputError(f"bundle {path}: {above} is no folder that can be written to; choose another place")
        return
    if not all((path / name).is_file() for name in (MANIFEST, CHECKSUM)):
        raise OutputError(f"{path} exists and is no bundle; choose another name for the output")
    if not replace:
        raise OutputError(f"bundle {path} exists; give --force to replace it, or choose another name")


def _checked_manifest(path: Path) -> bytes:
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise BundleError(f"bundle {path}: no {MANIFEST} in it; this is no bundle")
    text = read_all(file_inside(path, MANIFEST), MAX_MANIFEST_BYTES)
    version = _claimed_version(text)
    if version is not None and version > SCHEMA_VERSION:
        raise BundleError(
            f"bundle {path}: written with schema version {version}, this edge-ad reads {SCHEMA_VERSION}; update edge-ad"
        )
    checksum = path / CHECKSUM
    if not checksum.is_file() or read_all(file_inside(path, CHECKSUM), MAX_MANIFEST_BYTES) != _checksum_line(text):
        raise BundleError(
            f"bundle {path}: {MANIFEST} is not what was written (SHA-256 differs from {CHECKSUM});"
            " copy or export it again; to try another threshold use 'edge-ad run --threshold'"
        )
    return text


def _claimed_version(text: bytes) -> int | None:
    """Schema version of a manifest that may hold anything else this version does not know."""
    try:
        version = parse_yaml(text.decode("utf-8"), MANIFEST).get("schema_version")
    except (ConfigError, UnicodeDecodeError):
        return None
    return version if isinstance(version, int) else None


def _parse_manifest(text: bytes, path: Path) -> Manifest:
    try:
        manifest = build(Manifest, parse_yaml(text.decode("utf-8"), MANIFEST), MANIFEST)
    except (ConfigError, UnicodeDecodeError) as exc:
        raise BundleError(f"bundle {path}: {exc}") from exc
    if manifest.schema_version not in READABLE_VERSIONS:
        known = " and ".join(map(str, READABLE_VERSIONS))
        raise BundleError(f"bundle {path}: schema version {manifest.schema_version} is unknown, wanted {known}")
    faults = list(islice(contradictions(manifest), ConfigError.most_shown))
    if faults:
        raise BundleError(f"bundle {path}: {MANIFEST}: {'; '.join(faults)}; export it again")
    return manifest


def _checksum_line(text: bytes) -> bytes:
    return f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n".encode()
