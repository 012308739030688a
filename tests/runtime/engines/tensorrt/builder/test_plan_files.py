"""Plans are found by what they can do, and never handed out when they do not fit or are damaged."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_ad.errors import EngineError, OutputError
from edge_ad.runtime.engines.tensorrt.choices import Choices, read_choices, write_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import Fingerprint, PlanNeed, misfit, this_platform
from edge_ad.runtime.engines.tensorrt.plans import PlanFile, read_plan
from edge_ad.runtime.engines.tensorrt.plans import find_plan as find_plan_file

ONNX = hashlib.sha256(b"graph").hexdigest()
BUILT = Fingerprint(
    flavour="rtx",
    version="1.7.1.116",
    sm=(86, 89),
    gpu=None,
    precision="int8",
    batch_min=1,
    batch_best=2,
    batch_max=4,
    dla=None,
    flags=(),
    onnx_sha256=ONNX,
    platform=this_platform(),
    edge_ad="0.1.0",
)
NEED = PlanNeed("rtx", "1.7.1.116", 86, "NVIDIA GeForce RTX 3060", "int8", 1, ONNX, None, this_platform())
JETSON = replace(BUILT, flavour="tensorrt", version="10.3.0", sm=(87,), gpu="Orin", precision="fp16")
ON_JETSON = replace(NEED, flavour="tensorrt", version="10.3.0", sm=87, gpu="Orin", precision="fp16")


def find_plan(folder: Path, need: PlanNeed, say: Callable[[str], None] = lambda _: None) -> bytes | None:
    """Content of the plan that is found."""
    found = find_plan_file(folder, need, say)
    return None if found is None else found.data


def stored(folder: Path, name: str, fingerprint: Fingerprint, plan: bytes) -> PlanFile:
    file = PlanFile(folder / f"{name}.plan")
    file.prepare()
    file.write(fingerprint, plan)
    return file


@pytest.mark.parametrize(
    ("built", "need"),
    [
        (BUILT, NEED),
        (BUILT, replace(NEED, sm=89, gpu="NVIDIA GeForce RTX 4090", batch=4)),
        (replace(BUILT, edge_ad="9.9"), NEED),
        (JETSON, ON_JETSON),
        (replace(JETSON, dla=1), replace(ON_JETSON, dla=1)),
        (replace(JETSON, sm=(80,), gpu=None, flags=("hardware-compatible",)), replace(ON_JETSON, sm=120, gpu="other")),
        (replace(JETSON, flags=("version-compatible",)), replace(ON_JETSON, version="10.16.2")),
        (replace(JETSON, flags=("tf32", "workspace 64 MiB")), ON_JETSON),
        (replace(JETSON, flags=("kernel-tail",)), ON_JETSON),
        (replace(JETSON, flags=("kernel-tail",)), replace(ON_JETSON, tail="kernel")),
        (JETSON, replace(ON_JETSON, tail="graph")),
    ],
)
def test_a_plan_that_fits(built: Fingerprint, need: PlanNeed) -> None:
    assert misfit(built, need) is None


@pytest.mark.parametrize(
    ("built", "need", "reason"),
    [
        (BUILT, replace(NEED, sm=120), "built for SM86, SM89, this is SM120"),
        (replace(BUILT, sm=(86,)), replace(NEED, sm=89), "built for SM86, this is SM89"),
        (BUILT, replace(NEED, version="1.8"), "built by TensorRT-RTX 1.7.1.116, this is 1.8"),
        (BUILT, replace(NEED, batch=5), "built for batches of 1 to 4, wanted 5"),
        (replace(BUILT, batch_min=4, batch_best=4), NEED, "built for batches of 4, wanted 1"),
        (BUILT, replace(NEED, precision="fp32"), "built for int8, wanted fp32"),
        (BUILT, replace(NEED, onnx_sha256="0"), "built from another model"),
        (BUILT, replace(NEED, platform="linux-aarch64"), f"built on {this_platform()}, this is linux-aarch64"),
        (BUILT, replace(NEED, flavour="tensorrt"), "built by TensorRT-RTX, wanted TensorRT"),
        (JETSON, replace(ON_JETSON, gpu="Thor"), "built on Orin, this is Thor"),
        (JETSON, replace(ON_JETSON, tail="kernel"), "built with --tail graph, wanted kernel"),
        (
            replace(JETSON, flags=("kernel-tail",)),
            replace(ON_JETSON, tail="graph"),
            "built with --tail kernel, wanted graph",
        ),
        (JETSON, replace(ON_JETSON, dla=0), "built for the GPU, wanted DLA core 0"),
        (replace(JETSON, dla=0), ON_JETSON, "built for DLA core 0, wanted the GPU"),
        (JETSON, replace(ON_JETSON, version="10.3.1"), "built by TensorRT 10.3.0, this is 10.3.1"),
        (
            replace(JETSON, flags=("version-compatible",)),
            replace(ON_JETSON, version="10.2.9"),
            "built by TensorRT 10.3.0, this is 10.2.9",
        ),
        (
            replace(JETSON, flags=("version-compatible",)),
            replace(ON_JETSON, version="11.4"),
            "built by TensorRT 10.3.0, this is 11.4",
        ),
        (
            replace(JETSON, flags=("hardware-compatible",), gpu=None),
            replace(ON_JETSON, sm=75),
            "built for SM80 and newer, this is SM75",
        ),
    ],
)
def test_a_plan_that_does_not_fit_says_why(built: Fingerprint, need: PlanNeed, reason: str, tmp_path: Path) -> None:
    assert misfit(built, need) == reason
    file = stored(tmp_path, "a", built, b"plan")
    said: list[str] = []
    assert find_plan(tmp_path, need, said.append) is None
    assert said == ([] if reason == "built from another model" else [reason])
    with pytest.raises(EngineError, match=r"a\.plan: built .*; build one for this machine"):
        read_plan(file.path, need)


def test_every_field_but_one_changes_the_key() -> None:
    changes: dict[str, Any] = {
        "flavour": "tensorrt",
        "version": "2",
        "sm": (86,),
        "gpu": "x",
        "precision": "fp16",
        "batch_min": 2,
        "batch_best": 3,
        "batch_max": 5,
        "dla": 0,
        "flags": ("tf32",),
        "onnx_sha256": "0",
        "platform": "x",
        "edge_ad": "2",
    }
    assert len({replace(BUILT, **{name: value}).key for name, value in changes.items()} | {BUILT.key}) == 14


def test_found_again_byte_for_byte(tmp_path: Path) -> None:
    plan = os.urandom(1000)
    file = stored(tmp_path, "a", BUILT, plan)
    said: list[str] = []
    assert find_plan(tmp_path, NEED, said.append) == read_plan(file.path, NEED) == plan and said == []
    assert file.fingerprint() == BUILT
    assert find_plan(tmp_path / "nowhere", NEED, said.append) is None and said == []


def test_the_better_of_two_is_taken(tmp_path: Path) -> None:
    stored(tmp_path, "general", replace(JETSON, gpu=None, flags=("hardware-compatible",), batch_best=1), b"general")
    stored(tmp_path, "four", replace(JETSON, batch_best=4), b"four")
    stored(tmp_path, "two", replace(JETSON, batch_best=2), b"two")
    assert find_plan(tmp_path, ON_JETSON) == b"two"
    assert find_plan(tmp_path, replace(ON_JETSON, batch=4)) == b"four"
    assert find_plan(tmp_path, replace(ON_JETSON, gpu="AGX Orin")) == b"general"
    young = stored(tmp_path, "young", replace(JETSON, batch_best=2), b"young")
    os.utime(young.sidecar, (4e9, 4e9))
    assert find_plan(tmp_path, ON_JETSON) == b"young"


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone", "swapped"])
def test_a_damaged_plan_is_never_handed_out(harm: str, tmp_path: Path) -> None:
    plan = bytes(range(256))
    file = stored(tmp_path, "a", BUILT, plan)
    harmed = {"flip": b"\x01" + plan[1:], "cut": plan[:-1], "empty": b"", "swapped": b"another plan"}
    if harm == "gone":
        file.path.unlink()
    else:
        file.path.write_bytes(harmed[harm])
    said: list[str] = []
    assert find_plan(tmp_path, NEED, said.append) is None
    assert said == [f"{file.path} is damaged"]
    with pytest.raises(EngineError, match="does not exist" if harm == "gone" else "damaged, its SHA-256 differs"):
        read_plan(file.path, NEED)
    stored(tmp_path, "b", replace(BUILT, batch_best=4), plan)
    assert find_plan(tmp_path, NEED) == plan  # a sound one beside it still serves


def test_a_plan_that_somebody_else_wrote_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hash that fits, and a sidecar that says what is needed."""
    from other_user import become  # not above: processes that are killed import this module

    with monkeypatch.context() as patch:
        become(patch, tmp_path / "another user")
        file = stored(tmp_path / "engines", "a", BUILT, b"planted")
        assert find_plan(tmp_path / "engines", NEED) == b"planted"  # control: of the other user's own cache
    said: list[str] = []
    assert find_plan(tmp_path / "engines", NEED, said.append) is None
    assert said == [f"{file.path} was not built by this user; build it, or take it over with --adopt"]
    assert file.read_on_trust() == b"planted"


