"""Machines that are made up: files, what programs print, and what probes answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from edge_ad.runtime.instruments.doctor.check import Check
from edge_ad.runtime.instruments.doctor.examine import Report, examine
from edge_ad.runtime.instruments.doctor.machine import Interpreter, Machine
from edge_ad.runtime.instruments.doctor.processes import Answer, Ran
from edge_ad.runtime.instruments.doctor.storage import Wanted

REQUIREMENTS = [
    "click>=8.1",
    "numpy>=1.24",
    'torch>=2.4; extra == "export"',
    'edge-ad[export]; extra == "train"',
    'tensorboardx>=2.6; extra == "train"',
    'pycuda>=2024.1; extra == "tensorrt"',
    'windows-only>=1; platform_system == "Nowhere" and extra == "tensorrt"',
]
INSTALLED = {"edge-ad": "0.1.0", "click": "8.1.7", "numpy": "2.1.0"}
ABSENT = Answer({}, "no such module", True)
OPENVINO = Answer({"version": "2026.4.1", "devices": ["CPU"], "capabilities": ["FP32", "BF16", "INT8"]})
OPENCV = Answer({"version": "4.11.0", "backends": {"FFMPEG": True, "GStreamer": False, "v4l/v4l2": True}})
NO_COMPILER = Answer({"compilers": []})
NO_DRIVER = Answer({}, "libcuda.so.1: cannot open shared object file: No such file or directory", True)
X86_INFO = "processor\t: 0\nmodel name\t: Some Processor\nflags\t\t: avx2 avx512f avx512_vnni\n"
ARM_INFO = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n"


def gpus(*names: tuple[str, int], cuda: tuple[int, int]) -> Answer:
    """What the driver's probe says where all is well."""
    listed = [{"index": i, "name": name, "sm": sm, "memory_bytes": 8 << 30} for i, (name, sm) in enumerate(names)]
    return Answer({"cuda": list(cuda), "gpus": listed})


@dataclass
class MadeUp:
    """A machine to be examined.

    Attributes:
        files: text by absolute name.
        answers: of probes, by name; others find nothing.
        programs: what comes of programs, by their first words; others are not installed.
        packages: versions of Debian packages.
        changes: of fields of `Machine`.
    """

    root: Path
    files: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    programs: dict[str, Ran] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    installed: dict[str, str] = field(default_factory=lambda: dict(INSTALLED))
    changes: dict[str, Any] = field(default_factory=dict)

    def machine(self) -> Machine:
        for name, text in self.files.items():
            path = self.root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        usual = {
            "compilers": NO_COMPILER,
            "openvino": OPENVINO,
            "opencv": OPENCV,
            "resize": Answer({}),
            "cuda": NO_DRIVER,
        }
        answers = {**usual, **self.answers}
        made = Machine(
            root=self.root,
            environment={},
            system="Linux",
            processor="x86_64",
            python=Interpreter("3.12.3", "/opt/line/bin/python", is_venv=True, sees_system=False),
            home=Path("/home/operator"),
            is_root=False,
            run=self._run,
            probe=lambda name: answers.get(name, ABSENT),
            version_of=self.installed.get,
            requirements=lambda: REQUIREMENTS,
            accessible=lambda path: True,
        )
        return replace(made, **self.changes)

    def report(self, *required: str, bundle: str | None = None, engine_cache: str | None = None) -> Report:
        return examine(self.machine(), Wanted(bundle, engine_cache or str(self.root / "engines")), required)

    def checks(self, **wanted: Any) -> Mapping[str, Check]:
        report = self.report(**wanted)
        names = [check.name for check in report.checks]
        assert len(names) == len(set(names))
        return {check.name: check for check in report.checks}

    def _run(self, *command: str) -> Ran:
        if command[0] == "dpkg-query":
            version = self.packages.get(command[-1])
            return Ran(f"installed {version}") if version else Ran(err="no such package", failure="ended with 1")
        line = " ".join(command)
        found = (ran for start, ran in self.programs.items() if line.startswith(start))
        return next(found, Ran(failure="not installed", absent=True))


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., MadeUp]:
    """A bare computer with Debian and without a GPU, unless it is changed."""

    def make(**parts: Any) -> MadeUp:
        debian = {"/etc/os-release": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12"\n', "/proc/cpuinfo": X86_INFO}
        return MadeUp(tmp_path, **{**parts, "files": {**debian, **parts.get("files", {})}})

    return make


@pytest.fixture
def orin(made_up: Callable[..., MadeUp]) -> MadeUp:
    """A Jetson Orin Nano with JetPack 6.1, on which everything was installed."""
    return made_up(
        files={
            "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "/proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
            "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64\n",
            "/etc/os-release": 'ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
            "/proc/cpuinfo": ARM_INFO,
            "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release",
            "/usr/local/cuda/include/cuda.h": "",
            "/proc/meminfo": "MemTotal:        7801848 kB\nMemFree: 1 kB\nMemAvailable:    5242880 kB\n",
        },
        answers={
            "cuda": gpus(("Orin", 87), cuda=(12, 6)),
            "tensorrt": Answer({"version": "10.3.0", "cuda": None}),
            "compilers": Answer({"compilers": [{"text": "NVRTC 12.6", "cuda": [12, 6]}]}),
            "pycuda": Answer({"version": "2024.1.2", "cuda": [12, 6]}),
            "gstreamer": Answer(
                {
                    "version": "1.20.3",
                    "elements": ["v4l2src", "rtspsrc", "appsink", "nvarguscamerasrc", "nvvidconv", "nvv4l2decoder"],
                }
            ),
        },
        programs={"nvpmodel -q": Ran("NV Power Mode: MAXN\n0\n")},
        packages={"nvidia-l4t-core": "36.4.0-20240912212859", "python3-libnvinfer": "10.3.0.30-1+cuda12.5"},
        installed={**INSTALLED, "pycuda": "2024.1.2"},
        changes={
            "processor": "aarch64",
            "python": Interpreter("3.10.12", "/home/operator/line/bin/python", is_venv=True, sees_system=True),
        },
    )


@pytest.fixture
def rtx_pc(made_up: Callable[..., MadeUp]) -> MadeUp:
    """A PC with Ubuntu and an RTX card, with its driver and nothing else of NVIDIA's."""
    return made_up(
        files={
            "/etc/os-release": 'ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
            "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\n",
            "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
            "/sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
        },
        answers={"cuda": gpus(("NVIDIA GeForce RTX 4060", 89), cuda=(13, 0))},
    )
