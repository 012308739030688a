"""Cameras, packages, the cache and its engines, and what becomes of a check that fails itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import other_user
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.bundle.bundle import Bundle
from edge_ad.errors import BundleError, ConfigError, EngineError
from edge_ad.runtime.engines.tensorrt.fingerprint import Fingerprint, this_platform
from edge_ad.runtime.engines.tensorrt.plans import PlanFile
from edge_ad.runtime.instruments.doctor import examine as examination
from edge_ad.runtime.instruments.doctor.check import Check
from edge_ad.runtime.instruments.doctor.examine import SUBJECTS, examine, examine_here
from edge_ad.runtime.instruments.doctor.machine import this_machine
from edge_ad.runtime.instruments.doctor.processes import Answer, Ran
from edge_ad.runtime.instruments.doctor.storage import Wanted

Make = Callable[..., Any]
V4L = "/sys/class/video4linux"
CAMERA = {
    "/dev/video0": "",
    "/dev/video1": "",
    "/dev/video10": "",
    "/dev/video-not-one": "",
    f"{V4L}/video0/name": "Line camera\n",
    f"{V4L}/video0/index": "0\n",
    f"{V4L}/video1/name": "Line camera\n",
    f"{V4L}/video1/index": "1\n",
    f"{V4L}/video10/name": "vi-output, imx219\n",
}


def test_cameras_are_named_and_what_only_describes_frames_is_none(made_up: Make) -> None:
    check = made_up(files=CAMERA).checks()["cameras"]
    assert (check.state, check.found) == ("ok", "2")
    assert check.details == ("camera:0 is Line camera", "camera:10 is vi-output, imx219")


def test_a_camera_that_the_user_may_not_open_is_broken(made_up: Make) -> None:
    check = made_up(files=CAMERA, changes={"accessible": lambda path: path.name != "video10"}).checks()["cameras"]
    assert (check.state, check.remedy) == ("broken", "sudo usermod -aG video $USER, then log in again")
    assert check.details[1] == "camera:10 is vi-output, imx219, not for this user"


def test_no_camera_is_no_failure(made_up: Make) -> None:
    assert made_up().checks()["cameras"].state == "note"
    assert [check.name for check in made_up().report("cameras").failed()] == ["cameras"]


def test_extras_are_those_of_the_metadata(made_up: Make) -> None:
    machine = made_up()
    checks = {name: check for name, check in machine.checks().items() if name.startswith("extra-")}
    assert {name: check.found for name, check in checks.items()} == {
        "extra-export": "lacks torch",
        "extra-train": "lacks tensorboardx, torch",  # an extra of an extra
        "extra-tensorrt": "lacks pycuda",  # and not what is for another system
    }
    assert checks["extra-train"].remedy == "/opt/line/bin/python -m pip install 'edge-ad[train]'"
    machine.installed |= {"torch": "2.4.0+cu124"}
    assert machine.checks()["extra-export"].state == "ok"
    machine.installed |= {"torch": "2.3.1"}
    assert machine.checks()["extra-export"].found == "lacks torch>=2.4 (here is 2.3.1)"


def test_a_base_package_that_is_missing_fails(made_up: Make) -> None:
    machine = made_up()
    del machine.installed["click"]
    machine.installed["numpy"] = "1.20.0"
    report = machine.report()
    (check,) = report.failed()
    assert check.found == "edge-ad lacks click, numpy>=1.24 (here is 1.20.0)"
    assert check.remedy == "/opt/line/bin/python -m pip install --upgrade 'click>=8.1' 'numpy>=1.24'"
    with pytest.raises(EngineError, match=r"lacks what is needed: packages: edge-ad lacks click"):
        report.raise_failure()


def test_another_build_of_opencv_counts_when_it_is_new_enough(made_up: Make) -> None:
    machine = made_up()
    needs = ["click>=8.1", "opencv-python>=4.8"]
    machine.changes["requirements"] = lambda: needs
    assert machine.checks()["packages"].found == "edge-ad lacks opencv-python"
    machine.installed["opencv-python-headless"] = "5.0.0.93"
    assert machine.checks()["packages"].found == "all 2 of the base are installed"
    machine.installed["opencv-python-headless"] = "4.5.5.64"
    assert machine.checks()["packages"].found == "edge-ad lacks opencv-python>=4.8 (here is 4.5.5.64)"


def test_without_the_package_that_reads_requirements_that_one_is_named(
    made_up: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    check = made_up().checks()["packages"]
    assert (check.state, check.found) == ("broken", "edge-ad lacks packaging, which reads what else it needs")
    assert check.remedy == "/opt/line/bin/python -m pip install packaging"


def test_the_home_folder_is_in_no_text(made_up: Make, tmp_path: Path) -> None:
    machine = made_up(changes={"home": tmp_path})
    machine.answers["openvino"] = Answer({}, f"OSError: {tmp_path}/lib/x.so and {tmp_path}; not {tmp_path}x/y")
    check = machine.checks()["openvino"]
    assert check.found == f"OSError: ~/lib/x.so and ~; not {tmp_path}x/y"
    texts = [text for check in machine.report().checks for text in (check.found, check.remedy or "", *check.details)]
    assert not [text for text in texts if f"{tmp_path}/" in text]


@given(st.text(max_size=60))
def test_tidied_text_is_one_line_that_stays_as_it_is(text: str) -> None:
    machine = this_machine(lambda *command: Ran(), lambda name: Answer({}))
    tidied = machine.tidy(text)
    assert len(tidied.splitlines()) <= 1 and machine.tidy(tidied) == tidied


def test_every_check_has_a_name_that_can_be_required(made_up: Make, orin: Any, tiny_bundle: Path) -> None:
    wanted = Wanted(str(tiny_bundle), None)
    for machine in (made_up().machine(), orin.machine()):
        for subject, section in zip(SUBJECTS, examine(machine, wanted).sections, strict=True):
            names = [check.name for check in section.checks]
            assert names and set(names) <= set(subject.names(machine, wanted)) and len(names) == len(set(names))


def test_an_unknown_name_is_refused_before_anything_is_looked_at() -> None:
    with pytest.raises(
        ConfigError, match=r"require: 'tensorflow' is unknown, wanted one of edge-ad, python, .*tensorrt"
    ):
        examine_here(Wanted(), ["openvino", "tensorflow"])


def test_what_is_required_has_to_be_ok(orin: Any) -> None:
    assert orin.report("tensorrt").failed() == ()
    del orin.answers["pycuda"]
    with pytest.raises(EngineError, match=r"tensorrt: cannot run: pycuda: not installed.*pip install"):
        orin.report("tensorrt").raise_failure()
    assert [check.name for check in orin.report("jetpack", "tensorrt", "tensorrt").failed()] == ["tensorrt"]


def test_what_was_not_looked_at_is_not_ok(made_up: Make) -> None:
    with pytest.raises(EngineError, match="jetpack: not found on this machine"):
        made_up().report("jetpack").raise_failure()


def test_a_check_that_fails_itself_is_a_finding(made_up: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(machine: Any) -> list[Check]:
        raise ZeroDivisionError("by nothing")

    subjects = [subject for subject in SUBJECTS if subject.title != "NVIDIA GPU"]
    broken = examination._plain("NVIDIA GPU", ("driver", "tensorrt"), fail)
    monkeypatch.setattr(examination, "SUBJECTS", (broken, *subjects))
    checks = made_up().checks()
    for name in ("driver", "tensorrt"):
        assert checks[name].state == "broken"
        assert checks[name].found == "the check itself failed: ZeroDivisionError: by nothing"
    assert checks["cache"].state == "ok"  # and the others go on


def test_answers_without_sense_do_not_end_the_report(made_up: Make, orin: Any) -> None:
    for machine in (made_up(), orin):
        nonsense = {name: Answer({"surprise": 1}) for name in ("cuda", "openvino", "tensorrt", "opencv", "gstreamer")}
        machine.answers |= nonsense
        assert machine.checks()["openvino"].state == "broken"


def test_a_cache_that_cannot_be_written_to_is_broken(made_up: Make, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    machine = made_up(changes={"accessible": lambda path: path != tmp_path})
    check = machine.checks(engine_cache=str(folder))["cache"]
    assert check.state == "broken" and check.remedy == "choose another with --engine-cache DIR"
    folder.write_text("a file in the way")
    assert "is no folder" in made_up().checks(engine_cache=str(folder))["cache"].found


@pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")
def test_a_cache_that_others_can_write_to_is_broken(made_up: Make, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    plan(folder, "a")
    folder.chmod(0o777)
    checks = made_up().checks(engine_cache=str(folder))
    assert (checks["cache"].state, checks["cache"].found) == (
        "broken",
        f"{folder} is not used: others can write to {folder} (mode 0777)",
    )
    assert checks["engine-files"].found == f"not looked at, see cache: others can write to {folder} (mode 0777)"


def test_a_key_that_cannot_be_used_is_shown_and_none_is_made(
    made_up: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(state))
    check = made_up().checks(engine_cache=str(tmp_path / "engines"))["cache"]
    assert check.state == "ok" and check.details[0].endswith("cache.key") and not state.exists()
    state.write_text("a file in the way")
    check = made_up().checks(engine_cache=str(tmp_path / "engines"))["cache"]
    assert check.state == "broken" and "is not used: no key can be made" in check.found


def test_an_engine_of_another_user_is_named(orin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(tmp_path / "engines", "a")
    other_user.become(monkeypatch, tmp_path / "another user")
    (line,) = orin.checks(engine_cache=str(tmp_path / "engines"))["engine-files"].details
    assert line.endswith(": was not built by this user; build it, or take it over with --adopt")


def plan(folder: Path, name: str, bundle: Bundle | None = None, **changes: Any) -> PlanFile:
    """An engine in the cache; of another model where no bundle is given."""
    sha256 = "0" * 64 if bundle is None else bundle.manifest.files["model.onnx"]
    values = {
        "flavour": "tensorrt",
        "version": "10.3.0",
        "sm": (87,),
        "gpu": "Orin",
        "precision": "fp32",
        "batch_min": 1,
        "batch_best": 4,
        "batch_max": 4,
        "dla": None,
        "flags": (),
        "onnx_sha256": sha256,
        "platform": this_platform(),
        "edge_ad": "0.1.0",
    }
    folder.mkdir(exist_ok=True)
    file = PlanFile(folder / f"{name}.plan")
    file.write(Fingerprint(**{**values, **changes}), b"a plan")
    return file


def test_engines_of_a_bundle_that_fit_and_those_that_do_not(orin: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, folder = Bundle.read(tiny_bundle), tmp_path / "engines"
    plan(folder, "a-fits", bundle, flags=("kernel-tail",))
    plan(folder, "b-other-gpu", bundle, sm=(89,), gpu="NVIDIA L4")
    plan(folder, "c-other-version", bundle, version="8.6.2")
    plan(folder, "d-rtx", bundle, flavour="rtx", version="1.7.1", gpu=None)
    plan(folder, "e-damaged", bundle).path.write_bytes(b"another plan")
    plan(folder, "f-no-sidecar", bundle).sidecar.unlink()
    plan(folder, "g-other-model")
    checks = orin.checks(bundle=str(tiny_bundle), engine_cache=str(folder))
    assert checks["bundle"].state == "ok" and "fp32 (default)" in checks["bundle"].found
    check = checks["engine-files"]
    assert (check.state, check.found) == (
        "ok",
        "1 of 6 TensorRT engines of this bundle can run here; 1 of other models",
    )
    fits, other_gpu, other_version, rtx, damaged, no_sidecar = check.details
    assert fits == "a-fits.plan, fp32, TensorRT 10.3.0, SM87, batches of 1 to 4, kernel-tail: fits"
    assert other_gpu.endswith(": does not fit, built for SM89, this is SM87")
    assert other_version.endswith(": does not fit, built by TensorRT 8.6.2, this is 10.3.0")
    assert rtx.endswith(": does not fit, TensorRT-RTX cannot be used here")
    assert damaged.endswith(": is damaged")
    assert no_sidecar == "f-no-sidecar.plan is not used: its .json is missing or damaged"
    everything = orin.checks(engine_cache=str(folder))["engine-files"]
    assert everything.found == "2 of 7 TensorRT engines can run here"
    assert "7 TensorRT engines and 0 other compiled models" in checks["cache"].found


def test_where_no_engine_fits_the_command_that_builds_one_is_said(orin: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    check = orin.checks(bundle=str(tiny_bundle), engine_cache=str(folder))["engine-files"]
    assert (check.state, check.remedy) == ("note", f"edge-ad build {tiny_bundle}")
    plan(folder, "a", Bundle.read(tiny_bundle), sm=(72,), gpu="Xavier")
    orin.answers |= {"tensorrt": Answer({}, "none", True), "rtx": Answer({"version": "1.7.1", "cuda": 13})}
    check = orin.checks(bundle=str(tiny_bundle), engine_cache=str(folder))["engine-files"]
    assert check.found.startswith("0 of 1 TensorRT engines of this bundle can run here")
    assert check.remedy == f"edge-ad build {tiny_bundle} --flavour rtx"


def test_without_a_gpu_no_engine_fits(made_up: Make, tmp_path: Path) -> None:
    plan(tmp_path / "engines", "a")
    machine = made_up(answers={"tensorrt": Answer({"version": "10.3.0", "cuda": None})})
    check = machine.checks()["engine-files"]
    assert check.details[0].endswith(": does not fit, no NVIDIA GPU can be used here") and check.remedy is None


def test_a_bundle_that_is_not_sound_fails_with_its_own_error(made_up: Make, tmp_path: Path) -> None:
    report = made_up().report(bundle=str(tmp_path / "none.edgead"))
    with pytest.raises(BundleError, match=r"none\.edgead: does not exist"):
        report.raise_failure()


def test_a_file_of_the_machine_that_cannot_be_read_is_as_if_it_were_not_there(made_up: Make) -> None:
    machine = made_up()
    folder = machine.root / "proc" / "meminfo"
    folder.mkdir(parents=True)
    assert machine.checks()["memory"].state == "note"
    assert os.path.isdir(folder)