def test_a_plan_under_another_name_or_with_another_claim_is_not_found(tmp_path: Path) -> None:
    file = stored(tmp_path, "a", BUILT, b"plan")
    text = file.sidecar.read_text()
    file.sidecar.write_text(text.replace('"batch_max": 4', '"batch_max": 8'))
    assert file.fingerprint() == replace(BUILT, batch_max=8)
    assert find_plan(tmp_path, replace(NEED, batch=8)) is None
    file.sidecar.write_text(text)
    for path in (file.path, file.sidecar):
        path.rename(path.with_stem("b"))
    assert find_plan(tmp_path, NEED) is None


@pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")
def test_a_folder_or_file_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    folder, said = tmp_path / "engines", []
    file = stored(folder, "a", BUILT, b"plan")
    assert folder.stat().st_mode & 0o777 == 0o700
    for path, reason in ((file.path, "cannot be trusted: others can"), (file.sidecar, "cannot be trusted: others can")):
        path.chmod(0o666)
        assert find_plan(folder, NEED, said.append) is None and reason in said.pop()
        path.chmod(0o600)
    folder.chmod(0o777)
    assert find_plan(folder, NEED, said.append) is None
    assert said == [f"the folder is not used: others can write to {folder} (mode 0777)"]
    folder.chmod(0o700)
    assert find_plan(folder, NEED) == b"plan"


