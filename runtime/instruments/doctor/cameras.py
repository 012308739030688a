"""Cameras, as the kernel lists them. None is opened: it may be in use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_ad.runtime.instruments.doctor.check import Check
from edge_ad.runtime.instruments.doctor.machine import Machine

NAMES = ("cameras",)


@dataclass(frozen=True)
class Node:
    """One /dev/videoN. Attributes: index: among the nodes of its camera; 0 gives frames, others describe them."""

    number: int
    path: Path
    name: str
    index: int


def check_cameras(machine: Machine) -> list[Check]:
    nodes = _nodes(machine)
    cameras = [node for node in nodes if node.index == 0]
    if not cameras:
        return [Check("cameras", "note", _none(machine), _camera_of_container(machine))]
    closed = [node for node in cameras if not machine.accessible(node.path)]
    lines = tuple(
        f"camera:{node.number} is {node.name}{', not for this user' if node in closed else ''}" for node in cameras
    )
    found = f"{len(cameras)}"
    if closed:
        found += f", {len(closed)} of them may not be opened by this user"
        return [Check("cameras", "broken", found, "sudo usermod -aG video $USER, then log in again", lines)]
    return [Check("cameras", "ok", found, details=lines)]


def _nodes(machine: Machine) -> list[Node]:
    nodes = []
    for path in machine.path("/dev").glob("video*"):
        numbered = re.fullmatch(r"video(\d+)", path.name)
        if numbered is None:
            continue
        folder = f"/sys/class/video4linux/{path.name}"
        index = machine.read(f"{folder}/index") or "0"
        name = machine.read(f"{folder}/name") or "a camera without a name"
        nodes.append(Node(int(numbered[1]), path, name, int(index) if index.isdecimal() else 0))
    return sorted(nodes, key=lambda node: node.number)


def _none(machine: Machine) -> str:
    if machine.system != "Linux":
        return "only looked for on Linux"
    return "no /dev/video*; network cameras are not looked for"


def _camera_of_container(machine: Machine) -> str | None:
    return "start the container with '--device /dev/video0' if the host has a camera" if machine.container else None
