"""Tiers 0 and 1 on figures made up for the purpose, and the complexity contract."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.check import complexity
from harness.check.complexity import Point
from harness.check.deterministic import METRICS, Facts, alone, compare
from harness.store.record import Case, Reading

DEFINITION = {"fields": "abc", "size": 2.0, "projections": [1.0, -0.5]}
VALUES = {"numeric_error": 3e-7, "flops": 1000, "peak_memory": 8.0, "kernels": 18}
NOTE = "sequence=0123; output=1x6x64x64 float32"


def facts(*, note: str = NOTE, toolchain: str = "torch 2 cpu", definition=DEFINITION, **values) -> Facts:
    readings = {
        name: Reading(metric=name, value=values.get(name, VALUES[name]), note=note if name == "kernels" else "")
        for name in METRICS
    }
    return Facts(readings=readings, definition=definition, toolchain=toolchain)


def verdicts(base: Facts | None, head: Facts | None) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in compare("mine:fast n=64", base=base, head=head)}


def test_equal_figures_are_ok_and_every_finding_says_why():
    found = compare("mine:fast n=64", base=facts(), head=facts())
    assert {f.check for f in found} == {"definition", *METRICS, "output"}
    assert all(f.verdict == "ok" and f.reason and f.variant == "mine" for f in found)


@pytest.mark.parametrize(
    ("change", "check", "verdict"),
    [
        ({"flops": 1001}, "flops", "regressed"),
        ({"flops": 900}, "flops", "ok"),
        ({"flops": 100}, "flops", "implausible"),
        ({"kernels": 19}, "kernels", "regressed"),
        ({"kernels": 17, "note": "sequence=9; output=1x6x64x64 float32"}, "kernels", "changed"),
        ({"note": "sequence=9; output=1x6x64x64 float32"}, "kernels", "changed"),
        ({"note": "sequence=0123; output=1x6x64x64 float64"}, "output", "regressed"),
        ({"note": "sequence=0123"}, "output", "failed"),
        ({"peak_memory": 8.0000001}, "peak_memory", "regressed"),
        ({"peak_memory": 0.1}, "peak_memory", "implausible"),
        ({"numeric_error": 5.9e-7}, "numeric_error", "ok"),
        ({"numeric_error": 6.1e-7}, "numeric_error", "regressed"),
        ({"flops": math.nan}, "flops", "failed"),
        ({"numeric_error": math.inf}, "numeric_error", "failed"),
        ({"definition": {**DEFINITION, "fields": "other"}}, "definition", "regressed"),
        ({"definition": {**DEFINITION, "projections": [1.0, -0.5 + 1e-6]}}, "definition", "regressed"),
        ({"definition": {**DEFINITION, "projections": [1.0, -0.5 + 1e-12]}}, "definition", "ok"),
        ({"definition": {**DEFINITION, "size": math.nan}}, "definition", "regressed"),
        ({"definition": None}, "definition", "failed"),
        ({"toolchain": "torch 3 cpu", "peak_memory": 99.0}, "peak_memory", "not comparable"),
        ({"toolchain": "torch 3 cpu"}, "kernels", "not comparable"),
        ({"toolchain": "torch 3 cpu", "flops": 2000}, "flops", "regressed"),
    ],
)
def test_what_a_change_is_called(change, check, verdict):
    assert verdicts(facts(), facts(**change))[check] == verdict


def test_a_tiny_numeric_error_may_grow_to_the_dtypes_rounding():
    assert verdicts(facts(numeric_error=1e-9), facts(numeric_error=2e-7))["numeric_error"] == "ok"


BROKEN, AWAY = Facts(status="error", note="SIGSEGV"), Facts(status="unavailable", note="needs CUDA")


@pytest.mark.parametrize(
    ("base", "head", "verdict"),
    [
        (None, facts(), "new"),
        (facts(), None, "failed"),
        (facts(), BROKEN, "failed"),
        (BROKEN, facts(), "new"),
        (BROKEN, BROKEN, "failed"),
        (None, BROKEN, "failed"),
        (facts(), AWAY, "failed"),
        (AWAY, AWAY, "not comparable"),
        (None, AWAY, "not comparable"),
        (AWAY, facts(), "new"),
    ],
)
def test_a_side_without_figures_never_passes(base, head, verdict):
    assert verdicts(base, head) == {"presence": verdict}


def test_a_metric_in_error_at_head_alone_fails():
    head = facts()
    broken = replace(head, readings={**head.readings, "flops": Reading(metric="flops", status="error", note="0")})
    assert verdicts(facts(), broken)["flops"] == "failed"
    assert verdicts(broken, broken)["flops"] == "not comparable"
    assert [f.verdict for f in alone("mine", broken)] == ["failed"]
    assert [f.verdict for f in alone("mine", head)] == ["ok"]


CASE = Case(
    attention="mine", backend="fast", scope="core", phase="forward", b=1, h=6, n=64, d=64, m=8, dtype="float32",
    device="cpu",
)  # fmt: skip
LINEAR = {"flops_n": 1, "flops_m": 1, "peak_n": 1, "peak_m": 1}


def points(cost) -> list[Point]:
    return [Point(n=c.n, m=c.m, flops=cost(c.n, c.m), peak=cost(c.n, c.m)) for c in complexity.sizes(CASE)]


@pytest.mark.parametrize(
    ("cost", "wrong"),
    [
        (lambda n, m: 6 * n * m + 500 * m**2, set()),
        (lambda n, m: 4 * n * n, {"flops over n", "peak over n", "flops over m", "peak over m"}),
        (lambda n, m: n * m * m, {"flops over m", "peak over m"}),
        (lambda n, m: 7, {"flops over n", "peak over n", "flops over m", "peak over m"}),
        (lambda n, m: n * math.sqrt(n) * m, {"flops over n", "peak over n"}),
    ],
)
def test_growth_is_held_against_what_is_declared(cost, wrong):
    found = complexity.judge("mine", LINEAR, points(cost))
    assert len(found) == 4
    assert {f.check for f in found if f.verdict == "regressed"} == wrong


def test_the_contract_keeps_the_mask_and_one_head_of_keys():
    """Growth with n is declared for keys that grow with it."""
    grouped = replace(CASE, h=6, options="causal=true;init=paper;kv_heads=2")
    assert {case.options for case in complexity.sizes(grouped)} == {"causal=true;init=paper"}
    cross = replace(CASE, options="init=paper;kv_tokens=77")
    assert complexity.sizes(cross) == complexity.sizes(replace(CASE, options="init=paper"))


def test_causal_growth_may_be_slower_than_declared_and_not_faster():
    slow = [Point(n=c.n, m=c.m, flops=c.n * c.m, peak=c.n * (c.m + 500)) for c in complexity.sizes(CASE)]
    assert {f.check: f.verdict for f in complexity.judge("mine", LINEAR, slow)}["peak over m"] == "regressed"
    assert {f.verdict for f in complexity.judge("mine", LINEAR, slow, at_most=True)} == {"ok"}
    fast = [Point(n=c.n, m=c.m, flops=c.n**2 * c.m, peak=c.n * c.m) for c in complexity.sizes(CASE)]
    assert {f.check: f.verdict for f in complexity.judge("mine", LINEAR, fast, at_most=True)}[
        "flops over n"
    ] == "regressed"


def test_a_size_without_a_figure_fails_the_contract_and_none_declared_is_said():
    broken = [Point(n=2048, m=32, flops=0, peak=1, note="0 FLOPs were counted")]
    assert complexity.judge("mine", LINEAR, broken)[0].verdict == "failed"
    assert complexity.judge("mine", None, [])[0].verdict == "not comparable"
    exact = [Point(n=c.n, m=None, flops=c.n**2, peak=c.n) for c in complexity.sizes(replace(CASE, m=None))]
    declared = {"flops_n": 2, "flops_m": 0, "peak_n": 1, "peak_m": 0}
    assert [f.verdict for f in complexity.judge("full", declared, exact)] == ["ok", "ok"]
