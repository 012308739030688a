"""A machine, as far as the doctor looks at it: files, programs, probes, and the Python that runs."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edge_ad.errors import EdgeAdError
from edge_ad.runtime.instruments.doctor.processes import Answer, Ran

MAX_BYTES = 1 << 20  # of a file in /proc or /sys that is read
DISTRIBUTION = "edge-ad"


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs edge-ad.

    Attributes:
        version: such as `3.10.12`.
        executable: its path.
        is_venv: True inside of a virtual environment.
        sees_system: True when packages of the system's Python can be imported.
    """

    version: str
    executable: str
    is_venv: bool
    sees_system: bool

    @property
    def minor(self) -> str:
        """Such as `3.10`."""
        return ".".join(self.version.split(".")[:2])


@dataclass(frozen=True)
class Machine:
    """Where everything comes from that a check looks at, so that a test can make a machine up.

    Attributes:
        root: folder of /proc, /sys, /etc and /dev.
        environment: variables.
        system, processor: as `platform` names them, such as `Linux` and `aarch64`.
        python: see `Interpreter`.
        home: the user's home folder, that no text may name.
        is_root: True for a user who needs no sudo.
        run: runs a program.
        probe: asks a function of `probes`.
        version_of: version of an installed distribution, or None.
        requirements: lines of edge-ad's own metadata, with their markers.
        accessible: whether this user may read and write a file.
    """

    root: Path
    environment: Mapping[str, str]
    system: str
    processor: str
    python: Interpreter
    home: Path
    is_root: bool
    run: Callable[..., Ran]
    probe: Callable[[str], Answer]
    version_of: Callable[[str], str | None]
    requirements: Callable[[], list[str]]
    accessible: Callable[[Path], bool]

    def path(self, name: str) -> Path:
        """A file of the machine, by its absolute name."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str | None:
        """Text of a file; None where there is none, or it may not be read."""
        try:
            with self.path(name).open("rb") as file:
                return file.read(MAX_BYTES).decode("utf-8", "replace").replace("\0", "").strip()
        except OSError:
            return None

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def field(self, name: str, key: str) -> str | None:
        """Value behind the first `KEY: value` or `KEY=value` of a file."""
        found = re.search(rf"^{re.escape(key)}\s*[:=]\s*(.*)$", self.read(name) or "", re.MULTILINE)
        return found[1].strip().strip('"') if found else None

    @property
    def board(self) -> str | None:
        """Name of a board that describes itself by a device tree, such as `NVIDIA Jetson Orin Nano Developer Kit`."""
        return self.read("/proc/device-tree/model")

    @property
    def is_jetson(self) -> bool:
        tree = f"{self.board} {self.read('/proc/device-tree/compatible')}"
        return self.exists("/etc/nv_tegra_release") or "Jetson" in tree or "nvidia,tegra" in tree

    @property
    def is_wsl(self) -> bool:
        return "microsoft" in (self.read("/proc/version") or "").lower()

    @property
    def container(self) -> str | None:
        """Kind of the container that this runs in; None outside of one."""
        named = self.environment.get("container") or self.read("/run/systemd/container")
        if named:
            return named
        marks = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
        return next((kind for mark, kind in marks.items() if self.exists(mark)), None)

    @property
    def family(self) -> str:
        """Distribution that this one is or derives from: `ubuntu`, `debian`, or its own name."""
        own = (self.field("/etc/os-release", "ID") or "").lower()
        like = (self.field("/etc/os-release", "ID_LIKE") or "").lower().split()
        return next((family for family in ("ubuntu", "debian") if family in (own, *like)), own)

    @property
    def has_apt(self) -> bool:
        return self.family in ("ubuntu", "debian") or self.is_jetson

    def package(self, name: str) -> str | None:
        """Version of an installed Debian package; None where it is not, or there is no dpkg."""
        if not self.has_apt:
            return None
        ran = self.run("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", name)
        status, _, version = ran.out.strip().partition(" ")
        return version if ran.failure is None and status == "installed" and version else None

    def sudo(self, command: str) -> str:
        return command if self.is_root else f"sudo {command}"

    def apt(self, *packages: str) -> str:
        """How system packages are installed here; they are named as in Debian."""
        if self.has_apt:
            return self.sudo(f"apt install {' '.join(packages)}")
        return f"install what this system has in place of Debian's packages {' '.join(packages)}"

    def pip(self, *wanted: str) -> str:
        """How a package is installed into this very Python."""
        return f"{shlex.quote(self.python.executable)} -m pip install {' '.join(map(_quoted, wanted))}"

    def system_venv(self) -> str:
        """How a virtual environment is made that sees what the system's packages bring."""
        return "/usr/bin/python3 -m venv --system-site-packages .venv && .venv/bin/python -m pip install edge-ad"

    def tidy(self, text: str) -> str:
        """The text on one line, with `~` for the user's home folder."""
        text = " ".join(text.split())
        homes = {str(self.home), os.path.realpath(self.home)} - {"/", ".", ""}
        for home in sorted(homes, key=len, reverse=True):
            text = re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)
        return text


def this_machine(run: Callable[..., Ran], probe: Callable[[str], Answer]) -> Machine:
    """The machine that this runs on."""
    return Machine(
        root=Path("/"),
        environment=os.environ,
        system=platform.system(),
        processor=platform.machine(),
        python=_interpreter(),
        home=_home(),
        is_root=hasattr(os, "geteuid") and os.geteuid() == 0,
        run=run,
        probe=probe,
        version_of=installed_version,
        requirements=_requirements,
        accessible=lambda path: os.access(path, os.R_OK | os.W_OK),
    )


def _interpreter() -> Interpreter:
    is_venv = sys.prefix != sys.base_prefix
    configuration = Path(sys.prefix, "pyvenv.cfg")
    try:
        text = configuration.read_text(encoding="utf-8").lower().replace(" ", "") if is_venv else ""
    except OSError:
        text = ""
    return Interpreter(
        platform.python_version(),
        sys.executable,
        is_venv=is_venv,
        sees_system=not is_venv or "include-system-site-packages=true" in text,
    )


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user without an entry, as in some containers
        return Path("/")


def installed_version(distribution: str) -> str | None:
    """Version of a distribution in this environment; None where it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> list[str]:
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError as exc:
        raise EdgeAdError("edge-ad itself is not installed, only its files are here") from exc


def _quoted(requirement: str) -> str:
    return f"'{requirement}'" if re.search(r"[^\w.-]", requirement) else requirement
