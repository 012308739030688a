"""Python packages: those that edge-ad cannot do without, and its extras, as its own metadata lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edge_ad.runtime.instruments.doctor.check import Check
from edge_ad.runtime.instruments.doctor.machine import DISTRIBUTION, Machine

if TYPE_CHECKING:
    from packaging.requirements import Requirement

BASE = "packages"
EXTRA = "extra-"
IN_PLACE_OF = {
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
}
"""Distributions that bring the same module, by the one that the metadata names."""


def names_of_packages(machine: Machine) -> tuple[str, ...]:
    """Names of the checks: one for the base, one for each extra."""
    return (BASE, *(f"{EXTRA}{name}" for name in _extras(machine)))


def check_packages(machine: Machine) -> list[Check]:
    try:
        requirements = _parsed(machine)
    except ImportError:
        found = "edge-ad lacks packaging, which reads what else it needs"
        return [Check(BASE, "broken", found, machine.pip("packaging"))]
    lacking = list(_lacking(machine, requirements, ""))
    if lacking:
        wanted = [requirement for requirement, _ in lacking]
        found = ", ".join(said for _, said in lacking)
        checks = [Check(BASE, "broken", f"edge-ad lacks {found}", machine.pip("--upgrade", *wanted))]
    else:
        count = sum(1 for requirement in requirements if _applies(requirement, ""))
        checks = [Check(BASE, "ok", f"all {count} of the base are installed")]
    return checks + [_extra(machine, requirements, name) for name in _extras(machine)]


def _extra(machine: Machine, requirements: list[Requirement], name: str) -> Check:
    lacking = list(_lacking(machine, requirements, name))
    if not lacking:
        return Check(f"{EXTRA}{name}", "ok", "installed")
    found = f"lacks {', '.join(said for _, said in lacking)}"
    return Check(f"{EXTRA}{name}", "missing", found, machine.pip(f"{DISTRIBUTION}[{name}]"))


def _extras(machine: Machine) -> list[str]:
    """In the order of the metadata; read from the text, so that they have names where nothing else can be read."""
    found = (re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", line) for line in machine.requirements())
    return list(dict.fromkeys(match[1] for match in found if match))


def _parsed(machine: Machine) -> list[Requirement]:
    from packaging.requirements import Requirement

    return [Requirement(line) for line in machine.requirements()]


def _applies(requirement: Requirement, extra: str) -> bool:
    """Whether it is one of an extra on this machine, and not one of the base already."""
    marker = requirement.marker
    if marker is None:
        return not extra
    return marker.evaluate({"extra": extra}) and not (extra and marker.evaluate({"extra": ""}))


def _lacking(machine: Machine, requirements: Iterable[Requirement], extra: str) -> Iterable[tuple[str, str]]:
    """What is not installed, or too old: as it is given to pip, and in words; each once, with extras of extras."""
    requirements = list(requirements)
    waiting, seen, said = [extra], {extra}, set()
    while waiting:
        current = waiting.pop(0)
        for requirement in requirements:
            if not _applies(requirement, current):
                continue
            if requirement.name == DISTRIBUTION:
                more = sorted(requirement.extras - seen)
                seen.update(more)
                waiting += more
                continue
            names = (requirement.name, *IN_PLACE_OF.get(requirement.name, ()))
            version = next(filter(None, map(machine.version_of, names)), None)
            fits = version is not None and requirement.specifier.contains(version, prereleases=True)
            if fits or requirement.name in said:
                continue
            said.add(requirement.name)
            wanted = f"{requirement.name}{requirement.specifier}"
            yield wanted, requirement.name if version is None else f"{wanted} (here is {version})"
