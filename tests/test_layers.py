"""Who may import whom, read from the sources: rooms on their floors, downwards only, and no circles."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for package in ("attentions", "harness") for path in (ROOT / package).rglob("*.py"))
OURS = ("attentions", "harness", "tests", "scripts")
WITHOUT_TORCH = ("store", "stats", "errors", "figures", "check", "answers", "report")  # of harness
# The rooms of harness, the highest floor first: a room imports those below it, none beside or above.
FLOORS = (
    ("cli",), ("door",), ("report",), ("answers", "check"), ("sweep",), ("engines",), ("measuring",), ("cases",),
    ("vision",), ("figures", "machine"), ("store",), ("stats",), ("errors",),
)  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


@dataclass(frozen=True)
class Import:
    """A module that a file imports, and whether it does so as the file is imported or inside a function."""

    module: str
    line: int
    lazy: bool


def module_of(path: Path) -> str:
    """attentions/variants/full.py → attentions.variants.full."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, *, module: str, package: bool = False) -> list[Import]:
    """Every import in a source, those inside functions and `importlib.import_module("…")` of a literal included.

    `from x import y` counts as x and as x.y: whether y is a module is not known here.
    """
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = module.split(".") if package else module.split(".")[:-1]
                parents = kept[: len(kept) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            found.append(Import(base, node.lineno, lazy))
            found.extend(Import(f"{base}.{alias.name}", node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                found.append(Import(str(name.value), node.lineno, lazy))
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return  # never imported
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), False)
    return found


def within(module: str, *packages: str) -> bool:
    """Whether a module is one of the packages or inside one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def broken_rules(module: str, imported: list[Import]) -> list[str]:
    """What a file's imports break, each as one line."""
    problems = []

    def check(forbidden: bool, entry: Import, rule: str) -> None:
        if forbidden:
            problems.append(f"{module}:{entry.line} imports {entry.module}: {rule}")

    top = module.split(".")[1] if "." in module else ""
    for entry in imported:
        name = entry.module
        if within(module, "attentions"):
            check(within(name, "harness", "tests", "scripts"), entry, "attentions knows nothing of measuring")
        if within(module, "attentions.kernels"):
            allowed = within(name, "attentions.kernels", "attentions.base") or name == "attentions"
            check(
                within(name, *OURS) and not allowed,
                entry,
                "kernels import torch, triton and base, nothing else of ours",
            )
        if within(module, "attentions.variants") and module != "attentions.variants":
            shared = ("base", "eager", "flex", "fused", "kernels", "running", "shipped")
            allowed = within(name, *(f"attentions.{each}" for each in shared)) or name == "attentions"
            check(within(name, *OURS) and not allowed, entry, "a variant imports base and kernels, no other variant")
        if within(module, "harness"):
            check(within(name, "tests", "scripts"), entry, "the packages do not import what uses them")
        if within(module, "harness") and top in WITHOUT_TORCH:
            check(within(name, "torch", "torchvision", "triton", "attentions"), entry, "no torch here")
        if top in FLOOR and within(name, "harness") and "." in name:
            other = name.split(".")[1]
            if other != top and other in FLOOR:
                check(FLOOR[other] <= FLOOR[top], entry, f"{top} stands on or below the floor of {other}")
    return problems


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_one_way(path: Path) -> None:
    module, package = module_of(path), path.name == "__init__.py"
    assert not broken_rules(module, imports_of(path.read_text(encoding="utf-8"), module=module, package=package))


def test_what_has_no_torch_has_none_behind_it() -> None:
    """Record, store, stats, figures and check, and all of ours that they import as they are imported."""
    reached = {
        module_of(path): [
            entry.module
            for entry in imports_of(
                path.read_text(encoding="utf-8"), module=module_of(path), package=path.name == "__init__.py"
            )
            if not entry.lazy
        ]
        for path in SOURCES
    }
    starts = [name for name in reached if any(within(name, f"harness.{top}") for top in WITHOUT_TORCH)]
    for start in starts:
        seen, waiting = {start}, [(start, start)]
        while waiting:
            name, way = waiting.pop()
            for target in reached[name]:
                assert not within(target, "torch", "attentions"), f"{way} → {target}"
                if target in reached and target not in seen:
                    seen.add(target)
                    waiting.append((target, f"{way} → {target}"))


def circles(reached: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other."""

    def below(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*reached.get(start, ())]
        while waiting:
            name = waiting.pop()
            if name in reached and name not in seen:
                seen.add(name)
                waiting.extend(reached[name])
        return seen

    depths = {name: below(name) for name in reached}
    found = {tuple(sorted(other for other in depths[name] if name in depths[other])) for name in reached}
    return [list(group) for group in sorted(found) if group]


def test_there_are_no_circles() -> None:
    """Not by an import inside a function either. `from package import module` reaches the module alone."""
    known = {module_of(path): path for path in SOURCES}
    reached: dict[str, set[str]] = {}
    for module, path in known.items():
        entries = imports_of(path.read_text(encoding="utf-8"), module=module, package=path.name == "__init__.py")
        names = {entry.module for entry in entries}
        packages = {name.rpartition(".")[0] for name in names & known.keys()}
        reached[module] = {name for name in names & known.keys() if name != module and name not in packages}
    assert circles(reached) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_every_room_has_a_floor_and_says_what_it_is_for() -> None:
    rooms = {path.name for path in (ROOT / "harness").iterdir() if (path / "__init__.py").exists()}
    assert rooms | {"stats", "errors"} == set(FLOOR)
    for room in rooms:
        text = ast.get_docstring(ast.parse((ROOT / "harness" / room / "__init__.py").read_text(encoding="utf-8")))
        assert text, room
        assert "ay import" in text, f"harness/{room}/__init__.py does not say what the room may import"


def test_the_root_holds_little() -> None:
    """The door, `python -m harness`, and the ground: what is more belongs in a room."""
    sizes = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "harness").glob("*.py")}
    assert len(sizes) <= 6
    assert all(lines <= 60 for name, lines in sizes.items() if name != "stats.py"), sizes
    kernels = (ROOT / "attentions" / "kernels").rglob("*.py")
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 350 for path in kernels)


def test_sources_are_found() -> None:
    modules = {module_of(path) for path in SOURCES}
    assert {"attentions", "attentions.variants.full", "harness.store.record"} <= modules


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("attentions.variants.flash", "from attentions.variants.full import reference"),
        ("attentions.variants.flash", "from attentions.variants import full"),
        ("attentions.variants.flash", "from . import full"),
        ("attentions.variants.flash", "from .full import reference"),
        ("attentions.variants.flash", "from ..registry import build"),
        ("attentions.variants.flash", "def late():\n    import attentions.variants.full"),
        ("attentions.variants.flash", "import importlib\nimportlib.import_module('attentions.variants.full')"),
        ("attentions.layer", "import harness"),
        ("attentions.kernels.anchor.backends", "from attentions.eager import softmax"),
        ("harness.stats", "import torch"),
        ("harness.figures.latency", "from torch import Tensor"),
        ("harness.check.decide", "def late():\n    import torch.nn"),
        ("harness.store.runs", "import attentions"),
        ("harness.measuring.worker", "from harness.cli import main"),
        ("harness.vision.vit", "from harness import cli"),
        ("harness.measuring.worker", "import tests"),
        ("harness.store.runs", "from harness.machine import system"),
        ("harness.check.gate", "from harness.answers.compare import compare"),
        ("harness.measuring.subject", "def late():\n    from harness.engines import local"),
        ("harness.stats", "import numpy\nfrom harness.store.record import Row"),
    ],
)
def test_a_breach_is_seen(module: str, line: str) -> None:
    assert broken_rules(module, imports_of(line, module=module))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("attentions.variants.flash", "from attentions.base import Spec"),
        ("attentions.variants.anchor", "from attentions.kernels.anchor.backends import rank"),
        ("attentions.variants.flash", "import torch\nimport flash_attn"),
        ("attentions.layer", "from attentions import registry"),
        ("attentions.kernels.anchor.plan", "import triton\nfrom attentions.kernels.anchor import choices"),
        ("attentions.kernels.anchor.backends", "from attentions.base import Work"),
        ("harness.store.selection", "import numpy\nfrom harness.stats import summarise"),
        ("harness.measuring.worker", "import torch\nimport attentions"),
        ("harness.vision.vit", "from attentions.layer import MultiHeadAttention"),
        ("harness.cli.run", "from harness.cli import main\nimport torch"),
        ("harness.__main__", "from harness.cli import main"),
        ("harness.check.gate", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ],
)
def test_what_is_allowed_is_allowed(module: str, line: str) -> None:
    assert not broken_rules(module, imports_of(line, module=module))
