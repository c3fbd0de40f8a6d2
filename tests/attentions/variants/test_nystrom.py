"""Nyström attention: its segments, its pseudo-inverse, its residual, and what must not depend on what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attentions
from attentions.variants.nystrom import depthwise, pseudo_inverse, reference, segment_means


def build(*, tokens: int, anchors: int, heads: int = 2, **options: Any) -> Any:
    torch.manual_seed(0)
    core = attentions.build("nystrom", heads=heads, head_dim=8, tokens=tokens, anchors=anchors, **options)
    return core.double()


def inputs(b: int, n: int, *, heads: int = 2) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(b, heads, n, 8, dtype=torch.float64) for _ in range(3))


@pytest.mark.parametrize(("n", "m"), [(8, 4), (8, 1), (8, 7), (197, 30), (197, 64), (5, 2), (100, 99)])
def test_segments_are_consecutive_and_differ_by_one(n: int, m: int) -> None:
    x = torch.randn(2, 3, n, 4, dtype=torch.float64)
    short = (n // m + 1) * m - n
    lengths = [n // m] * short + [n // m + 1] * (m - short)
    assert sum(lengths) == n
    expected = torch.stack([part.mean(dim=-2) for part in x.split(lengths, dim=-2)], dim=-2)
    torch.testing.assert_close(segment_means(x, m), expected)


def test_pseudo_inverse_is_the_formula() -> None:
    a = torch.softmax(torch.randn(2, 3, 5, 5, dtype=torch.float64), dim=-1)
    eye = torch.eye(5, dtype=torch.float64)
    found = pseudo_inverse(a, 6)
    for i in range(2):
        for j in range(3):
            one = a[i, j]
            z = one.T / (one.abs().sum(dim=0).max() * one.abs().sum(dim=1).max())
            for _ in range(6):
                z = 0.25 * z @ (13 * eye - one @ z @ (15 * eye - one @ z @ (7 * eye - one @ z)))
            torch.testing.assert_close(found[i, j], z)


def test_pseudo_inverse_converges_where_a_is_well_conditioned() -> None:
    a = torch.softmax(4 * torch.eye(6, dtype=torch.float64) + 0.1 * torch.randn(1, 1, 6, 6).double(), dim=-1)
    torch.testing.assert_close(pseudo_inverse(a, 12), torch.linalg.pinv(a))


def test_is_the_formula() -> None:
    q, k, v = inputs(2, 21)
    core = build(tokens=21, anchors=4, residual_kernel=5)
    scale = 8**-0.5
    q_means, k_means = segment_means(q, 4), segment_means(k, 4)
    first = torch.softmax(q @ k_means.transpose(-2, -1) * scale, dim=-1)
    middle = torch.softmax(q_means @ k_means.transpose(-2, -1) * scale, dim=-1)
    last = torch.softmax(q_means @ k.transpose(-2, -1) * scale, dim=-1)
    expected = first @ pseudo_inverse(middle, 6) @ last @ v
    padded = torch.nn.functional.pad(v, (0, 0, 2, 2))
    for tap in range(5):
        expected = expected + core.residual.weight[:, 0, tap].unsqueeze(-1) * padded[:, :, tap : tap + 21]
    torch.testing.assert_close(core(q, k, v), expected)


def test_does_not_depend_on_its_batch_neighbours() -> None:
    core = build(tokens=20, anchors=6)
    q, k, v = inputs(3, 20)
    before = core(q, k, v)[0]
    for tensor in (q, k, v):
        tensor[1:] *= 50
    torch.testing.assert_close(core(q, k, v)[0], before, rtol=1e-12, atol=1e-12)


def test_heads_do_not_depend_on_each_other() -> None:
    core = build(tokens=20, anchors=6, heads=3)
    q, k, v = inputs(1, 20, heads=3)
    before = core(q, k, v)[:, 0]
    for tensor in (q, k, v):
        tensor[:, 1:] *= 50
    torch.testing.assert_close(core(q, k, v)[:, 0], before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("m", [12, 13, 40])
def test_as_many_landmarks_as_tokens_is_exact_attention_and_says_so(m: int) -> None:
    q, k, v = inputs(2, 12)
    full = attentions.build("full", heads=2, head_dim=8, tokens=12)
    torch.testing.assert_close(build(tokens=12, anchors=m, residual_kernel=0)(q, k, v), full(q, k, v))
    core = build(tokens=12, anchors=m)
    torch.testing.assert_close(core(q, k, v), full(q, k, v) + depthwise(v, core.residual.weight))
    note = attentions.spec("nystrom").note(attentions.Work(b=1, h=1, n=12, d=8, m=m))
    assert note == f"exact attention: {m} landmarks are not fewer than 12 tokens"


def test_fewer_landmarks_say_nothing() -> None:
    assert attentions.spec("nystrom").note(attentions.Work(b=1, h=1, n=12, d=8, m=11)) == ""


def test_parameters() -> None:
    assert {name: tuple(p.shape) for name, p in build(tokens=9, anchors=3, heads=4).named_parameters()} == {
        "residual.weight": (4, 1, 33, 1)
    }
    assert not list(build(tokens=9, anchors=3, residual_kernel=0).parameters())


@pytest.mark.parametrize("kernel", [2, 32])
def test_an_even_kernel_is_refused(kernel: int) -> None:
    with pytest.raises(
        attentions.AttentionError, match=f"nystrom: option residual_kernel={kernel} is not valid; .* odd"
    ):
        build(tokens=9, anchors=3, residual_kernel=kernel)


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 12, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_depthwise_is_a_sum_of_shifts(heads: int, n: int, dtype: torch.dtype) -> None:
    """With two threads and one head, oneDNN's own weight gradient corrupts memory where n is less than the filter."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    v = torch.randn(2, heads, n, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(heads, 1, 33, 1, dtype=dtype, requires_grad=True)
    padded = torch.nn.functional.pad(v, (0, 0, 16, 16))
    expected = sum(weight[:, 0, tap].unsqueeze(-1) * padded[:, :, tap : tap + n] for tap in range(33))
    upstream = torch.randn_like(v)
    found = depthwise(v, weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(
        torch.autograd.grad(found, (v, weight), upstream),
        torch.autograd.grad(expected, (v, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    torch.set_num_threads(threads)


def test_narrow_inputs_take_softmax_and_inverse_in_float32() -> None:
    q, k, v = (x.bfloat16() for x in inputs(1, 64))
    found = reference(q, k, v, None, landmarks=16, iterations=6)
    exact = reference(q.double(), k.double(), v.double(), None, landmarks=16, iterations=6)
    assert found.dtype == torch.bfloat16
    error = (found.double() - exact).norm() / exact.norm()
    a = torch.softmax(segment_means(q, 16) @ segment_means(k, 16).transpose(-2, -1) / 8**0.5, dim=-1)
    assert a.dtype == torch.bfloat16
    assert error < 0.05


@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize("size", [(2, 8, 1024, 64, 32), (1, 4, 2048, 16, 64), (1, 12, 512, 64, 64)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_takes_what_is_predicted(
    dtype: torch.dtype, size: tuple[int, ...], phase: str, measure_peak: Any, make: Any
) -> None:
    """float16 too, whose convolution on a CPU took three times that: a matrix of all shifts of a head."""
    b, h, n, d, m = size
    implementation = make("nystrom:reference")
    core, inputs = implementation.build(h, n, d, m, dtype=dtype), implementation.inputs(b, h, n, d, dtype=dtype)

    def call() -> torch.Tensor:
        with torch.set_grad_enabled(phase == "train"):
            out = core(*inputs)
        if phase == "train":
            out.backward(torch.ones_like(out))
            for tensor in (*inputs, *core.parameters()):
                tensor.grad = None
        return out

    call()
    upstream = 2 * b * h * n * d if phase == "train" else 0
    predicted = implementation.spec.cost(*size, phase, itemsize=2).peak
    assert measure_peak(call) == pytest.approx(predicted + upstream, rel=0.2)


@pytest.mark.parametrize("h", [1, 3])
def test_float16_is_convolved_as_float32(h: int) -> None:
    torch.manual_seed(0)
    v, weight = torch.randn(2, h, 50, 20).half(), torch.randn(h, 1, 33, 1).half()
    torch.testing.assert_close(depthwise(v, weight), depthwise(v.float(), weight.float()).half(), rtol=0, atol=0)
