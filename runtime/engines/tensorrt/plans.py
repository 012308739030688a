"""Plans on disk: found by what they can do, never handed out when they do not fit or are damaged.

A plan lies beside a sidecar, `NAME.json`, which holds its fingerprint and its SHA-256 and is vouched for by the key of
the user who wrote it. The plan is written first and the sidecar last, both whole or not at all, so that whatever is
interrupted leaves a plan that nothing vouches for, and which is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ad.disk.private import NotPrivateError, fault_of_folder, make_private_folder, read_private
from edge_ad.disk.storage import write_atomically
from edge_ad.disk.vouching import CODE, NoKeyError, is_vouched, own_key, read_key, vouched
from edge_ad.errors import ConfigError, EngineError, OutputError, os_reason
from edge_ad.runtime.engines.tensorrt.fingerprint import Fingerprint, PlanNeed, misfit
from edge_ad.validation import build, plain

SUFFIX = ".plan"
FIELDS = frozenset({"fingerprint", "sha256", CODE})


@dataclass(frozen=True)
class PlanFile:
    """Place of one plan.

    Attributes:
        path: of the plan; its sidecar has the same name with `.json` in place of the suffix.
    """

    path: Path

    @property
    def sidecar(self) -> Path:
        return self.path.with_suffix(".json")

    def fingerprint(self) -> Fingerprint | None:
        """What the sidecar says; None where there is none, or it is none of ours."""
        content = self._content()
        if content is None:
            return None
        try:
            return build(Fingerprint, content["fingerprint"], str(self.sidecar))
        except ConfigError:
            return None

    def read(self) -> bytes:
        """The plan, of a folder that is looked at before (`fault_of_folder`).

        Raises: UntrustedPlanError when it is missing, is not what its sidecar vouches for, or that is not this user's.
        """
        try:
            content = _parsed(read_private(self.sidecar))
            if content is None or not is_vouched(read_key(), self.path.name, content):
                raise UntrustedPlanError("was not built by this user; build it, or take it over with --adopt")
            plan = bytes(read_private(self.path))
        except NoKeyError as exc:
            raise UntrustedPlanError(f"cannot be trusted: {exc}") from exc
        except NotPrivateError as exc:
            raise UntrustedPlanError(f"cannot be trusted: {exc}") from exc
        except OSError as exc:
            raise UntrustedPlanError("is damaged") from exc
        if content["sha256"] != hashlib.sha256(plan).hexdigest():
            raise UntrustedPlanError("is damaged")
        return plan

    def read_on_trust(self) -> bytes | None:
        """The plan, whoever wrote it, for a user who vouches for it; None when it is missing or damaged."""
        content = self._content()
        try:
            plan = self.path.read_bytes()
        except OSError:
            return None
        if content is None or content["sha256"] != hashlib.sha256(plan).hexdigest():
            return None
        return plan

    def prepare(self) -> None:
        """Make the folder. Raises: OutputError when nothing could be written there, so that nobody builds in vain."""
        folder = self.path.parent
        try:
            make_private_folder(folder)
        except OSError as exc:
            raise OutputError(f"engine {self.path}: {folder} cannot be made: {os_reason(exc)}") from exc
        if not os.access(folder, os.W_OK):
            raise OutputError(f"engine {self.path}: {folder} cannot be written to; choose another place")

    def write(self, fingerprint: Fingerprint, plan: bytes) -> None:
        """Put a plan here, in place of another. Raises: OutputError; then there is the old one, or none that counts."""
        content = {"fingerprint": plain(fingerprint), "sha256": hashlib.sha256(plan).hexdigest()}
        with suppress(NoKeyError):  # it can still be taken elsewhere, and be adopted there
            content = vouched(own_key(), self.path.name, content)
        try:
            self._remove_scratch()
            write_atomically(self.path, plan)
            write_atomically(self.sidecar, json.dumps(content, indent=2).encode())
        except OSError as exc:
            raise OutputError(f"engine {self.path}: cannot be written: {os_reason(exc)}") from exc

    def _remove_scratch(self) -> None:
        """What a process that was killed while it wrote has left here; the caller holds the lock of this place."""
        for name in (self.path.name, self.sidecar.name):
            for scratch in self.path.parent.glob(f".{name}.*.tmp"):
                scratch.unlink(missing_ok=True)

    def _content(self) -> dict[str, Any] | None:
        try:
            return _parsed(self.sidecar.read_bytes())
        except OSError:
            return None


class UntrustedPlanError(Exception):
    """A plan is not to be loaded; the message says why, after its name."""


def _parsed(text: bytes | bytearray) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # the last one: brackets in brackets in brackets
        return None
    is_ours = isinstance(content, dict) and {"fingerprint", "sha256"} <= content.keys() <= FIELDS
    return content if is_ours and isinstance(content["fingerprint"], dict) else None


@dataclass(frozen=True)
class FoundPlan:
    """A plan, what it was built for, and its file."""

    data: bytes
    fingerprint: Fingerprint
    path: Path


def find_plan(folder: Path, need: PlanNeed, say: Callable[[str], None] = lambda _: None) -> FoundPlan | None:
    """A plan of a folder that can be loaded for a need.

    Of several that fit, the one that is made for this very GPU and version, then the one whose best batch is nearest,
    then the youngest.

    Args:
        folder: where plans are kept.
        need: what it has to do.
        say: receives why there is none, such as `built for SM86, this is SM89`; nothing is said where none was ever
            built from this model.
    """
    fault = fault_of_folder(folder)
    if fault is not None:
        say(f"the folder is not used: {fault}")
        return None
    fitting: list[tuple[tuple[int, int, float], PlanFile, Fingerprint]] = []
    reasons: list[str] = []
    for file, fingerprint in _plans(folder):
        reason = misfit(fingerprint, need)
        if reason is None:
            fitting.append((_preference(file, fingerprint, need), file, fingerprint))
        elif fingerprint.onnx_sha256 == need.onnx_sha256 and reason not in reasons:
            reasons.append(reason)
    for _, file, fingerprint in sorted(fitting, key=lambda entry: entry[0]):
        try:
            return FoundPlan(file.read(), fingerprint, file.path)
        except UntrustedPlanError as exc:
            reasons.insert(0, f"{file.path} {exc}")
    if reasons:
        say("; ".join(reasons))
    return None


def read_plan(path: Path, need: PlanNeed) -> bytes:
    """The plan in a file that the user names and vouches for, whoever built it.

    Raises: EngineError when it is missing or damaged, or does not fit, with the reason.
    """
    file = PlanFile(path)
    if not path.is_file():
        raise EngineError(f"engine {path}: does not exist; 'edge-ad build' writes one")
    fingerprint = file.fingerprint()
    if fingerprint is None:
        raise EngineError(
            f"engine {path}: nothing says what it was built for, {file.sidecar.name} is missing or damaged;"
            " build it with 'edge-ad build'"
        )
    reason = misfit(fingerprint, need)
    if reason is not None:
        raise EngineError(f"engine {path}: {reason}; build one for this machine with 'edge-ad build'")
    plan = file.read_on_trust()
    if plan is None:
        raise EngineError(f"engine {path}: damaged, its SHA-256 differs from {file.sidecar.name}; build it again")
    return plan


def _plans(folder: Path) -> list[tuple[PlanFile, Fingerprint]]:
    files = (PlanFile(path.with_suffix(SUFFIX)) for path in sorted(folder.glob("*.json")))
    return [(file, fingerprint) for file in files if (fingerprint := file.fingerprint()) is not None]


def _preference(file: PlanFile, built: Fingerprint, need: PlanNeed) -> tuple[int, int, float]:
    """The smallest is taken."""
    try:
        written = file.sidecar.stat().st_mtime
    except OSError:
        written = 0.0
    general = (built.version != need.version) + any("compatible" in flag for flag in built.flags)
    return general, abs(built.batch_best - need.batch), -written
