"""A user's own layer as a case: checked against itself, counted, and refused where it has no meaning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import making
import pytest
import torch

import attentions
from attentions import registry
from harness import cli
from harness.cases import catalogue, layers
from harness.cases.plugins import digests
from harness.cases.space import Sweep, expand
from harness.measuring import metrics, probe
from harness.measuring.metrics.error import WrongResult
from harness.measuring.requests import Definition
from harness.measuring.subject import Subject
from harness.store.record import Case, Reading

SOURCE = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, dim, heads, anchors):
        super().__init__()
        self.inner = nn.Linear(dim, dim)
        self.register_buffer("drawn", torch.randn(dim), persistent=False)
    def forward(self, x):
        return torch.relu(self.inner(x)) * self.drawn

class Same(Own):
    def __init__(self, dim, heads):
        super().__init__(dim, heads, 0)
    def forward(self, x):
        return torch.sigmoid(self.inner(x)) * self.drawn

class Pair(Same):
    def forward(self, x):
        return super().forward(x), None

class Rounded(Same):
    def forward(self, x):
        return super().forward(x.bfloat16().to(x.dtype) if x.dtype == torch.float32 else x)

class Odd(nn.Module):
    def __init__(self, config):
        super().__init__()
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path) -> Iterator[Path]:
    before = dict(registry._plugins)
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    attentions.load_plugin(path)
    yield path
    registry._plugins.clear()
    registry._plugins.update(before)


def case(name: str, **changes: object) -> Case:
    return making.case(**{"attention": "mine", "backend": name, "scope": "layer", **changes})


def measure(subject: Subject, *names: str) -> dict[str, Reading]:
    readings: dict[str, Reading] = {}
    for metric in metrics.plan(names):
        found = metric.measure(subject, readings, metrics.Settings(budget_s=0.01, min_samples=3))
        readings |= {reading.metric: reading for reading in found}
    return readings


@pytest.mark.parametrize("phase", ["forward", "backward", "train"])
def test_a_layer_is_measured_against_itself_in_float64(phase: str) -> None:
    """Buffers that it draws and does not save are drawn alike; two layers of one state are two definitions."""
    wanted = ("numeric_error", "flops", "params", "bytes_moved")
    found = {name: measure(Subject(case(name, phase=phase)), *wanted) for name in ("Own", "Same")}
    once, again = {"forward": (1, 0), "backward": (0, 1), "train": (1, 1)}[phase]
    for readings in found.values():
        assert 0 < readings["numeric_error"].value < 1e-5  # type: ignore[operator]
        assert readings["flops"].value == (once + 2 * again) * 2 * 64 * 32 * 32
        assert readings["params"].value == 32 * 32 + 32
        assert readings["bytes_moved"].status == "unsupported"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Pair", "the output is a tuple, not a plain torch.Tensor"),
        ("Rounded", "numeric_error .* exceeds the tolerance"),
    ],
)
def test_what_is_no_layer_or_loses_digits_has_no_figures(name: str, said: str) -> None:
    with pytest.raises(WrongResult, match=said):
        measure(Subject(case(name)), "numeric_error")


def test_it_has_one_scope() -> None:
    found = {scope: catalogue.resolve(case("Own", scope=scope, m=4)) for scope in ("core", "layer")}
    assert (found["layer"].status, found["layer"].peak_bytes) == ("ok", None)
    assert found["core"].status == "unsupported"
    assert "mine:Own is a whole layer, with projections of its own" in found["core"].note
    odd = catalogue.resolve(case("Odd"))
    assert odd.status == "unavailable"
    assert "a layer is a torch.nn.Module built as Layer(dim, heads)" in odd.note


def test_the_plugins_name_is_every_layer_that_can_be_built_and_m_is_of_those_that_have_it() -> None:
    known = catalogue.describe(["cpu"])
    assert layers.each(("mine", "full"), known) == ("mine:Own", "mine:Same", "mine:Pair", "mine:Rounded", "full")
    assert layers.each(("mine:Odd",), known) == ("mine:Odd",)
    sweep = Sweep.parse({"attention": "mine", "scope": "layer", "n": 64, "m": "4,8"})
    cases, _ = expand(sweep, known, device="cpu")
    assert [(c.backend, c.m) for c in cases] == [
        ("Own", 4), ("Own", 8), ("Same", None), ("Pair", None), ("Rounded", None)
    ]  # fmt: skip


def test_the_gate_knows_its_definition() -> None:
    own, same = (probe.definition(Definition(case=case(name, m=m))) for name, m in (("Own", 4), ("Same", None)))
    assert own.projections != same.projections
    again = probe.definition(Definition(case=replace(case("Same"), n=32)))
    assert again.fields == same.fields


def test_a_packages_every_file_counts(tmp_path: Path) -> None:
    folder = tmp_path / "parcel"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "inner" / "deep.py").write_text("a = 1\n")
    first = digests([str(folder)])
    (folder / "inner" / "deep.py").write_text("a = 2\n")
    assert digests([str(folder)]) != first
    assert list(first) == ["parcel"]


def test_the_list_tells_what_it_is(plugin: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cli.main(["list", "--plugin", str(plugin)]) == 0
    said = capsys.readouterr().out
    assert "mine: Layers of mine.py (whole layers, for scope layer; m: anchors)" in said
    assert "mine:Odd  unavailable: cannot be built as Layer(dim, heads)" in said


def test_a_class_from_python_is_a_layer() -> None:
    from harness.door.defined import Defined
    from harness.errors import UsageError

    class Twice(torch.nn.Module):
        def __init__(self, dim: int, heads: int) -> None:
            super().__init__()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    found = Defined.of(Twice)
    assert (found.name, [b.name for b in found.spec.backends]) == ("twice", ["Twice"])
    with pytest.raises(UsageError, match=r"as a layer it is no torch.nn.Module"):
        Defined.of(int)
