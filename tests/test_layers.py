"""Who may import whom, read from the sources. The design's import direction, and nothing else, is enforced here."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for package in ("attentions", "harness") for path in (ROOT / package).rglob("*.py"))
OURS = ("attentions", "harness", "tests", "scripts")
WITHOUT_TORCH = ("record", "store", "stats", "figures", "check")  # of harness


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
            ours = within(name, *OURS) and not within(name, "attentions.kernels") and name != "attentions"
            check(ours, entry, "kernels import torch and triton, nothing else of ours")
        if within(module, "attentions.variants") and module != "attentions.variants":
            shared = tuple(f"attentions.{name}" for name in ("base", "eager", "flex", "kernels", "shipped"))
            allowed = within(name, *shared) or name == "attentions"
            check(within(name, *OURS) and not allowed, entry, "a variant imports base and kernels, no other variant")
        if within(module, "harness"):
            check(within(name, "tests", "scripts"), entry, "the packages do not import what uses them")
        if within(module, "harness") and top in WITHOUT_TORCH:
            check(within(name, "torch", "torchvision", "triton", "attentions"), entry, "no torch here")
        if within(module, "harness") and not within(module, "harness.cli", "harness.__main__"):
            check(within(name, "harness.cli"), entry, "nothing imports the command line")
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


def test_sources_are_found() -> None:
    modules = {module_of(path) for path in SOURCES}
    assert {"attentions", "attentions.variants.full", "harness.record"} <= modules


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
        ("attentions.kernels.anchor", "from attentions.base import Work"),
        ("harness.stats", "import torch"),
        ("harness.figures.latency", "from torch import Tensor"),
        ("harness.check.decide", "def late():\n    import torch.nn"),
        ("harness.store", "import attentions"),
        ("harness.worker", "from harness.cli import main"),
        ("harness.vision.vit", "from harness import cli"),
        ("harness.worker", "import tests"),
    ],
)
def test_a_breach_is_seen(module: str, line: str) -> None:
    assert broken_rules(module, imports_of(line, module=module))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("attentions.variants.flash", "from attentions.base import Spec"),
        ("attentions.variants.anchor", "from attentions.kernels.anchor import anchor_attention"),
        ("attentions.variants.flash", "import torch\nimport flash_attn"),
        ("attentions.layer", "from attentions import registry"),
        ("attentions.kernels.anchor", "import triton\nfrom attentions.kernels import anchor_plan"),
        ("harness.stats", "import numpy\nfrom harness.record import Row"),
        ("harness.worker", "import torch\nimport attentions"),
        ("harness.vision.vit", "from attentions.layer import MultiHeadAttention"),
        ("harness.cli.run", "from harness.cli import main\nimport torch"),
        ("harness.__main__", "from harness.cli import main"),
        ("harness.check.gate", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ],
)
def test_what_is_allowed_is_allowed(module: str, line: str) -> None:
    assert not broken_rules(module, imports_of(line, module=module))
