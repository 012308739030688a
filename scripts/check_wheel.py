"""Build the wheel, compare it with the source tree and try it where nothing but its base dependencies is.

One line per step, `PASS` or `FAIL` with the reason; exit code 1 at the first failure. Needs `build` and a package
index (or what pip is configured to use instead).
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_DIR = {"edge_ad": "edge_ad", "export": "edge_ad/export", "calibration": "edge_ad/calibration"}
PACKAGE_DIR |= {"runtime": "edge_ad/runtime"}
BUILD_INPUT = (*PACKAGE_DIR, "setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE")
NOT_COPIED = ("__pycache__", "*.pyc", "*.so", "*.pyd", ".*")
COMPILED = {"edge_ad/image/resize/resize.c": "edge_ad/image/resize/_resize."}
HEAVY = ("cv2", "openvino", "torch", "onnx", "onnxruntime", "PIL", "pydantic", "yaml")


class CheckError(Exception):
    """A step failed; the message is the line to print."""


def run(command: list[str | Path], folder: Path) -> str:
    """Run a command in `folder`, isolated from this checkout; its standard output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise CheckError(f"exit code {done.returncode}: {last}")
    return done.stdout


def one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise CheckError(f"wanted one {pattern} in {folder}, got {len(found)}")
    return found[0]


def build_wheel(work: Path) -> str:
    # From a copy: a build/lib left in the checkout would put deleted modules back into the wheel.
    source = work / "source"
    source.mkdir()
    for name in BUILD_INPUT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(*NOT_COPIED))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, source / name)
        else:
            raise CheckError(f"{name} is missing in the source tree")
    run([sys.executable, "-m", "build", "--wheel", "--outdir", work / "dist", source], work)
    return one(work / "dist", "*.whl").name


def compare_content(work: Path) -> str:
    with zipfile.ZipFile(one(work / "dist", "*.whl")) as wheel:
        shipped = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    wanted = {
        f"{target}/{path.relative_to(work / 'source' / folder).as_posix()}"
        for folder, target in PACKAGE_DIR.items()
        for path in (work / "source" / folder).rglob("*")
        if path.is_file()
    }
    compiled = {name for name in shipped for start in COMPILED.values() if name.startswith(start)}
    if len(compiled) != len(COMPILED) and (shutil.which("gcc") or shutil.which("cc")):
        raise CheckError(f"not compiled, and a compiler is here: {', '.join(COMPILED)} (see the output of the build)")
    wanted -= COMPILED.keys()
    shipped -= compiled
    if missing := sorted(wanted - shipped):
        raise CheckError(f"{len(missing)} files are not in the wheel: {', '.join(missing[:5])} (see setup.cfg)")
    if foreign := sorted(shipped - wanted):
        raise CheckError(f"{len(foreign)} foreign files are in the wheel: {', '.join(foreign[:5])}")
    data = sum(not name.endswith(".py") for name in shipped)
    return f"{len(shipped)} files, {data} of them data; {len(compiled)} of {len(COMPILED)} sources compiled"


def install(work: Path) -> str:
    venv.create(work / "venv", with_pip=True)
    run([*python(work), "-m", "pip", "install", "--quiet", one(work / "dist", "*.whl")], work)
    return f"{len(run([*python(work), '-m', 'pip', 'list', '--format=freeze'], work).split())} distributions"


def python(work: Path) -> list[str | Path]:
    return [work / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")]


def edge_ad(work: Path) -> Path:
    return work / "venv" / ("Scripts/edge-ad.exe" if os.name == "nt" else "bin/edge-ad")


def help_text(work: Path) -> str:
    if "demo" not in run([edge_ad(work), "--help"], elsewhere(work)).split():
        raise CheckError("the help does not name the command demo")
    return "names its commands"


def version(work: Path) -> str:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted, got = config["metadata"]["version"], run([edge_ad(work), "--version"], elsewhere(work)).strip()
    if wanted not in got.replace(",", " ").split():
        raise CheckError(f"setup.cfg says {wanted}, the command says {got!r}")
    return got


def demo(work: Path) -> str:
    output = work / "demo"
    run([edge_ad(work), "demo", "--frames", "20", "--output", output], elsewhere(work))
    written = [path for path in output.rglob("*") if path.is_file()] if output.is_dir() else [output]
    if not any(path.exists() and path.stat().st_size for path in written):
        raise CheckError(f"the demo wrote nothing to {output.name}/")
    return f"20 frames, {len(written)} files written"


def torch_absent(work: Path) -> str:
    code = "import importlib.util as u; print(u.find_spec('torch') or 'absent')"
    if (found := run([*python(work), "-c", code], elsewhere(work)).strip()) != "absent":
        raise CheckError(f"torch came along: {found}")
    return "absent"


def light_import(work: Path) -> str:
    code = f"import sys, edge_ad; print(*sorted(set({HEAVY!r}) & set(sys.modules)), edge_ad.__file__)"
    *loaded, where = run([*python(work), "-c", code], elsewhere(work)).split()
    if loaded or not Path(where).is_relative_to(work):
        raise CheckError(f"import edge_ad loads {', '.join(loaded) or 'nothing heavy'} from {where}")
    return "loads nothing heavy"


def elsewhere(work: Path) -> Path:
    """An empty working folder, so that nothing is found only because it lies next to the caller."""
    (work / "elsewhere").mkdir(exist_ok=True)
    return work / "elsewhere"


STEPS: dict[str, Callable[[Path], str]] = {
    "build the wheel": build_wheel,
    "content is the source tree's": compare_content,
    "install with base dependencies": install,
    "import edge_ad": light_import,
    "torch": torch_absent,
    "edge-ad --help": help_text,
    "edge-ad --version": version,
    "edge-ad demo": demo,
}


def main() -> int:
    # Resolved, for on some systems the folder for temporary files is a link.
    with tempfile.TemporaryDirectory(prefix="edge-ad-wheel-") as name:
        for title, step in STEPS.items():
            try:
                print(f"PASS  {title}: {step(Path(name).resolve())}", flush=True)
            except CheckError as exc:
                print(f"FAIL  {title}: {exc}", flush=True)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
