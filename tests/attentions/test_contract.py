"""What every implementation of every variant must do, whatever it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import FACTOR, disagreements, errors, results
from torch import Tensor
from torch.func import functional_call

import attentions

SIZES = [(2, 3, 64, 16, 8), (1, 2, 197, 8, 30), (2, 1, 12, 8, 12), (1, 2, 10, 16, 16), (1, 1, 1, 8, 1)]
SIZES_IDS = ["divisible", "n197-m30", "m-equals-n", "m-above-n", "one-token"]
DTYPES = [torch.float32, torch.bfloat16]
# anchor:sdpa adds each token's −lse to its logits inside a kernel that takes exponentials to base 2: a logit of a dozen
# is rounded five times where the reference rounds it once, and those roundings are the error of a weight.
LOOSER = {("anchor:sdpa", "cuda", torch.float32): 2 * FACTOR}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": lambda x: x,
    "tokens-first": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "strided": lambda x: torch.stack((x, x), dim=-1).flatten(-2)[..., ::2],
    "expanded": lambda x: x[:1].expand_as(x),
}

sizes = pytest.mark.parametrize("size", SIZES, ids=SIZES_IDS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def upstream_of(implementation: Any, b: int, h: int, n: int, d: int) -> Tensor:
    return torch.randn(b, h, n, d, generator=torch.Generator().manual_seed(2)).to(implementation.device)


def check_agreement(
    implementation: Any, size: tuple[int, ...], dtype: torch.dtype, *, layout: str = "dense", phase: str = "train"
) -> None:
    """Output and, for phase train, every gradient against the reference in float64, for inputs laid out in memory so.

    An implementation without a backward pass is asked for its output alone.
    """
    b, h, n, d, m = size
    if phase == "train" and implementation.refusal(b, h, n, d, m, dtype=dtype, phase="train"):
        phase = "forward"
    implementation.skip_unless_runs(b, h, n, d, m, dtype=dtype, phase=phase)
    upstream = LAYOUTS[layout](upstream_of(implementation, b, h, n, d).to(dtype)) if phase == "train" else None
    reference = implementation.sibling("reference")

    def run(which: Any, precision: torch.dtype) -> dict[str, Tensor]:
        core = which.build(h, n, d, m, dtype=dtype).to(precision)  # parameters rounded to dtype first
        inputs = (x.detach().to(precision) for x in which.inputs(b, h, n, d, dtype=dtype))
        return results(core, *(LAYOUTS[layout](x).requires_grad_(upstream is not None) for x in inputs), upstream)

    found, plain, exact = run(implementation, dtype), run(reference, dtype), run(reference, torch.float64)
    factor = LOOSER.get((implementation.name, implementation.device, dtype), FACTOR)
    assert not disagreements(found, plain, exact, dtype=dtype, upstream=upstream, factor=factor)


@sizes
@dtypes
def test_agrees_with_float64(everywhere: Any, size: tuple[int, ...], dtype: torch.dtype) -> None:
    check_agreement(everywhere, size, dtype)


@dtypes
def test_eager_code_agrees_on_a_gpu(eager: Any, dtype: torch.dtype) -> None:
    """The code that the CPU's tests have gone through; there it is one size."""
    check_agreement(eager, SIZES[1], dtype)


@sizes
@dtypes
def test_shape_dtype_and_finite(implementation: Any, size: tuple[int, ...], dtype: torch.dtype) -> None:
    b, h, n, d, m = size
    implementation.skip_unless_runs(b, h, n, d, m, dtype=dtype)
    core = implementation.build(h, n, d, m, dtype=dtype)
    found = results(
        core, *implementation.inputs(b, h, n, d, dtype=dtype), upstream_of(implementation, b, h, n, d)
    )  # which sees to shape and dtype
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


@sizes
def test_float64_backends_are_the_same_function(implementation: Any, size: tuple[int, ...]) -> None:
    b, h, n, d, m = size
    implementation.skip_unless_runs(b, h, n, d, m, dtype=torch.float64)
    upstream = upstream_of(implementation, b, h, n, d)
    mine, theirs = (
        results(which.build(h, n, d, m, dtype=torch.float64), *which.inputs(b, h, n, d, dtype=torch.float64), upstream)
        for which in (implementation, implementation.sibling("reference"))
    )
    assert all(value < 1e-12 for value in errors(mine, theirs, upstream).values())


