"""A case's problem reaches its module, its inputs and everything that its results are held against."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import making
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import attentions
from harness.cases.catalogue import resolve
from harness.measuring import probe, truth
from harness.measuring.metrics import Settings, error, flops, roofline
from harness.measuring.outputs import WrongResult
from harness.measuring.requests import Definition
from harness.measuring.subject import Subject, work_of
from harness.measuring.truth import ExactRows, chosen_rows, softmax_rows
from harness.store.record import Case, Reading

PROBLEMS = ("causal=true", "kv_heads=2", "kv_tokens=40", "causal=true;kv_heads=1", "kv_heads=2;kv_tokens=100")
FULL = making.case(h=4, n=70, d=8)


def dense(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of the case's problem, by the definition: heads repeated, what is hidden at minus infinity."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if case.problem.causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    return torch.softmax(scores, dim=-1) @ v


@pytest.mark.parametrize("options", PROBLEMS)
def test_inputs_have_the_keys_that_are_asked_for(options: str) -> None:
    subject = Subject(replace(FULL, options=options))
    case = subject.case
    assert [tuple(t.shape) for t in subject.inputs] == [
        (1, 4, 70, 8), *[(1, case.key_heads, case.key_tokens, 8)] * 2
    ]  # fmt: skip
    assert tuple(subject.output_shape) == (1, 4, 70, 8)
    work = work_of(case)
    assert (work.causal, work.key_heads, work.key_tokens) == (case.problem.causal, case.key_heads, case.key_tokens)


@pytest.mark.parametrize("options", PROBLEMS)
def test_the_exact_rows_are_dense_attention_of_the_problem(options: str) -> None:
    subject = Subject(replace(FULL, options=options))
    rows = torch.tensor([0, 1, 33, 69])
    q, k, v = (t.double() for t in subject.inputs)
    found = ExactRows(rows, causal=subject.case.problem.causal)(q, k, v)
    assert torch.allclose(found, dense(subject.case, q, k, v)[:, :, rows], atol=1e-13)
    assert torch.allclose(softmax_rows(subject, rows), found, atol=0)


class Largest(TorchDispatchMode):
    """How many elements the largest tensor has that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [tensor.numel() for tensor in tree_leaves(out) if isinstance(tensor, torch.Tensor)]
        self.elements = max(self.elements, *made, 0)
        return out


@pytest.mark.parametrize("options", PROBLEMS)
def test_rows_whose_scores_would_not_fit_come_some_at_a_time(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(replace(FULL, options=options, n=1500, h=2))
    rows = chosen_rows(subject, 512, 64)
    keys = subject.case.key_tokens
    inputs = [t.double().requires_grad_() for t in subject.inputs]
    exact = ExactRows(rows, causal=subject.case.problem.causal)
    whole = exact(*inputs)
    weights = torch.randn(whole.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad((whole * weights).sum(), inputs)
    monkeypatch.setattr(truth, "SCORES", 100 * keys)
    with Largest() as largest:
        parts = exact(*inputs)
        again = torch.autograd.grad((parts * weights).sum(), inputs)
    assert largest.elements <= max(100 * keys, inputs[0].numel())
    assert torch.allclose(parts, whole, atol=1e-14)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(gradients, again, strict=True))


def measured(case: Case) -> list[Reading]:
    return list(error.measure(Subject(case), {}, Settings()))


@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize("options", PROBLEMS)
def test_full_is_right_and_no_approximation_of_its_own_problem(options: str, phase: str) -> None:
    numeric, approximation = measured(replace(FULL, options=options, phase=phase))
    assert numeric.value is not None
    assert numeric.value < 1e-5
    if phase == "forward":
        assert approximation.value is not None
        assert approximation.value < 1e-5


def test_a_call_that_forgets_the_mask_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(replace(FULL, options="causal=true"))
    subject.module = Subject(FULL).module
    with pytest.raises(WrongResult, match="numeric_error"):
        list(error.measure(subject, {}, Settings()))


@pytest.mark.parametrize("options", ["causal=true", "kv_heads=2"])
def test_truths_of_two_problems_are_not_confused(options: str) -> None:
    """Their inputs are the same bits where only the mask differs."""
    first = measured(FULL)[0].value
    other = measured(replace(FULL, options=options))[0].value
    again = measured(FULL)[0].value
    assert first == again
    assert other is not None
    assert other < 1e-5


@pytest.mark.parametrize("options", PROBLEMS)
def test_declared_flops_are_those_of_the_problem(options: str) -> None:
    case = replace(FULL, options=options)
    plain, own = (flops.declared_flops(Subject(one), executed=False) for one in (FULL, case))
    assert plain is not None
    assert own is not None
    pairs = 70 * case.key_tokens / (2 if case.problem.causal else 1)
    assert own / plain == pytest.approx(pairs / 70**2)
    moved = roofline.minimal_bytes(Subject(case))
    assert moved == 4 * 8 * (2 * 4 * 70 + 2 * case.key_heads * case.key_tokens)


@pytest.mark.parametrize("options", PROBLEMS)
def test_a_resolved_case_tells_its_problem_once_and_what_it_needs(options: str) -> None:
    found = resolve(replace(FULL, backend="", options=options))
    assert (found.status, found.case.options) == ("ok", options)
    assert found.peak_bytes is not None
    alike = resolve(replace(FULL, backend="", options=f"{options};kv_heads=4" if "heads" not in options else options))
    assert alike.case == found.case


def test_a_variant_that_cannot_is_unsupported_with_its_reason() -> None:
    asked: dict[str, Any]
    for name, asked in (("anchor", {"kv_tokens": 40}), ("pvt", {"causal": True})):
        spec = attentions.spec(name)
        case = making.case(
            attention=name, backend="", m=8, options=";".join(f"{k}={str(v).lower()}" for k, v in asked.items())
        )
        found = resolve(case)
        assert (found.status, found.note) == ("unsupported", spec.why_not(**asked))
        assert len(found.note) > 20


@pytest.mark.parametrize("options", ["causal=true", "kv_heads=2", "kv_tokens=40"])
def test_a_definition_knows_its_problem(options: str) -> None:
    plain, own = (probe.definition(Definition(case=case)) for case in (FULL, replace(FULL, options=options)))
    assert plain.projections != own.projections


def test_a_layer_is_built_for_its_problem() -> None:
    for options in ("causal=true", "kv_heads=2", "kv_tokens=40", "kv_heads=1;kv_tokens=100"):
        case = replace(FULL, scope="layer", phase="train", options=options)
        subject: Any = Subject(case)
        context = [(1, case.key_tokens, 32)] if "tokens" in options else []
        assert [tuple(t.shape) for t in subject.inputs] == [(1, 70, 32), *context]
        assert measured(case)[0].status == "ok"
        weights = {name: p for name, p in subject.module.named_parameters() if name.endswith("projection.weight")}
        assert sum(p.shape[0] for p in weights.values()) == 8 * (4 + 2 * case.key_heads)
        assert flops.declared_flops(subject, executed=True) == flops.count(subject)
        own = sum(p.numel() for p in subject.module.parameters())
        given = sum(t.numel() for t in subject.inputs)
        assert roofline.minimal_bytes(subject) == 4 * 2 * (given + 70 * 32 + own)
