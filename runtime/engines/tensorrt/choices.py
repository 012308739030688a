"""What 'edge-ad selftest' has found to be fastest on a machine, kept beside its engines for the runner to read."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_ad.disk.private import fault_of_folder, make_private_folder, read_private
from edge_ad.disk.storage import write_atomically
from edge_ad.disk.vouching import NoKeyError, is_vouched, own_key, read_key, vouched, without_code
from edge_ad.errors import ConfigError, OutputError, one_line, os_reason
from edge_ad.runtime.engines.tensorrt.fingerprint import PlanNeed, Tail
from edge_ad.validation import build, plain, strict

log = logging.getLogger(__name__)

SUFFIX = ".choices"


@strict
@dataclass(frozen=True)
class Choices:
    """What to run. What stands here without a measurement is what works everywhere.

    Attributes:
        tail: which engine, of the two that `edge-ad build --tail` makes.
        preprocess: where frames become model inputs.
        cuda_graph: whether launches are recorded once and then replayed.
        medians_ms: what was measured, by name, in milliseconds.
    """

    tail: Tail = "graph"
    preprocess: Literal["cpu", "device"] = "cpu"
    cuda_graph: bool = False
    medians_ms: dict[str, float] = field(default_factory=dict)


def read_choices(folder: Path, need: PlanNeed) -> Choices | None:
    """What was found for a model on this GPU; None where nothing was measured, or this user did not measure it."""
    path = _file(folder, need)
    if fault_of_folder(folder) is not None:  # which `find_plan` says
        return None
    try:
        content = json.loads(read_private(path))
        if isinstance(content, dict) and is_vouched(read_key(), path.name, content):
            return build(Choices, without_code(content), "choices")
        log.warning("%s was not measured by this user and is not used; 'edge-ad selftest' measures anew", path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RecursionError, ConfigError, NoKeyError) as exc:
        log.warning("%s is not used (%s); 'edge-ad selftest' measures anew", path, one_line(exc))
    return None


def write_choices(folder: Path, need: PlanNeed, choices: Choices) -> Path:
    """Keep what was found, in place of what was there. Returns: the file. Raises: OutputError."""
    path = _file(folder, need)
    try:
        make_private_folder(folder)
        content = vouched(own_key(), path.name, plain(choices))
        write_atomically(path, json.dumps(content, indent=2).encode())
    except NoKeyError as exc:
        raise OutputError(f"{path}: cannot be vouched for: {exc}") from exc
    except OSError as exc:
        raise OutputError(f"{path}: cannot be written: {os_reason(exc)}") from exc
    return path


def _file(folder: Path, need: PlanNeed) -> Path:
    """One for each model, TensorRT and GPU; not for each batch, for it hardly changes what is faster."""
    key = (need.onnx_sha256, need.precision, need.flavour, need.version, need.sm, need.gpu, need.dla, need.platform)
    return folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}{SUFFIX}"