def test_gradcheck(variant: Any) -> None:
    b, h, n, d, m = 1, 2, 5, 3, 2
    core = variant.build(h, n, d, m, dtype=torch.float64)
    q, k, v = variant.inputs(b, h, n, d, dtype=torch.float64)
    names = [name for name, _ in core.named_parameters()]

    def call(q: Tensor, k: Tensor, v: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(core, dict(zip(names, parameters, strict=True)), (q, k, v))

    assert torch.autograd.gradcheck(call, (q, k, v, *core.parameters()))


def test_deterministic(everywhere: Any) -> None:
    b, h, n, d, m = 2, 3, 64, 16, 8
    dtype = _some_dtype(everywhere, b, h, n, d, m)
    core = everywhere.build(h, n, d, m, dtype=dtype)
    upstream = upstream_of(everywhere, b, h, n, d)
    first, second = (results(core, *everywhere.inputs(b, h, n, d, dtype=dtype), upstream) for _ in range(2))
    checked = first if everywhere.device == "cpu" else ("out",)  # a GPU's fused backward may add in any order
    assert all(torch.equal(first[name], second[name]) for name in checked)


def test_batch_invariance(everywhere: Any) -> None:
    b, h, n, d, m = 3, 2, 50, 16, 8
    dtype = _some_dtype(everywhere, b, h, n, d, m)
    core = everywhere.build(h, n, d, m, dtype=dtype)
    inputs = [x.detach() for x in everywhere.inputs(b, h, n, d, dtype=dtype)]
    with torch.no_grad():
        together = core(*inputs)
        for i in range(b):
            alone = core(*(x[i : i + 1] for x in inputs))
            torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_non_contiguous(everywhere: Any, layout: str) -> None:
    size = (2, 3, 20, 16, 8)
    dtype = torch.float32 if everywhere.refusal(*size, dtype=torch.float32) is None else torch.bfloat16
    check_agreement(everywhere, size, dtype, layout=layout)


def test_writes_all_it_allocates(everywhere: Any, poisoned: None) -> None:
    b, h, n, d, m = 1, 2, 37, 16, 8
    dtype = _some_dtype(everywhere, b, h, n, d, m)
    core = everywhere.build(h, n, d, m, dtype=dtype)
    found = results(core, *everywhere.inputs(b, h, n, d, dtype=dtype), upstream_of(everywhere, b, h, n, d))
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


def test_fewer_tokens_than_built_for(implementation: Any) -> None:
    b, h, n, d, m = 1, 2, 24, 16, 8
    dtype = _some_dtype(implementation, b, h, n, d, m)
    core = implementation.build(h, 2 * n, d, m, dtype=dtype)
    assert core(*implementation.inputs(b, h, n, d, dtype=dtype)).shape == (b, h, n, d)


@sizes
def test_exact_variants_equal_full(exact: Any, size: tuple[int, ...]) -> None:
    b, h, n, d, m = size
    dtype = _some_dtype(exact, b, h, n, d, m)
    full = attentions.build("full:reference", heads=h, head_dim=d, tokens=n).to(exact.device, torch.float64)
    upstream = upstream_of(exact, b, h, n, d).to(dtype)
    inputs = exact.inputs(b, h, n, d, dtype=dtype)
    expected = results(full, *(x.detach().double().requires_grad_() for x in inputs), upstream)
    found = results(exact.build(h, n, d, m, dtype=dtype), *inputs, upstream)
    limit = 40 * torch.finfo(dtype).eps
    assert all(value < limit for value in errors(found, expected, upstream).values())


@pytest.mark.slow
def test_compiled_backend(compiled: Any) -> None:
    """Forward alone on a CPU, where a backward pass takes the compiler as long again."""
    check_agreement(
        compiled, (1, 2, 197, 16, 30), torch.float32, phase="forward" if compiled.device == "cpu" else "train"
    )


@pytest.mark.slow
def test_compiled_backend_in_bfloat16(compiled: Any) -> None:
    if compiled.device == "cpu":
        pytest.skip("what the compiler makes for a CPU is tested in float32")
    check_agreement(compiled, (1, 2, 197, 16, 30), torch.bfloat16)


def test_backends_share_parameters(variant: Any) -> None:
    definition = variant.spec
    running = [x for x in definition.backends if attentions.why_unavailable(f"{definition.name}:{x.name}") is None]
    states = [variant.sibling(x.name).build(2, 16, 8, 4).state_dict() for x in running]
    states.append(attentions.build(definition.name, heads=2, head_dim=8, tokens=16, anchors=4).state_dict())
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in states]
    assert all(shape == shapes[0] for shape in shapes)


