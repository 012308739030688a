"""Mutated bundles whose hashes fit, through `edge-ad info` and into an engine, in processes under a watchdog.

    python tests/support/fuzz_bundles.py BUNDLE [--count 50000] [--seed 0] [--processes 2] [--keep FOLDER]

Says how many there were of each outcome, and ends with 1 when there was a crash, a hang, a traceback or an internal
error. Number and seed of each such case are printed; `--keep` is where the bundles of those are left.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

HANG_S = 5.0  # of the processor's time for one case, so that a busy machine hangs nothing
FACTOR = 12  # as many times that of the clock's
PLANTED_CASE = 3
PLANTED: dict[str, Callable[[], Any]] = {  # what a test of this program lets one case do
    "crash": lambda: os.abort(),
    "hang": lambda: next(number for number in iter(int, 1) if number),
    "sleep": lambda: time.sleep(1000),
    "traceback": lambda: 1 // 0,
}
ENGINES = ("openvino", "onnxruntime")
NUMBERS = (0, -1, 1, 2, 3, 13, 64, 255, 256, 2**31 - 1, 2**31, 2**32, 10**9, 2**40, 2**63 - 1, -(2**31), -(2**63))
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(None, True, "", "x", "../x", "/etc/passwd", "\x1b[2J", "image", "é" * 300, 0.5, 1e308, float("nan")),
    *([], {}, [1, 2, 3], {"a": 1}, [[]], ["image"], [None, 64, 64, 3], "2026-01-01", "!!python/object:os.system"),
)
TEXTS = (
    *("&a ", "*a", "<<: *a", "{", "[", "]" * 40, "- ", ": ", "\t", "\x00", "\ufeff", "!!int x", "!!binary x"),
    *("---\n", "...\n", "? ", "%YAML 9.9\n", "a: &a [*a]\n", "[" * 3000, "1e999", "'", '"', "|\n", "\u2028", "\ud7ff"),
)


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        bundle: a sound one.
        seed: makes the cases, together with their numbers.
        count: of them.
        processes: that share them.
        keep: where bundles are left that did not end well.
        plant: a fault of `PLANTED` that one case has.
        hang_s: see `HANG_S`.
    """

    bundle: Path
    seed: int = 0
    count: int = 50_000
    processes: int = 2
    keep: Path | None = None
    plant: str | None = None
    hang_s: float = HANG_S


