"""Who may import whom, read from the syntax tree: no module of edge_ad is imported here."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Collection, Iterator, Mapping
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
FLOORS = {
    "edge_ad": (
        ("disk", "signals"),
        ("bundle",),
        ("image",),
        ("record",),
        ("datasets", "metrics", "demo"),
        ("models",),
    ),
    "edge_ad.runtime": (
        ("host",),
        ("engines",),
        ("judge", "sources"),
        ("sinks",),
        ("line",),
        ("http", "instruments"),
        ("station",),
    ),
    "edge_ad.calibration": (("evaluation",), ("agreement",), ("choose", "learn", "quantize")),
}
"""Rooms of each folder from the ground up: a room imports those below it, never one above it or beside it."""
MOST_LOOSE = 8
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
    if reason := floor_fault(module, target):
        return reason
    if own == "runtime" and (top in FORBIDDEN_IN_RUNTIME or f"{target}.".startswith("edge_ad.models.")):
        return f"runtime imports {target}"
    return None


def room_of(module: str) -> tuple[str, str] | None:
    """Folder and room of an import name; None where it is in no room that has a floor."""
    for folder in sorted(FLOORS, key=len, reverse=True):
        if module.startswith(f"{folder}."):
            room = module.removeprefix(f"{folder}.").split(".")[0]
            return (folder, room) if any(room in floor for floor in FLOORS[folder]) else None
    return None


def floor_fault(module: str, target: str) -> str | None:
    """Why a room may not import another one of its folder, or None."""
    own, other = room_of(module), room_of(target)
    if own is None or other is None or own == other or own[0] != other[0]:
        return None
    height = {room: number for number, floor in enumerate(FLOORS[own[0]]) for room in floor}
    if height[other[1]] < height[own[1]]:
        return None
    return f"{own[1]} imports {target}, which is not below it"


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
        ("edge_ad.bundle.specs", "from edge_ad.image import frame"),
        ("edge_ad.image.frame", "from edge_ad.record.verdict import Verdict"),
        ("edge_ad.metrics.ranking", "from edge_ad.models import family"),
        ("edge_ad.runtime.host.messages", "from edge_ad.runtime.line import line"),
        ("edge_ad.runtime.engines.fake", "from edge_ad.runtime.judge.detector import Detector"),
        ("edge_ad.runtime.judge.detector", "from edge_ad.runtime.sources import open_source"),
        ("edge_ad.runtime.sources.video", "def f():\n    from edge_ad.runtime.sinks import Sink"),
        ("edge_ad.runtime.sinks.spool", "from edge_ad.runtime.line.scheduling import counters"),
        ("edge_ad.runtime.line.run_view", "if TYPE_CHECKING:\n    from edge_ad.runtime.station.reload import Reload"),
        ("edge_ad.runtime.line.line", "from edge_ad.runtime.http import server"),
        ("edge_ad.runtime.http.server", "from edge_ad.runtime.instruments.doctor import check"),
        ("edge_ad.calibration.evaluation.report", "from edge_ad.calibration.quantize import gate"),
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
        ("edge_ad.runtime.engines.openvino", "from edge_ad.runtime.host import messages"),
        ("edge_ad.cli.run", "from edge_ad.runtime import slot\nfrom edge_ad.export import onnx"),
        ("edge_ad.__main__", "from edge_ad.cli.main import main"),
        ("edge_ad.runtime.station.run", "from edge_ad.runtime.http.listen import listening"),
        (
            "edge_ad.runtime.sinks.webhook",
            "from edge_ad.runtime.sources import address\nfrom edge_ad.bundle import specs",
        ),
        ("edge_ad.__init__", "if TYPE_CHECKING:\n    from edge_ad.runtime import slot"),
        ("edge_ad.__init__", "def __getattr__(name):\n    return import_module('edge_ad.export')"),
    ],
)
def test_a_permitted_import_is_not_reported(module: str, source: str) -> None:
    assert faults(source, module) == []


def imports_of(source: str, module: str, modules: Collection[str]) -> set[str]:
    """The modules that `source` imports by name, anywhere in it; names in a registry do not count."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for target in imported_names(node):
                name = target
                while name and name not in modules:
                    name = name.rpartition(".")[0]
                found |= {name} - {"", module}
    return found


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """One circle of a graph, from a node back to itself; empty where there is none."""
    done: set[str] = set()
    for start in edges:
        way: list[str] = []
        stack = [(start, iter(sorted(edges[start])))] if start not in done else []
        while stack:
            node, others = stack[-1]
            if len(way) < len(stack):
                way.append(node)
            following = next((other for other in others if other not in done), None)
            if following is None:
                done.add(node)
                stack.pop()
                way.pop()
            elif following in way:
                return [*way[way.index(following) :], following]
            else:
                stack.append((following, iter(sorted(edges.get(following, set())))))
    return []


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Who imports whom. Args: sources: by module; the facade, whose names are lazy, is left out."""
    return {module: imports_of(text, module, sources) for module, text in sources.items()}


def all_sources() -> dict[str, str]:
    named = {module_name(path).removesuffix(".__init__"): path.read_text("utf-8") for path in package_sources()}
    return {module: text for module, text in named.items() if module != "edge_ad"}


def test_no_files_import_each_other_in_a_circle() -> None:
    sources = all_sources()
    assert "edge_ad.runtime.line.line" in sources
    assert circle(import_graph(sources)) == []


def test_a_planted_circle_is_found() -> None:
    sources = all_sources()
    sources["edge_ad.runtime.sinks.counts"] += (
        "\nif TYPE_CHECKING:\n    from edge_ad.runtime.sinks.spool import Spool\n"
    )
    found = circle(import_graph(sources))
    assert found[0] == found[-1] and {"edge_ad.runtime.sinks.counts", "edge_ad.runtime.sinks.spool"} <= {*found}


def test_a_registry_of_names_is_no_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set(), "d": {"a", "c"}}) == []
    assert imports_of('KINDS = {"b": "edge_ad.b:B"}', "edge_ad.a", {"edge_ad.a", "edge_ad.b"}) == set()


def loose(folder: Path) -> list[str]:
    """Python files at the root of one of the four folders."""
    return sorted(path.name for path in folder.glob("*.py"))


def named_after_a_room(folder: Path) -> list[str]:
    """Files whose names begin with that of a room beside them, in all folders below `folder`."""
    found: list[str] = []
    for parent in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        rooms = [path.name for path in parent.iterdir() if (path / "__init__.py").exists()]
        found += [
            path.relative_to(folder).as_posix()
            for path in parent.glob("*.py")
            if any(path.stem == room or path.stem.startswith(f"{room}_") for room in rooms)
        ]
    return sorted(found)


@pytest.mark.parametrize("folder", [name for name in ROOMS if name != "export"])
def test_few_files_are_loose(folder: str) -> None:
    assert len(loose(ROOT / folder)) <= MOST_LOOSE, f"{folder}/ has to have rooms: {loose(ROOT / folder)}"


@pytest.mark.parametrize("folder", ROOMS)
def test_no_file_is_named_after_the_room_beside_it(folder: str) -> None:
    assert named_after_a_room(ROOT / folder) == []


@pytest.mark.parametrize("folder", FLOORS)
def test_every_room_of_the_order_exists(folder: str) -> None:
    root = ROOT / next(name for name, package in ROOMS.items() if package == folder)
    assert [room for floor in FLOORS[folder] for room in floor if not (root / room / "__init__.py").exists()] == []


def test_every_room_says_what_lives_there() -> None:
    rooms = [path for path in package_sources() if path.name == "__init__.py"]
    assert [path for path in rooms if not ast.get_docstring(ast.parse(path.read_text("utf-8")))] == []


def test_a_planted_ninth_file_and_a_prefix_are_found(tmp_path: Path) -> None:
    (tmp_path / "line").mkdir()
    (tmp_path / "line" / "__init__.py").touch()
    for number in range(MOST_LOOSE):
        (tmp_path / f"file{number}.py").touch()
    assert len(loose(tmp_path)) == MOST_LOOSE and named_after_a_room(tmp_path) == []
    (tmp_path / "line_check.py").touch()
    assert len(loose(tmp_path)) > MOST_LOOSE and named_after_a_room(tmp_path) == ["line_check.py"]


def test_setup_cfg_lists_every_package_folder() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    mapping = dict(line.replace(" ", "").split("=") for line in config["options"]["package_dir"].split("\n") if line)
    assert {folder: name for name, folder in mapping.items()} == ROOMS
    listed = config["options"]["packages"].split()
    folders = {path.parent for path in package_sources()}
    assert sorted(listed) == sorted(module_name(folder) for folder in folders)
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