def test_bare_name_takes_the_best_that_runs(variant: Any) -> None:
    definition = variant.spec
    work = attentions.Work(b=1, h=2, n=16, d=8, m=4, options=dict(definition.defaults))
    cpu = torch.device("cpu")
    case = {"device": cpu, "dtype": torch.float32, "work": work}
    running = [
        backend
        for backend in definition.candidates(work, torch.float32, cpu)
        if attentions.why_unavailable(f"{definition.name}:{backend.name}", **case) is None
    ]
    if not running:
        with pytest.raises(attentions.Unavailable, match=definition.name):
            attentions.resolve(definition.name, **case)
        return
    assert attentions.resolve(definition.name, **case) is running[0]
    torch.manual_seed(0)
    bare = attentions.build(definition.name, heads=2, head_dim=8, tokens=16, anchors=4)
    q, k, v = variant.inputs(1, 2, 16, 8)
    named = variant.sibling(running[0].name).build(2, 16, 8, 4)
    with torch.no_grad():
        torch.testing.assert_close(bare(q, k, v), named(q, k, v), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 0}, "heads must be a whole number of at least 1, not 0"),
        ({"head_dim": -4}, "head_dim must be a whole number of at least 1, not -4"),
        ({"tokens": True}, "tokens must be a whole number"),
        ({"flavour": "red"}, "unknown option of .* 'flavour'; valid: "),
    ],
)
def test_bad_sizes_and_options(variant: Any, wrong: dict[str, Any], message: str) -> None:
    given = {"heads": 2, "head_dim": 8, "tokens": 16, "anchors": 4} | wrong
    with pytest.raises(attentions.AttentionError, match=message):
        attentions.build(variant.name, **given)


@pytest.mark.parametrize("anchors", [None, 0, -1, True])
def test_bad_anchors(variant: Any, anchors: Any) -> None:
    definition = variant.spec
    if not definition.bottleneck:
        core = attentions.build(variant.name, heads=2, head_dim=8, tokens=16, anchors=anchors)
        assert not (definition.exact and list(core.parameters()))  # exact variants ignore anchors
        return
    with pytest.raises(attentions.AttentionError, match=rf"{definition.name}: anchors \(its {definition.bottleneck}\)"):
        attentions.build(variant.name, heads=2, head_dim=8, tokens=16, anchors=anchors)


def test_every_option_is_validated(variant: Any) -> None:
    for option in variant.spec.options:
        assert option.parse(option.default, variant=variant.name) == option.default
        assert option.parse(str(option.default), variant=variant.name) == option.default
        with pytest.raises(attentions.AttentionError, match=rf"option {option.name}="):
            option.parse("no such value", variant=variant.name)


def test_declares_itself(variant: Any) -> None:
    definition = variant.spec
    assert definition.title
    assert definition.paper
    assert definition.model is not None
    assert definition.exponents is not None
    assert not (definition.exact and definition.bottleneck)
    assert definition.floor == (definition.name == "none")
    assert all(backend.summary for backend in definition.backends)
    assert all(option.help for option in definition.options)


def _some_dtype(implementation: Any, b: int, h: int, n: int, d: int, m: int) -> torch.dtype:
    """The widest precision that this implementation trains in."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        if implementation.refusal(b, h, n, d, m, dtype=dtype) is None:
            return dtype
    pytest.skip(f"{implementation.name} trains in no precision at this size")
