"""Causal, grouped and cross attention: what every variant and backend that can must do, and what the others say."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from agreement import errors, results
from torch import Tensor
from torch.func import functional_call

import attentions
from attentions.base import PROBLEMS

H, D, M = 4, 8, 6
ASKED: dict[str, dict[str, Any]] = {
    "causal": {"causal": True},
    "grouped": {"kv_heads": 2},
    "multi-query": {"kv_heads": 1},
    "cross": {"kv_tokens": 37},
    "causal-grouped": {"causal": True, "kv_heads": 2},
    "cross-grouped": {"kv_heads": 2, "kv_tokens": 37},
}
LENGTHS = (1, 9, 64, 150)  # less than a chunk of 64 tokens, one, and two with a rest
F64 = torch.float64

asked = pytest.mark.parametrize("problem", ASKED.values(), ids=ASKED)
causal_ones = pytest.mark.parametrize("problem", [ASKED["causal"], ASKED["causal-grouped"]], ids=["causal", "grouped"])
lengths = pytest.mark.parametrize("n", LENGTHS)


def options_of(implementation: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """A window that is narrower than the inputs, and Nyström attention as it may be asked for."""
    name = implementation.spec.name
    if name == "nystrom" and "kv_tokens" in problem:
        return {"residual_kernel": 0}
    return {"reach": 7} if name == "window" else {}


def skip_unless_can(
    implementation: Any, problem: dict[str, Any], n: int, *, dtype: torch.dtype = F64, phase: str = "train"
) -> None:  # fmt: skip
    if reason := implementation.spec.why_not(**problem):
        pytest.skip(reason)
    options = options_of(implementation, problem)
    if reason := implementation.refusal(2, H, n, D, M, dtype=dtype, phase=phase, problem=problem, **options):
        pytest.skip(f"{implementation.name} {reason}")


def case(
    implementation: Any, problem: dict[str, Any], n: int, *, dtype: torch.dtype = F64, phase: str = "train"
) -> tuple[Any, ...]:  # fmt: skip
    """The core, q, k and v of a problem that the implementation can do."""
    skip_unless_can(implementation, problem, n, dtype=dtype, phase=phase)
    core = implementation.build(H, n, D, M, dtype=dtype, **problem, **options_of(implementation, problem))
    keys = {name: value for name, value in problem.items() if name != "causal"}
    return core, *implementation.inputs(2, H, n, D, dtype=dtype, **keys)


def dense(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, **_: Any) -> Tensor:
    """softmax(q kᵀ / √d) v over repeated heads, under a mask where it is causal."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    return torch.softmax(scores, dim=-1) @ v


