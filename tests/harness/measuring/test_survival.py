"""What a number must survive, part by part: fresh inputs, poisoned memory, the output's own look, the floor."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import making
import pytest
import torch

from harness.machine import allocator, system
from harness.measuring import calibrate, floor, poison
from harness.measuring.floor import TOLERATED, survive
from harness.measuring.inputs import PLACES, STEP, Inputs
from harness.measuring.metrics import error
from harness.measuring.outputs import WrongResult, called, called_back, fingerprint
from harness.measuring.subject import Subject, trace
from harness.store.record import Reading

CPU = torch.device("cpu")


def addresses(tensors: tuple[torch.Tensor, ...]) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in tensors)


def test_no_two_calls_have_the_same_inputs() -> None:
    inputs = Inputs([(1, 2, 64, 16)] * 3, dtype=torch.float32, device=CPU, seed=0, gradients=False)
    sets = list(itertools.islice(inputs.sets(), 4000))
    assert len({addresses(each) for each in sets}) == 4000
    assert len({addresses(each[1:]) for each in sets}) == PLACES[1] * PLACES[2]
    for before, after in itertools.pairwise(sets):
        assert all(a is not b and a.data_ptr() != b.data_ptr() for a, b in zip(before, after, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(sets[0], sets[1], strict=True))
    assert all(t.is_contiguous() and t._base is None and t.data_ptr() % 64 == 0 for t in sets[77])


def test_the_pool_takes_hardly_more_than_one_set_and_is_no_part_of_peak_memory() -> None:
    case = making.case(n=1024)
    subject = Subject(case)
    held = sum(slab.numel() for slab in subject._pool._slabs)
    assert held - 3 * 2 * 1024 * 16 == STEP * sum(places - 1 for places in PLACES)
    found = [trace(subject).peak_bytes for _ in range(3)]
    assert len(set(found)) == 1
    assert found[0] == (2 * 2 * 1024 * 1024 + 2 * 1024 * 16) * 4  # full's scores twice and its output


def test_inputs_are_renewed_below_the_same_addresses() -> None:
    subject = Subject(making.case(phase="train"))
    first = addresses(subject.inputs)
    before = [tensor.clone() for tensor in subject.inputs]
    for _ in range(3):
        subject.call()
    assert addresses(subject.inputs) != first
    subject.renew(subject.drawn(1))
    assert addresses(subject.inputs) == first
    assert all(t.grad is None and not torch.equal(t, b) for t, b in zip(subject.inputs, before, strict=True))
    subject.renew(subject.drawn(0))
    assert all(torch.equal(t, b) for t, b in zip(subject.inputs, before, strict=True))


def test_a_model_and_a_layer_have_fresh_inputs_too() -> None:
    subject = Subject(making.case(attention="anchor", m=8, scope="layer"))
    seen = {addresses(subject.inputs) for _ in range(10) if subject.call() is not None}
    assert len(seen) == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_what_is_not_written_is_nothing_to_be_taken_for_a_result(dtype: torch.dtype) -> None:
    with poison.poisoned(CPU):
        fresh = [torch.empty(size, dtype=dtype) for size in (1 << 12, 1 << 16, 1 << 21)]
    for tensor in fresh:
        assert not (tensor.double().abs() < 1e30).any()


def test_where_malloc_cannot_be_told_pytorch_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "glibc", lambda: None)
    with poison.poisoned(CPU):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.empty(1000).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_one_bit_anywhere_changes_the_fingerprint() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.complex64):
        tensor = torch.arange(2 * 3 * 8).reshape(2, 3, 8).to(dtype)
        before = fingerprint(tensor)
        other = tensor.clone()
        other[1, 2, 7] += 1
        assert not torch.equal(fingerprint(other), before)
        assert not torch.equal(fingerprint(tensor.flip(1)), before)
        assert torch.equal(fingerprint(tensor.transpose(0, 1).contiguous().transpose(0, 1)), before)
    assert fingerprint(torch.empty(0)).sum() == 0
    assert fingerprint(torch.tensor(3.0)).numel() == 1


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda q, k, v: v[:, :, :1].expand(v.shape), r"share memory: strides \(\d+, \d+, 0, 1\)"),
        (lambda q, k, v: v, "lies in an input's memory"),
        (lambda q, k, v: v.to_sparse(), "layout|plain|sparse"),
        (lambda q, k, v: [v], "the output is a list, not a plain"),
        (lambda q, k, v: torch.nn.Parameter(v.clone()), "the output is a Parameter, not a plain"),
        (lambda q, k, v: v.clone().as_strided(v.shape, (1, 64, 2, 1)), "share memory"),
    ],
)
def test_an_output_is_looked_at_before_its_values(returned: Any, message: str) -> None:
    subject = Subject(making.case())
    subject.module.forward = returned
    with pytest.raises(WrongResult, match=message):
        called(subject)


def test_a_transposed_output_is_an_output() -> None:
    subject = Subject(making.case())
    subject.module.forward = lambda q, k, v: v.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(called(subject), subject.inputs[2])


def test_an_input_written_to_in_backward_is_seen() -> None:
    subject = Subject(making.case(phase="train"))

    class Spoils(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            ctx.v = v
            return q + k + v

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            ctx.v.data[0, 0, 0, 0] += 1
            return grad, grad, grad

    subject.module.forward = Spoils.apply
    with pytest.raises(WrongResult, match="in place"):
        called_back(subject, subject.gradient)


def test_a_right_call_passes_the_second_check_in_every_phase() -> None:
    for phase in ("forward", "backward", "train"):
        for attention, m in (("full", None), ("anchor", 8)):
            subject = Subject(making.case(attention=attention, m=m, phase=phase, n=200))
            for _ in range(3):
                subject.call()
            error.check_again(subject)


def test_the_floor_claims_only_what_cannot_be_otherwise() -> None:
    ceilings = {"copy_gb_per_s": 10.0, "tflops": 0.1}
    in_cache = floor.floor(1 << 20, 10**8, cache_bytes=32 << 20, device="cpu", **ceilings)
    assert (in_cache.ceiling, in_cache.milliseconds) == ("product", 10**8 / 0.1 / 1e9)
    assert in_cache.why == "1e+08 FLOP at 0.1 TFLOP/s"
    streamed = floor.floor(1 << 30, 0, cache_bytes=32 << 20, device="cpu", **ceilings)
    assert streamed.ceiling == "copy"
    assert streamed.milliseconds == pytest.approx(((1 << 30) - (32 << 20)) / 15e6)  # 10 GB/s and half as much again
    on_gpu = floor.floor(1 << 30, 0, cache_bytes=32 << 20, device="cuda", **ceilings)
    assert on_gpu.milliseconds == pytest.approx(1.5 * streamed.milliseconds)
    assert floor.floor(1 << 40, 0, cache_bytes=None, device="cpu", **ceilings).milliseconds == 0
    assert streamed.holds(streamed.milliseconds / TOLERATED)
    assert not streamed.holds(streamed.milliseconds / (TOLERATED + 0.01))


@pytest.fixture
def measured_again(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the best of many products will turn out to be, call by call, in TFLOP/s."""
    rates: list[float] = []
    monkeypatch.setattr(calibrate, "highest_product", lambda device, dtype, **how: rates.pop(0))
    monkeypatch.setattr(calibrate, "highest_copy", lambda device: pytest.fail("bytes do not bind here"))
    return rates


