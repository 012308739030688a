"""Run `mypy --strict` on the whole of edge_ad.

A static checker cannot follow `package_dir`, so the packages are laid out once more as links, the way they
import: build/typecheck/edge_ad/{…, export, calibration, runtime}. Extra arguments go to mypy.
"""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TREE = ROOT / "build" / "typecheck"


def package_folders() -> dict[str, Path]:
    """The `package_dir` of setup.cfg: import name -> folder."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["package_dir"].strip().splitlines()
    pairs = (line.split("=", 1) for line in lines)
    return {name.strip(): ROOT / folder.strip() for name, folder in pairs}


def link_tree() -> None:
    """Build TREE anew, with one link for each entry of edge_ad/ and for each of the other folders."""
    shutil.rmtree(TREE, ignore_errors=True)
    package = TREE / "edge_ad"
    package.mkdir(parents=True)
    for name, folder in package_folders().items():
        if name == "edge_ad":
            for entry in sorted(folder.iterdir()):
                if entry.name != "__pycache__":
                    (package / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
        else:
            (TREE / name.replace(".", "/")).symlink_to(folder, target_is_directory=True)


def main() -> int:
    link_tree()
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), *sys.argv[1:], "-p", "edge_ad"]
    # mypy looks for packages in the working folder before anywhere else, so it has to be the link tree.
    return subprocess.run(command, cwd=TREE, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