def gradients(out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Of a weighted sum of the output's squares, by each input; zero where one has no part in it."""
    weight = torch.linspace(1, 2, out.numel(), dtype=out.dtype).view_as(out)
    found = torch.autograd.grad((weight * out.square()).sum(), inputs, allow_unused=True)
    return tuple(torch.zeros_like(x) if grad is None else grad for x, grad in zip(inputs, found, strict=True))


@asked
@pytest.mark.parametrize("n", [1, 9, 300])  # the references work on blocks of 256
def test_exact_attention_is_the_dense_formula(exact: Any, problem: dict[str, Any], n: int) -> None:
    core, q, k, v = case(exact, problem, n)
    out, expected = core(q, k, v), dense(q, k, v, **problem)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients(out, q, k, v), gradients(expected, q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@asked
def test_narrow_types_are_near_float64(implementation: Any, problem: dict[str, Any], dtype: torch.dtype) -> None:
    """With gradients; no further than a few roundings of a result that is a mean of the values."""
    core, q, k, v = case(implementation, problem, 150, dtype=dtype)
    reference = case(implementation.sibling("reference"), problem, 150)[0]
    reference.load_state_dict(core.state_dict())
    upstream = torch.randn(q.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    found = results(core, q, k, v, upstream)
    exact = results(reference, *(x.detach().double().requires_grad_() for x in (q, k, v)), upstream)
    limit = 5e-5 if dtype == torch.float32 else 0.1
    assert all(value < limit for value in errors(found, exact, upstream).values())


@causal_ones
@lengths
def test_causal_is_what_the_variant_gives_for_each_prefix(variant: Any, problem: dict[str, Any], n: int) -> None:
    """The definition of causal, for all of them: token i has what the last of the tokens ≤ i has without a mask."""
    core, q, k, v = case(variant, problem, n)
    whole = variant.build(H, n, D, M, dtype=F64, kv_heads=problem.get("kv_heads"), **options_of(variant, problem))
    out = core(q, k, v)
    prefixes = [whole(*(x[:, :, : i + 1] for x in (q, k, v)))[:, :, -1:] for i in range(n)]
    expected = torch.cat(prefixes, dim=2)
    torch.testing.assert_close(out, expected)
    inputs = (q, k, v, *core.parameters())
    torch.testing.assert_close(gradients(out, *inputs)[:3], gradients(expected, q, k, v))


def test_causal_parameters_have_the_gradients_of_the_prefixes(make: Any) -> None:
    variant, n = make("anchor:reference"), 70
    core, q, k, v = case(variant, ASKED["causal"], n)
    whole = variant.build(H, n, D, M, dtype=F64)
    expected = torch.cat([whole(*(x[:, :, : i + 1] for x in (q, k, v)))[:, :, -1:] for i in range(n)], dim=2)
    torch.testing.assert_close(gradients(core(q, k, v), core.anchors), gradients(expected, whole.anchors))


@causal_ones
@pytest.mark.parametrize("changed", [1, 63, 64, 100])
def test_later_tokens_do_not_change_earlier_outputs(implementation: Any, problem: dict[str, Any], changed: int) -> None:
    core, *inputs = case(implementation, problem, 150)
    with torch.no_grad():
        before = core(*inputs)
        for x in inputs:
            x[:, :, changed:] = 1000 * x[:, :, changed:].flip(-1)
        after = core(*inputs)
    torch.testing.assert_close(after[:, :, :changed], before[:, :, :changed], rtol=0, atol=1e-12)
    assert (after[:, :, changed:] - before[:, :, changed:]).abs().amax(dim=(0, 1, 3)).min() > 1e-3


@causal_ones
def test_the_first_token_has_itself_alone(implementation: Any, problem: dict[str, Any]) -> None:
    core, q, k, v = case(implementation, problem, 150)
    own = v.repeat_interleave(H // v.shape[1], dim=1)
    torch.testing.assert_close(core(q, k, v)[:, :, 0], own[:, :, 0])


@pytest.mark.parametrize("scale", [60, 1000])
@causal_ones
def test_causal_attention_of_large_queries_and_keys_is_a_mean(
    variant: Any, problem: dict[str, Any], scale: int
) -> None:
    """Logits of 10⁴ to 10⁶ in float32: nothing overflows, and no weight is negative or adds up to more than one."""
    core, q, k, v = case(variant, problem, 150, dtype=torch.float32)
    with torch.no_grad():
        out = core(scale * q, scale * k, v)
    largest = v.abs().cummax(dim=2).values.amax(dim=(1, 3), keepdim=True)
    assert torch.isfinite(out).all()
    assert (out.abs() <= largest * 1.0001).all()


@pytest.mark.parametrize("other", [{}, {"causal": True}, {"kv_tokens": 37}], ids=["self", "causal", "cross"])
@pytest.mark.parametrize("kv_heads", [1, 2])
@lengths
def test_grouped_heads_are_repeated_heads(implementation: Any, kv_heads: int, n: int, other: dict[str, Any]) -> None:
    core, q, k, v = case(implementation, {"kv_heads": kv_heads, **other}, n)
    plain = implementation.build(H, n, D, M, dtype=F64, **other, **options_of(implementation, other))
    assert {name: x.shape for name, x in core.state_dict().items()} == {
        name: x.shape for name, x in plain.state_dict().items()
    }
    plain.load_state_dict(core.state_dict())
    repeated = plain(q, *(x.repeat_interleave(H // kv_heads, dim=1) for x in (k, v)))
    out = core(q, k, v)
    torch.testing.assert_close(out, repeated)
    torch.testing.assert_close(gradients(out, q, k, v), gradients(repeated, q, k, v))


def test_linformer_without_sharing_has_a_projection_for_each_head_of_keys() -> None:
    core = attentions.build("linformer", heads=4, head_dim=8, tokens=9, anchors=3, kv_heads=2, sharing="none")
    assert core.key_projection.shape == core.value_projection.shape == (2, 3, 9)
    assert core(torch.randn(1, 4, 9, 8), *torch.randn(2, 1, 2, 9, 8)).shape == (1, 4, 9, 8)


POOLS_QUERIES = ("agent", "nystrom")


@pytest.mark.parametrize("n", [1, 9, 37, 60])
def test_cross_attention_treats_each_query_as_self_attention_does(variant: Any, n: int) -> None:
    """The first queries of a sequence, beside its keys: so each definition, tested for itself, tells what cross is."""
    if variant.spec.name in POOLS_QUERIES:
        pytest.skip("its result for a query depends on the other queries")
    tokens = 80
    core, *_ = case(variant, {"kv_tokens": tokens}, n)
    own = variant.build(H, tokens, D, M, dtype=F64, **options_of(variant, {}))
    q, k, v = variant.inputs(2, H, tokens, D, dtype=F64)
    out, expected = core(q[:, :, :n], k, v), own(q, k, v)[:, :, :n]
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients(out, q, k, v), gradients(expected, q, k, v))


def means_of_segments(x: Tensor, m: int) -> Tensor:
    """Of m consecutive runs, the longer ones last, written out run by run."""
    n = x.shape[-2]
    sizes = [n // m] * (m - n % m) + [n // m + 1] * (n % m)
    return torch.stack([part.mean(dim=-2) for part in x.split(sizes, dim=-2)], dim=-2)


@pytest.mark.parametrize(("n", "tokens"), [(9, 37), (37, 9), (4, 40)])
def test_agent_attention_across_is_its_formula(n: int, tokens: int) -> None:
    core = attentions.build("agent", heads=H, head_dim=D, tokens=n, anchors=M, kv_tokens=tokens)
    q, k, v = (torch.randn(2, H, length, D, dtype=F64) for length in (n, tokens, tokens))
    agents = means_of_segments(q, min(M, n))
    torch.testing.assert_close(core(q, k, v), dense(q, agents, dense(agents, k, v)))


@pytest.mark.parametrize(("n", "tokens"), [(9, 37), (37, 9), (4, 40), (40, 4)])
def test_nystrom_attention_across_is_its_formula(n: int, tokens: int) -> None:
    from attentions.variants.nystrom import pseudo_inverse

    core = attentions.build("nystrom", heads=H, head_dim=D, tokens=n, anchors=M, kv_tokens=tokens, residual_kernel=0)
    q, k, v = (torch.randn(2, H, length, D, dtype=F64) for length in (n, tokens, tokens))
    if min(n, tokens) <= M:
        torch.testing.assert_close(core(q, k, v), dense(q, k, v))
        return
    q_means, k_means = means_of_segments(q, M), means_of_segments(k, M)
    middle = torch.softmax(q_means @ k_means.mT / D**0.5, dim=-1)
    torch.testing.assert_close(core(q, k, v), dense(q, k_means, pseudo_inverse(middle, 6) @ dense(q_means, k, v)))


def test_as_many_keys_as_queries_is_the_same_problem(variant: Any) -> None:
    """Asked for in words that change nothing: the same core, also of a variant that has no such problem."""
    n = 20
    plain = variant.build(H, n, D, M, dtype=F64)
    same = variant.build(H, n, D, M, dtype=F64, kv_heads=H, kv_tokens=n)
    inputs = variant.inputs(2, H, n, D, dtype=F64)
    assert torch.equal(same(*inputs), plain(*inputs))
    cost = variant.spec.cost
    assert cost(2, H, n, D, M, kv_heads=H, kv_tokens=n) == cost(2, H, n, D, M)


def test_fewer_keys_than_built_for(implementation: Any) -> None:
    core, *_ = case(implementation, {"kv_tokens": 37}, 20)
    q, k, v = implementation.inputs(2, H, 20, D, dtype=F64, kv_tokens=20)
    out = core(q, k, v)
    assert out.shape == q.shape
    if not list(core.parameters()):  # those of linformer and pvt are for a number of keys
        own = implementation.build(H, 20, D, M, dtype=F64, **options_of(implementation, {"kv_tokens": 37}))
        own.load_state_dict(core.state_dict())
        torch.testing.assert_close(out, own(q, k, v))


@asked
def test_gradcheck(variant: Any, problem: dict[str, Any]) -> None:
    problem = problem | ({"kv_tokens": 4} if "kv_tokens" in problem else {})
    skip_unless_can(variant, problem, 5)
    options = options_of(variant, problem) | ({"reach": 2} if variant.spec.name == "window" else {})
    core = variant.build(4, 5, 3, 2, dtype=F64, **problem, **options)
    keys = {name: value for name, value in problem.items() if name != "causal"}
    inputs = variant.inputs(1, 4, 5, 3, dtype=F64, **keys)
    names = [name for name, _ in core.named_parameters()]

    def call(q: Tensor, k: Tensor, v: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(core, dict(zip(names, parameters, strict=True)), (q, k, v))

    assert torch.autograd.gradcheck(call, (*inputs, *core.parameters()))


@asked
def test_an_empty_batch_is_an_empty_result(implementation: Any, problem: dict[str, Any]) -> None:
    core, *inputs = case(implementation, problem, 150, dtype=torch.float32)
    q, k, v = (x[:0].detach().requires_grad_() for x in inputs)
    out = core(q, k, v)
    assert out.shape == q.shape
    out.sum().backward()


@asked
def test_the_bare_name_takes_a_backend_that_can(variant: Any, problem: dict[str, Any]) -> None:
    definition = variant.spec
    if definition.why_not(**problem) or attentions.why_unavailable(definition.name, device="cpu"):
        pytest.skip(f"{definition.name} cannot, or does not run on a CPU by its bare name")
    options, n = options_of(variant, problem), 20
    core = attentions.build(definition.name, heads=H, head_dim=D, tokens=n, anchors=M, **problem, **options)
    named = variant.build(H, n, D, M, **problem, **options)
    named.load_state_dict(core.state_dict())
    keys = {name: value for name, value in problem.items() if name != "causal"}
    q, k, v = variant.inputs(2, H, n, D, **keys)
    torch.testing.assert_close(core(q, k, v), named(q, k, v), rtol=1e-4, atol=1e-5)


def test_what_a_variant_cannot_it_refuses_with_its_reason(variant: Any) -> None:
    definition = variant.spec
    for problem, value in (("causal", True), ("kv_heads", 2), ("kv_tokens", 37)):
        reason = definition.why_not(**{problem: value})
        assert (reason is None) == (problem in definition.problems)
        if reason is None:
            continue
        assert reason.startswith(definition.name)
        assert len(reason.split()) > 6
        with pytest.raises(attentions.AttentionError) as caught:
            attentions.build(variant.name, heads=H, head_dim=D, tokens=20, anchors=M, **{problem: value})
        assert str(caught.value) == reason
        with pytest.raises(attentions.AttentionError) as caught:
            definition.cost(1, H, 20, D, M, **{problem: value})
        assert str(caught.value) == reason


def test_every_refusal_is_told_and_no_other() -> None:
    for name in attentions.names():
        definition = attentions.spec(name)
        assert set(definition.problems) | set(definition.refuses) == set(PROBLEMS)
        assert not set(definition.problems) & set(definition.refuses)


def test_causal_attention_to_other_keys_is_refused(variant: Any) -> None:
    if not {"causal", "kv_tokens"} <= set(variant.spec.problems):
        pytest.skip("it has one of the two at most")
    with pytest.raises(attentions.AttentionError, match="kv_tokens=37 does not say which token sees which"):
        variant.build(H, 20, D, M, causal=True, kv_tokens=37)


@pytest.mark.parametrize(
    ("asked_for", "message"),
    [
        ({"kv_heads": 3}, "kv_heads=3 must divide heads=4"),
        ({"kv_heads": 0}, "kv_heads must be a whole number of at least 1, not 0"),
        ({"kv_heads": True}, "kv_heads must be a whole number of at least 1, not True"),
        ({"kv_tokens": -1}, "kv_tokens must be a whole number of at least 1, not -1"),
    ],
)
def test_numbers_that_cannot_be(asked_for: dict[str, Any], message: str) -> None:
    with pytest.raises(attentions.AttentionError, match=message):
        attentions.build("full", heads=4, head_dim=8, tokens=20, **asked_for)
    with pytest.raises(attentions.AttentionError, match=message):
        attentions.spec("full").cost(1, 4, 20, 8, **asked_for)


def test_nystrom_says_how_it_attends_to_other_keys() -> None:
    with pytest.raises(attentions.AttentionError, match=r"kv_tokens=37 beside 20 queries .* set residual_kernel=0"):
        attentions.build("nystrom", heads=4, head_dim=8, tokens=20, anchors=6, kv_tokens=37)


@pytest.mark.parametrize("backend", ["sdpa", "chunked", "compile"])
def test_a_named_backend_that_lacks_a_problem_is_not_built(backend: str) -> None:
    if reason := attentions.why_unavailable(f"anchor:{backend}"):
        pytest.skip(reason)
    with pytest.raises(attentions.Unavailable, match=f"anchor:{backend} has no causal form; anchor:reference has"):
        attentions.build(f"anchor:{backend}", heads=2, head_dim=8, tokens=20, anchors=6, causal=True)
    work = attentions.Work(b=1, h=2, n=20, d=8, m=6, causal=True)
    assert "has no causal form" in str(
        attentions.why_unavailable(f"anchor:{backend}", device="cpu", dtype=torch.float32, work=work)
    )
    assert attentions.resolve("anchor", device="cpu", dtype=torch.float32, work=work).name == "reference"


@pytest.mark.slow
@pytest.mark.parametrize("problem", [ASKED["causal"], ASKED["grouped"], ASKED["causal-grouped"]], ids=str)
@pytest.mark.parametrize("name", ["flash:flex", "window:flex"])
def test_flex_attention_has_the_problem_too(name: str, problem: dict[str, Any], make: Any) -> None:
    implementation = make(name)
    if reason := attentions.why_unavailable(name, device="cpu"):
        pytest.skip(f"{name} {reason}")
    core, *inputs = case(implementation, problem, 300, dtype=torch.float32, phase="forward")
    reference = case(implementation.sibling("reference"), problem, 300)[0]
    with torch.no_grad():
        found, expected = core(*inputs), reference(*(x.double() for x in inputs))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def running_mean(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    if not causal:
        return v.mean(dim=-2, keepdim=True).expand_as(v)
    return v.cumsum(dim=-2) / torch.arange(1, v.shape[-2] + 1).unsqueeze(-1)


def plain_mean(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return v.mean(dim=-2, keepdim=True).expand_as(v)


def own(reference: Any, *others: attentions.Backend, **declared: Any) -> attentions.Spec:
    return attentions.Spec(
        name="mine", title="x", backends=(*others, attentions.Backend("reference", reference)), **declared
    )


def test_a_plugin_that_knows_nothing_of_problems_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its function is never given a keyword that it does not take."""
    monkeypatch.setitem(attentions.registry._plugins, "mine", own(plain_mean))
    with pytest.raises(attentions.AttentionError, match="mine declares no form for causal; it declares none of them"):
        attentions.build("mine", heads=2, head_dim=4, tokens=9, causal=True)
    q, k, v = torch.randn(3, 1, 2, 9, 4)
    assert torch.equal(attentions.build("mine", heads=2, head_dim=4, tokens=9)(q, k, v), plain_mean(q, k, v))


def test_a_plugin_declares_what_it_can_and_a_backend_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(work: attentions.Work, dtype: torch.dtype, device: torch.device) -> str | None:
        return "has no causal form" if work.causal else None

    definition = own(running_mean, attentions.Backend("quick", plain_mean, limits=limits), problems=("causal",))
    monkeypatch.setitem(attentions.registry._plugins, "mine", definition)
    q, k, v = torch.randn(3, 1, 2, 9, 4)
    core = attentions.build("mine", heads=2, head_dim=4, tokens=9, causal=True)
    torch.testing.assert_close(core(q, k, v), running_mean(q, k, v, causal=True))
    assert attentions.build("mine", heads=2, head_dim=4, tokens=9)(q, k, v).shape == v.shape
    with pytest.raises(attentions.Unavailable, match="mine:quick has no causal form"):
        attentions.build("mine:quick", heads=2, head_dim=4, tokens=9, causal=True)
    with pytest.raises(attentions.AttentionError, match="no form for kv_heads; it declares causal alone"):
        attentions.build("mine", heads=2, head_dim=4, tokens=9, kv_heads=1)


def test_a_spec_names_problems_that_there_are() -> None:
    with pytest.raises(attentions.AttentionError, match="unknown problem of mine 'casual'; did you mean 'causal'"):
        own(plain_mean, problems=("casual",))
    with pytest.raises(attentions.AttentionError, match="unknown problem of mine 'heads'"):
        own(plain_mean, refuses={"heads": "why"})
    with pytest.raises(attentions.AttentionError, match="causal is a problem, and no option may be called so"):
        own(plain_mean, options=(attentions.Option("causal", False, "x"),))


@pytest.mark.parametrize("name", ["anchor", "anchor:reference", "flash", "linear:reference"])
def test_a_causal_core_pickles(name: str) -> None:
    torch.manual_seed(0)
    core = attentions.build(name, heads=2, head_dim=4, tokens=9, anchors=3, causal=True)
    q, k, v = torch.randn(3, 1, 2, 9, 4)
    again = pickle.loads(pickle.dumps(core))
    assert torch.equal(again(q, k, v), core(q, k, v))
    torch.testing.assert_close(again(q, k, v)[:, :, 0], v[:, :, 0])


def test_the_bare_name_chooses_for_each_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[attentions.Work] = []

    def limits(work: attentions.Work, dtype: torch.dtype, device: torch.device) -> str | None:
        seen.append(work)
        return None

    definition = own(plain_mean, attentions.Backend("quick", plain_mean, limits=limits), problems=("kv_tokens",))
    monkeypatch.setitem(attentions.registry._plugins, "mine", definition)
    core = attentions.build("mine", heads=2, head_dim=4, tokens=9, kv_tokens=20)
    q = torch.randn(1, 2, 9, 4)
    for tokens in (20, 9, 5, 20):
        core(q, *torch.randn(2, 1, 2, tokens, 4))
    assert [(work.n, work.kv_tokens, work.key_tokens) for work in seen] == [(9, 20, 20), (9, None, 9), (9, 5, 5)]


def test_sequence_parallel_attention_refuses_a_problem(tmp_path: Any) -> None:
    from attentions import parallel

    core = attentions.build("linear", heads=2, head_dim=4, tokens=9, causal=True, kv_heads=1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with pytest.raises(attentions.AttentionError, match="has no form for causal=True, kv_heads=1"):
            parallel.parallelise(core)
    finally:
        torch.distributed.destroy_process_group()