def test_choices_are_those_of_this_user_for_this_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from other_user import become

    folder, other = tmp_path / "engines", replace(NEED, onnx_sha256="0" * 64)
    wanted = Choices("kernel", "device", cuda_graph=True, medians_ms={"all": 1.5})
    path = write_choices(folder, NEED, wanted)
    assert read_choices(folder, NEED) == wanted and read_choices(folder, other) is None and caplog.records == []
    elsewhere = write_choices(tmp_path / "other", other, Choices())
    path.rename(folder / elsewhere.name)  # of one model, in place of those of another
    assert read_choices(folder, other) is None
    path = write_choices(folder, NEED, wanted)
    path.write_text(path.read_text().replace("kernel", "graph"))
    assert read_choices(folder, NEED) is None
    with monkeypatch.context() as patch:
        become(patch, tmp_path / "another user")
        write_choices(folder, NEED, wanted)
    assert read_choices(folder, NEED) is None
    assert [record.getMessage().partition(" was ")[2] for record in caplog.records] == [
        "not measured by this user and is not used; 'edge-ad selftest' measures anew"
    ] * 3
    if os.name == "posix":
        write_choices(folder, NEED, wanted)
        folder.chmod(0o777)
        assert read_choices(folder, NEED) is None  # which is said of the plans
    (tmp_path / "a file").touch()
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "a file"))
    with pytest.raises(OutputError, match="cannot be vouched for: no key can be made"):
        write_choices(folder, NEED, wanted)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"{}", b'{"fingerprint": {}, "sha256": "0"}', b"[" * 100_000, b"\xff\xfe"]
)
def test_a_damaged_sidecar_vouches_for_nothing(text: bytes, tmp_path: Path) -> None:
    file = stored(tmp_path, "a", BUILT, b"plan")
    file.sidecar.write_bytes(text)
    assert file.fingerprint() is None and find_plan(tmp_path, NEED) is None
    with pytest.raises(EngineError, match="nothing says what it was built for"):
        read_plan(file.path, NEED)


def test_a_sidecar_with_a_changed_fingerprint_is_not_believed_blindly(tmp_path: Path) -> None:
    """The fingerprint is plain text: a field of another type or an unknown one is refused, not guessed at."""
    file = stored(tmp_path, "a", BUILT, b"plan")
    sound = file.sidecar.read_text()
    for old, new in (('"batch_max": 4', '"batch_max": "many"'), ('"dla": null', '"dla": null, "more": 1')):
        file.sidecar.write_text(sound.replace(old, new))
        assert file.fingerprint() is None
    file.sidecar.write_text(sound)
    assert file.fingerprint() == BUILT


def test_a_place_that_cannot_be_written_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be made"):
        PlanFile(tmp_path / "file" / "a.plan").prepare()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_plan_files import BUILT
from edge_ad.runtime.engines.tensorrt import plans

calls = []
write = plans.write_atomically

def at(moment):
    calls.append(moment)
    if ",".join(calls) == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

fsync = os.fsync
os.fsync = lambda handle: (at("flushing"), fsync(handle))
replace = Path.replace
Path.replace = lambda source, target: (at("renaming"), replace(source, target))
plans.PlanFile(Path(sys.argv[2])).write(BUILT, b"new plan")
"""
MOMENTS = ("flushing", "renaming", "flushing", "renaming")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills otherwise")
@pytest.mark.parametrize("moment", range(len(MOMENTS)), ids=["plan", "plan's name", "sidecar", "sidecar's name"])
@pytest.mark.parametrize("there", [False, True], ids=["empty", "replacing"])
def test_killed_while_writing_leaves_no_half_plan(moment: int, there: bool, tmp_path: Path) -> None:
    file = PlanFile(tmp_path / "a.plan")
    if there:
        file.write(BUILT, b"old plan")
    arguments = [str(Path(__file__).parent), str(file.path), ",".join(MOMENTS[: moment + 1])]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.glob(".*.tmp"))  # the control: it was in the middle of something
    assert find_plan(tmp_path, NEED) == (b"old plan" if there and moment < 2 else None)
    file.write(BUILT, b"new plan")
    assert find_plan(tmp_path, NEED) == b"new plan"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.plan"]
