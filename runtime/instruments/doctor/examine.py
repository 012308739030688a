"""All checks, in the order of the report. One that fails itself is a finding like any other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from edge_ad.errors import BundleError, ConfigError, EdgeAdError, EngineError, one_line
from edge_ad.runtime.instruments.doctor import cameras, computer, engines, gstreamer, jetson, storage, tensorrt
from edge_ad.runtime.instruments.doctor.check import Check, Section
from edge_ad.runtime.instruments.doctor.machine import Machine, this_machine
from edge_ad.runtime.instruments.doctor.packages import BASE, check_packages, names_of_packages
from edge_ad.runtime.instruments.doctor.probes import PROBES
from edge_ad.runtime.instruments.doctor.processes import Answer, Processes
from edge_ad.runtime.instruments.doctor.storage import BUNDLE, Wanted

NEEDED = ("edge-ad", "python", BASE, "openvino", "opencv")
"""What a station cannot do without, whatever the user requires."""
AT_ONCE = 6  # probes; all that use the driver at once, for where it hangs they all wait for their deadline


@dataclass(frozen=True)
class Subject:
    """A section of the report. Attributes: names: of its checks; check: makes them."""

    title: str
    names: Callable[[Machine, Wanted], tuple[str, ...]]
    check: Callable[[Machine, Wanted], list[Check]]


def _plain(title: str, names: tuple[str, ...], check: Callable[[Machine], list[Check]]) -> Subject:
    return Subject(title, lambda _machine, _wanted: names, lambda machine, _wanted: check(machine))


SUBJECTS = (
    _plain("Computer", computer.NAMES, computer.check_computer),
    Subject(
        "Python packages", lambda machine, _: names_of_packages(machine), lambda machine, _: check_packages(machine)
    ),
    _plain("On the processor", engines.NAMES, engines.check_engines),
    _plain("NVIDIA GPU", tensorrt.NAMES, tensorrt.check_gpu),
    _plain("Jetson", jetson.NAMES, jetson.check_jetson),
    _plain("Video", gstreamer.NAMES, gstreamer.check_gstreamer),
    _plain("Cameras", cameras.NAMES, cameras.check_cameras),
    Subject(
        "Models",
        lambda _, wanted: (*((BUNDLE,) if wanted.bundle is not None else ()), *storage.NAMES),
        storage.check_storage,
    ),
)


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        sections: with their checks.
        required: names that the user requires.
    """

    sections: tuple[Section, ...]
    required: tuple[str, ...] = ()

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(check for section in self.sections for check in section.checks)

    def failed(self) -> tuple[Check, ...]:
        """What a station needs and does not have, and what was required and is not `ok`."""
        found = {check.name: check for check in self.checks}
        failed = [found[name] for name in NEEDED if name in found and found[name].state in ("missing", "broken")]
        for name in self.required:
            check = found.get(name, Check(name, "missing", "not found on this machine"))
            if check.state != "ok" and check not in failed:
                failed.append(check)
        return tuple(failed)

    def raise_failure(self) -> None:
        """Raises: EngineError for what `failed` names; BundleError for a bundle that is not sound."""
        failed = self.failed()
        if failed:
            reasons = "; ".join(f"{check.name}: {check.found}{_and(check.remedy)}" for check in failed)
            raise EngineError(f"this machine lacks what is needed: {reasons}")
        for check in self.checks:
            if check.name == BUNDLE and check.state == "broken":
                raise BundleError(check.found)


def examine(machine: Machine, wanted: Wanted, required: Sequence[str] = ()) -> Report:
    """Every check of a machine; never an exception of a check."""
    sections = []
    for subject in SUBJECTS:
        try:
            checks = subject.check(machine, wanted)
        except Exception as exc:
            found = f"the check itself failed: {type(exc).__name__}: {one_line(exc)}"
            names = _names(subject, machine, wanted)
            checks = [Check(name, "broken", found, "report this, with the whole page") for name in names]
        sections.append(Section(subject.title, tuple(check.reworded(machine.tidy) for check in checks)))
    return Report(tuple(sections), tuple(dict.fromkeys(required)))


def examine_here(wanted: Wanted, required: Sequence[str] = (), processes: Processes | None = None) -> Report:
    """Every check of this machine.

    Args:
        wanted: see `Wanted`.
        required: names of checks that have to be `ok`.
        processes: run what could hang or crash.

    Raises: ConfigError when a required name is unknown, before anything is looked at.
    """
    processes = Processes(os.environ) if processes is None else processes
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        answers: dict[str, Future[Answer]] = {}
        machine = this_machine(processes.run, lambda name: answers[name].result())
        _check_names(machine, wanted, required)
        answers.update({name: pool.submit(processes.probe, name) for name in PROBES})
        return examine(machine, wanted, required)
    finally:
        processes.close()
        pool.shutdown(cancel_futures=True)


def _check_names(machine: Machine, wanted: Wanted, required: Sequence[str]) -> None:
    known = [name for subject in SUBJECTS for name in _names(subject, machine, wanted)]
    unknown = [name for name in required if name not in known]
    if unknown:
        listed = ", ".join(map(repr, unknown))
        raise ConfigError("doctor options", [f"require: {listed} is unknown, wanted one of {', '.join(known)}"])


def _names(subject: Subject, machine: Machine, wanted: Wanted) -> tuple[str, ...]:
    try:
        return subject.names(machine, wanted)
    except EdgeAdError:  # without edge-ad's metadata there are no extras
        return (BASE,)


def _and(remedy: str | None) -> str:
    return f" ({remedy})" if remedy else ""