def taken(milliseconds: float, ceilings: dict[str, Any], dtype: str = "float32") -> str:
    subject: Any = SimpleNamespace(
        device=CPU, case=making.case(dtype=dtype), spec=SimpleNamespace(model=None), backend=None, work=None
    )
    latency = Reading(metric="latency", value=milliseconds)
    return survive(subject, latency, moved=1000, flops=10**8, ceilings=ceilings)


def test_a_ceiling_that_a_call_passes_is_measured_again_before_anyone_is_blamed(measured_again: list[float]) -> None:
    ceilings = {"copy_gb_per_s": 10.0, "matmul_tflops": {"float32": 0.04, "bfloat16": 1.0}}
    assert taken(2.5, ceilings) == ""  # 1e8 FLOP at 0.04 TFLOP/s take that
    measured_again += [0.03, 0.1]
    assert taken(1.0, ceilings) == (
        "; the ceilings were too low and were measured again: copy 10 → 10 GB/s, product 0.04 → 0.1 TFLOP/s"
    )
    assert ceilings == {"copy_gb_per_s": 10.0, "matmul_tflops": {"float32": 0.1, "bfloat16": 1.0}}
    measured_again += [0.1, 0.11, 0.09]
    with pytest.raises(WrongResult, match=r"latency 0\.01 ms is less than this device needs: 0\.9091 ms for 1e\+08"):
        taken(0.01, ceilings)
    assert measured_again == []


def test_a_part_that_is_computed_in_float32_may_be_quicker_than_narrow_products(measured_again: list[float]) -> None:
    """Nyström's inverse, on a CPU whose bfloat16 products take twice the time."""
    ceilings = {"copy_gb_per_s": 10.0, "matmul_tflops": {"bfloat16": 0.1}}
    measured_again += [0.1, 0.1, 0.1, 0.2]
    assert taken(0.6, ceilings, "bfloat16") == "; quicker than a product of bfloat16, not than one of float32"
    assert ceilings["matmul_tflops"] == {"bfloat16": 0.1, "float32": 0.2}, "what validate holds the row against"
    measured_again += [0.1, 0.1, 0.1, 0.15]
    with pytest.raises(WrongResult, match=r"at 0\.1 TFLOP/s; the call does not do the work"):
        taken(0.4, ceilings, "bfloat16")


def test_ceilings_are_bounded_whatever_the_arithmetic_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 on a CPU without instructions for it: 93 s for matrices of 2048."""
    now = [0.0]

    def multiply(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> None:
        now[0] += 2 * left.shape[0] ** 3 / 1.85e8

    monkeypatch.setattr(calibrate.torch, "mm", multiply)
    monkeypatch.setattr(calibrate.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(calibrate, "_copy", lambda device, size: 10.0)
    found = calibrate.ceilings("cpu", ["float16"])
    assert found["matmul_size"] == {"float16": 256}
    assert found["matmul_tflops"]["float16"] == pytest.approx(1.85e8 / 1e12)
    assert now[0] < 3
    monkeypatch.setattr(calibrate.torch, "mm", lambda a, b, *, out: now.__setitem__(0, now[0] + a.shape[0] ** 3 / 1e11))
    assert "matmul_size" not in calibrate.ceilings("cpu", ["float32"])


def test_last_level_caches_are_added_up_once_each(tmp_path: Path) -> None:
    assert system.last_level_bytes(tmp_path, {0, 1}) is None
    for core, shared in ((0, "0-1"), (1, "0-1"), (2, "2-3")):
        for index, (level, size) in enumerate((("1", "48K"), ("2", "1024K"), ("3", "32768K"))):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cache/index{index}"
            folder.mkdir(parents=True)
            (folder / "level").write_text(level)
            (folder / "size").write_text(size)
            (folder / "shared_cpu_list").write_text(shared if level == "3" else str(core))
    assert system.last_level_bytes(tmp_path, {0, 1}) == 32 << 20
    assert system.last_level_bytes(tmp_path, {0, 2}) == 64 << 20