@dataclass
class Outcome:
    """What came of cases. Attributes: counts: of each outcome; faults: case and what happened."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def mutated_graph(graph: bytes, dice: random.Random) -> bytes:
    """A graph with changed bytes, or one whose fields are changed where they hurt."""
    return _changed_bytes(graph, dice) if dice.random() < 0.4 else _changed_fields(graph, dice)


def _changed_bytes(graph: bytes, dice: random.Random) -> bytes:
    data = bytearray(graph)
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        at = dice.randrange(len(data)) if data else 0
        kind = dice.randrange(5)
        if kind == 0 and data:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[at : at + dice.randrange(1, 50)] = b""
        elif kind == 2:
            data[at:at] = dice.randbytes(dice.randrange(1, 20))
        elif kind == 3:
            data[at : at + 8] = dice.choice((b"\xff" * 9 + b"\x01", b"\x80" * 9, b"\x00" * 8, b"\xff" * 8))
        else:
            data[at:at] = data[at : at + dice.randrange(1, 200)]
    return bytes(data[: dice.randrange(len(data) + 1)] if dice.random() < 0.05 else data)


def _changed_fields(graph: bytes, dice: random.Random) -> bytes:
    import onnx

    model = onnx.load_model_from_string(graph)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        message: Any = model
        while True:  # down to a field, each way as likely as the others
            found = message.ListFields()
            if not found:
                break
            descriptor, value = dice.choice(found)
            if descriptor.type != descriptor.TYPE_MESSAGE:
                _change(message, descriptor, dice)
                break
            if hasattr(value, "add"):
                if dice.random() < 0.1:
                    _reorder(value, dice)
                    break
                value = dice.choice(value)
            message = value
    with contextlib.suppress(Exception):
        return bytes(model.SerializeToString())
    return graph


def _change(message: Any, descriptor: Any, dice: random.Random) -> None:
    values: dict[str, Any] = {
        "int": lambda: dice.choice(NUMBERS),
        "float": lambda: dice.choice((0.0, -1.0, 1e38, float("inf"), float("nan"))),
        "text": lambda: dice.choice(
            ("", "image", "a1", "c0", "patch_map", "Loop", "GatherND", "Expand", "ai.onnx.ml", "x" * 5000, "axes", "to")
        ),
        "bytes": lambda: dice.choice((b"", b"\xff" * 8, b"linear", b"SAME_UPPER", dice.randbytes(32))),
    }
    kinds = {descriptor.CPPTYPE_STRING: "bytes" if descriptor.type == descriptor.TYPE_BYTES else "text"}
    kinds |= dict.fromkeys((descriptor.CPPTYPE_FLOAT, descriptor.CPPTYPE_DOUBLE), "float")
    made = values[kinds.get(descriptor.cpp_type, "int")]
    with contextlib.suppress(ValueError, TypeError):  # a number that the field does not hold
        current = getattr(message, descriptor.name)
        if isinstance(current, (int, float, str, bytes)):
            setattr(message, descriptor.name, made())
        elif dice.random() < 0.3:
            current.append(made())
        elif len(current):
            current[dice.randrange(len(current))] = made()


def _reorder(entries: Any, dice: random.Random) -> None:
    kept = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
    kind = dice.randrange(3)
    if kind == 0:
        dice.shuffle(kept)
    elif kind == 1:
        kept.append(dice.choice(kept))
    else:
        kept.pop(dice.randrange(len(kept)))
    del entries[:]
    entries.extend(kept)


def mutated_manifest(manifest: dict[str, Any], graph: bytes, dice: random.Random) -> bytes:
    """A manifest with changed values, or a changed text."""
    import copy

    from sealed_bundles import manifest_for

    if dice.random() < 0.4:
        text = manifest_for(manifest, graph).decode()
        for _ in range(dice.choice((1, 1, 2, 4))):
            at = dice.randrange(len(text) + 1)
            cut = dice.choice((0, 0, 1, 10))
            text = text[:at] + dice.choice((*TEXTS, chr(dice.randrange(0x20, 0x3000)))) + text[at + cut :]
        return text.encode("utf-8", "surrogatepass")
    changed = copy.deepcopy(manifest)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        place: Any = changed
        while isinstance(place, (dict, list)) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = dice.choice(keys)
            if not isinstance(place[key], (dict, list)) or not place[key] or dice.random() < 0.15:
                kind = dice.randrange(8)
                if kind == 0:
                    del place[key]
                elif kind == 1 and isinstance(place, dict):
                    place[str(dice.choice(VALUES))] = place[key]
                else:
                    place[key] = dice.choice(VALUES)
                break
            place = place[key]
    try:
        return manifest_for(changed, graph)
    except Exception:  # what YAML cannot write is no manifest
        return b"\xff" + repr(changed).encode("utf-8", "replace")


def work(job: Job, folder: Path, first: int) -> None:
    """Cases one after the other: a line before each, and one with what came of it."""
    import yaml
    from sealed_bundles import manifest_for, seal

    from edge_ad.bundle.bundle import MANIFEST

    graph = (job.bundle / "model.onnx").read_bytes()
    manifest = yaml.safe_load((job.bundle / MANIFEST).read_text("utf-8"))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no outcome
    os.environ["EDGE_AD_TRACEBACK"] = "1"
    for number in range(first, job.count, job.processes):
        dice = random.Random(job.seed * 1_000_003 + number)
        if dice.random() < 0.6:
            other = mutated_graph(graph, dice)
            seal(folder, manifest_for(manifest, other), other)
        else:
            seal(folder, mutated_manifest(manifest, graph, dice), graph)
        out.write(f"begin {number}\n")
        try:
            if job.plant is not None and number == PLANTED_CASE:
                PLANTED[job.plant]()
            word = _try(folder, ENGINES[number // job.processes % 2])
        except BaseException as exc:
            lines = traceback.format_exception(exc)
            word = "traceback " + " | ".join(" ".join(lines[-3:]).split("\n"))[:600]
        out.write(f"end {number} {word}\n")


def _try(folder: Path, engine: str) -> str:
    """Through `info`, then into an engine and once through it; what came of both."""
    import numpy as np

    import edge_ad
    from edge_ad.cli.main import main
    from edge_ad.errors import EdgeAdError

    said, failed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(failed):
        code = main(["info", "--json", str(folder)])
    message = failed.getvalue()
    if code not in (0, 5) or "Traceback" in message or message.count("\n") > 1:
        return f"internal info ended with {code}: {message[:300]!r}"
    try:
        with edge_ad.open(folder, engine=engine, engine_cache=folder.parent / "cache") as detector:
            detector.judge(np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8))
    except EdgeAdError as exc:
        if code == 5 and exc.exit_code != 5:
            return f"internal info refuses it, loading says {type(exc).__name__}: {str(exc)[:200]!r}"
        return f"{'refused' if code == 5 else 'clean'}, then {type(exc).__name__}"
    return "clean, judged" if code == 0 else "internal info refuses it, an engine was given it"


def fuzz(job: Job) -> Outcome:
    """Run all cases, a share in each process; one that dies or hangs is counted, and a new one goes on."""
    total = Outcome()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(job.processes) as pool:
        places = [Path(folder) / f"share{index}" for index in range(job.processes)]
        for outcome in pool.map(lambda index: _share(job, places[index], index), range(job.processes)):
            total.counts += outcome.counts
            total.faults += outcome.faults
    return total


def _share(job: Job, folder: Path, first: int) -> Outcome:
    outcome = Outcome()
    folder.mkdir()
    while first < job.count:
        first = _until_it_ends(job, folder, first, outcome)
    return outcome


def _until_it_ends(job: Job, folder: Path, first: int, outcome: Outcome) -> int:
    """One process; returns the case that comes after those that it has dealt with."""
    arguments = [str(job.bundle), "--work", str(folder / "case.edgead"), "--seed", str(job.seed)]
    arguments += ["--first", str(first), "--count", str(job.count), "--processes", str(job.processes)]
    arguments += [] if job.plant is None else ["--plant", job.plant]
    command = [sys.executable, __file__, *arguments]
    with (folder / "said.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    case, hung = first, False
    try:
        for line in _lines(process, job.hang_s):
            kind, number, *words = line.split(" ", 2)
            case = int(number)
            if kind == "end":
                _note(job, folder, outcome, case, words[0])
                case += job.processes
    except TimeoutError:
        hung = True
        process.kill()
    finally:
        process.stdout.close()
        code = process.wait()
    if case < job.count:
        _note(job, folder, outcome, case, "hang" if hung else f"crash, exit code {code}")
    return case + job.processes


def _lines(process: subprocess.Popen[bytes], hang_s: float) -> Iterator[str]:
    """Lines of a process. Raises: TimeoutError when none comes for too long; the first may take ten times as long."""
    assert process.stdout is not None
    held, factor = b"", 10
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            began, used = time.monotonic(), _processor_s(process.pid)
            while not selector.select(hang_s / 5):
                waited = time.monotonic() - began
                if _processor_s(process.pid) - used > factor * hang_s or waited > FACTOR * factor * hang_s:
                    raise TimeoutError
            more = os.read(process.stdout.fileno(), 1 << 16)
            if not more:
                return
            *lines, held = (held + more).split(b"\n")
            for line in lines:
                yield line.decode()
                factor = 1 if line.startswith(b"end") else factor


def _processor_s(process: int) -> float:
    """What a process has used of the processor."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def _note(job: Job, folder: Path, outcome: Outcome, case: int, word: str) -> None:
    kind = word.split()[0].strip(",")
    faulty = kind in ("traceback", "internal", "hang", "crash")
    outcome.counts[kind if faulty else word] += 1
    if not faulty:
        return
    outcome.faults.append(f"case {case} of seed {job.seed}: {word}")
    if job.keep is not None and (folder / "case.edgead").is_dir():
        shutil.copytree(folder / "case.edgead", job.keep / f"{job.seed}-{case}.edgead", dirs_exist_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seed", type=int, default=Job.seed)
    parser.add_argument("--count", type=int, default=Job.count)
    parser.add_argument("--processes", type=int, default=Job.processes)
    parser.add_argument("--keep", type=Path)
    for name, kind in (("--work", Path), ("--first", int), ("--plant", str)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    job = Job(given.bundle, given.seed, given.count, given.processes, given.keep, given.plant)
    if given.work is not None:
        work(job, given.work, given.first)
        return 0
    began = time.monotonic()
    outcome = fuzz(job)
    for word, count in outcome.counts.most_common():
        print(f"{count:8d}  {word}")
    print(f"{outcome.counts.total():8d}  in {time.monotonic() - began:.0f} s, {len(outcome.faults)} faults")
    print("\n".join(outcome.faults[:50]))
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
