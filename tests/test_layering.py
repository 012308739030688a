"""Who may import whom, read from the syntax tree: no module of edge_ad is imported here."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "edge_ad": "edge_ad",
    "export": "edge_ad.export",
    "calibration": "edge_ad.calibration",
    "runtime": "edge_ad.runtime",
}
UPPER = ("export", "calibration", "runtime", "cli")
DEFINED = frozenset({"__version__", *UPPER, *(entry.stem for entry in (ROOT / "edge_ad").iterdir())})
TORCH = frozenset({"torch", "torchvision", "timm"})
FORBIDDEN_IN_RUNTIME = TORCH | {"onnx"}


def module_name(path: Path) -> str:
    """`runtime/engines/__init__.py` -> `edge_ad.runtime.engines.__init__`."""
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([ROOMS[folder], *rest])


def layer_of(module: str) -> str:
    """The room of an import name; `__main__` is a door of the command line."""
    parts = module.split(".")
    if parts[0] != "edge_ad":
        return "outside"
    if len(parts) > 1 and parts[1] == "__main__":
        return "cli"
    return parts[1] if len(parts) > 1 and parts[1] in UPPER else "core"


def imported_names(node: ast.AST) -> list[str]:
    """Dotted names that one node imports, absolute ones; `from a import b` gives `a.b`."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), names=names, level=0):
            return [f"{module}.{alias.name}" for alias in names]
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(target)), *_]):
            return [target] if name in ("import_module", "__import__") else []
    return []


def is_type_checking(node: ast.AST) -> bool:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            return True
    return False


def nodes_of(tree: ast.AST, *, facade: bool) -> Iterator[ast.AST]:
    """All nodes; of the facade, only those that run on `import edge_ad`, for the rest of it is lazy on purpose."""
    for child in ast.iter_child_nodes(tree):
        if facade and (is_type_checking(child) or isinstance(child, ast.FunctionDef)):
            continue
        yield child
        yield from nodes_of(child, facade=facade)


def fault_of(module: str, target: str) -> str | None:
    """Why `module` may not import `target`, or None."""
    own, other, top = layer_of(module), layer_of(target), target.split(".")[0]
    if top in ROOMS and top != "edge_ad":
        return f"imports {target}: the folder is installed as {ROOMS[top]}"
    if other in UPPER and other != own and own != "cli":
        return f"{own} imports {target}"
    if own != "cli" and target.startswith("edge_ad.") and target.split(".")[1] not in DEFINED:
        return f"imports {target} through the lazy facade: import it from the module that defines it"
    in_models = f"{module}.".startswith("edge_ad.models.")
    if own == "core" and not in_models and top in TORCH:
        return f"core outside edge_ad.models imports {target}"
    if own == "runtime" and (top in FORBIDDEN_IN_RUNTIME or f"{target}.".startswith("edge_ad.models.")):
        return f"runtime imports {target}"
    return None


def faults(source: str, module: str) -> list[str]:
    """Every import of `source`, lazy ones included, that breaks a rule of the layers; one line each."""
    found: list[str] = []
    for node in nodes_of(ast.parse(source), facade=module == "edge_ad.__init__"):
        reasons = [reason for target in imported_names(node) if (reason := fault_of(module, target))]
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            reasons.append("relative import")
        found += [f"{module}:{getattr(node, 'lineno', 0)} {reason}" for reason in reasons]
    return found


def package_sources() -> list[Path]:
    return sorted(path for folder in ROOMS for path in (ROOT / folder).rglob("*.py"))


def test_every_import_respects_the_layers() -> None:
    sources = package_sources()
    assert len(sources) > len(ROOMS)
    assert [line for path in sources for line in faults(path.read_text(encoding="utf-8"), module_name(path))] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edge_ad.bundle.bundle", "from edge_ad.runtime.engines import openvino"),
        ("edge_ad.bundle.bundle", "def f():\n    import edge_ad.export"),
        ("edge_ad.bundle.bundle", "from edge_ad import calibration"),
        ("edge_ad.bundle.bundle", "from importlib import import_module\nimport_module('edge_ad.cli.main')"),
        ("edge_ad.bundle.bundle", "from edge_ad import some_lazy_name"),
        ("edge_ad.bundle.bundle", "import torch"),
        ("edge_ad.bundle.bundle", "from torchvision.models import resnet18"),
        ("edge_ad.models.glass.network", "import edge_ad.runtime"),
        ("edge_ad.__init__", "from edge_ad.runtime import scheduler"),
        ("edge_ad.__init__", "try:\n    import edge_ad.export\nexcept ImportError:\n    pass"),
        ("edge_ad.export.onnx", "from edge_ad.calibration import ranges"),
        ("edge_ad.export.onnx", "from edge_ad.cli import main"),
        ("edge_ad.calibration.quantize.gate", "import edge_ad.runtime.engines"),
        ("edge_ad.runtime.scheduler", "if TYPE_CHECKING:\n    from edge_ad.export import onnx"),
        ("edge_ad.runtime.scheduler", "def f():\n    import torch.cuda"),
        ("edge_ad.runtime.scheduler", "def f():\n    from onnx import load"),
        ("edge_ad.runtime.scheduler", "from edge_ad.models import glass"),
        ("edge_ad.runtime.scheduler", "from . import engines"),
        ("edge_ad.runtime.scheduler", "from ..errors import EdgeAdError"),
        ("edge_ad.runtime.scheduler", "import runtime.engines"),
        ("edge_ad.cli.main", "from export import onnx"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edge_ad.models.glass.network", "import torch"),
        ("edge_ad.export.onnx", "import torch, onnx\nfrom edge_ad.models import glass"),
        ("edge_ad.runtime.engines.onnxruntime", "import onnxruntime\nfrom edge_ad.errors import EngineError"),
        ("edge_ad.runtime.engines.openvino", "from edge_ad.runtime import slot"),
        ("edge_ad.cli.run", "from edge_ad.runtime import slot\nfrom edge_ad.export import onnx"),
        ("edge_ad.__main__", "from edge_ad.cli.main import main"),
        ("edge_ad.__init__", "if TYPE_CHECKING:\n    from edge_ad.runtime import slot"),
        ("edge_ad.__init__", "def __getattr__(name):\n    return import_module('edge_ad.export')"),
    ],
)
def test_a_permitted_import_is_not_reported(module: str, source: str) -> None:
    assert faults(source, module) == []


def test_setup_cfg_lists_every_package_folder() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    mapping = dict(line.replace(" ", "").split("=") for line in config["options"]["package_dir"].split("\n") if line)
    assert {folder: name for name, folder in mapping.items()} == ROOMS
    listed = config["options"]["packages"].split()
    folders = {path.parent for path in package_sources()}
    assert sorted(listed) == sorted(module_name(folder) for folder in folders)
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
