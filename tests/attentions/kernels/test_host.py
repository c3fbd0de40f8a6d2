"""The host's share of a call: what it launches, in which memory, and how much Python it runs. Needs no device."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from driverless import Driver, entered, without_device
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from triton import knobs

from attentions.kernels.anchor import cost, devices, launching, passes, plan, tuning
from attentions.kernels.anchor.operators import anchor_attention, anchor_attention_fused

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here")

B, H, N, D, M = 2, 3, 64, 64, 64
Function = Callable[[], Any]


@pytest.fixture
def driver() -> Iterator[Driver]:
    with without_device() as driver:
        yield driver


@pytest.fixture
def launched(driver: Driver) -> list[tuple[Any, ...]]:
    """What compiled kernels are called with, from now on."""
    seen: list[tuple[Any, ...]] = []
    driver.launched = lambda *arguments: seen.append(arguments)
    return seen


def tensors(*, grad: bool = False, layout: str = "heads", shift: int = 0) -> tuple[torch.Tensor, ...]:
    """k, v (b, h, n, d) and anchors; shift: elements by which k's address is off a multiple of 16 bytes."""
    shape = (B, N, H, D) if layout == "tokens" else (B, H, N, D)
    k, v = (torch.zeros(B * H * N * D + 8, dtype=torch.bfloat16)[x : x + B * H * N * D].view(shape) for x in (shift, 0))
    if layout == "tokens":
        k, v = k.transpose(1, 2), v.transpose(1, 2)
    return tuple(x.requires_grad_(grad) for x in (k, v, torch.zeros(M, D)))


def numbers(launch: tuple[Any, ...]) -> tuple[Any, ...]:
    """What was launched, apart from addresses and hooks: tensors count as their addresses, which Triton's has."""
    return tuple("address" if isinstance(x, torch.Tensor) or (isinstance(x, int) and x > 2**31) else x
                 for x in (*launch[:6], *launch[9:]))  # fmt: skip


def addresses(launch: tuple[Any, ...]) -> list[int]:
    found = [x.data_ptr() if isinstance(x, torch.Tensor) else x for x in launch[9:]]
    return [x for x in found if isinstance(x, int) and x > 2**31]


@pytest.mark.parametrize("schedule", ["split", "single"])
@pytest.mark.parametrize("layout", ["heads", "tokens"])
def test_a_known_call_launches_what_triton_would(launched: list[Any], layout: str, schedule: str) -> None:
    """The first call goes through Triton's launcher, the second does not: same kernels, numbers and constants."""
    k, v, anchors = tensors(grad=True, layout=layout)

    def both() -> list[Any]:
        launched.clear()
        out = anchor_attention(k, v, anchors, schedule=schedule)
        torch.autograd.grad(out, (k, v, anchors), torch.ones(out.shape, dtype=out.dtype))
        return list(launched)

    by_triton, direct = both(), both()
    assert any(isinstance(x, torch.Tensor) for launch in by_triton for x in launch)
    assert not any(isinstance(x, torch.Tensor) for launch in direct for x in launch)
    assert [numbers(launch) for launch in direct] == [numbers(launch) for launch in by_triton]
    for one, other in zip(direct, by_triton, strict=True):
        assert [x == k.data_ptr() for x in addresses(one)] == [x == k.data_ptr() for x in addresses(other)]
        assert [x == v.data_ptr() for x in addresses(one)] == [x == v.data_ptr() for x in addresses(other)]


def test_a_fused_call_reads_and_writes_both_halves(launched: list[Any]) -> None:
    kv, anchors = torch.zeros(B, N, 2, H, D, dtype=torch.bfloat16, requires_grad=True), torch.zeros(M, D)
    for _ in range(2):
        launched.clear()
        out = anchor_attention_fused(kv, anchors)
        (grad,) = torch.autograd.grad(out, kv, torch.ones_like(out))
        gathered, written = addresses(launched[0]), addresses(launched[-2])
        assert gathered[:2] == [kv.data_ptr(), kv.data_ptr() + H * D * 2]
        assert {grad.data_ptr(), grad.data_ptr() + H * D * 2} <= set(written)
    assert grad.shape == kv.shape


def test_no_kernel_meets_an_odd_address(launched: list[Any]) -> None:
    """Triton compiles kernels for addresses that are multiples of 16: another is copied, known call or not."""
    g = torch.ones(B, H, N, D, dtype=torch.bfloat16)
    for shift in (0, 0, 1, 1, 0):
        k, v, anchors = tensors(shift=shift, grad=True)
        assert (k.data_ptr() % 16 == 0) == (shift == 0)
        for leaves in ((k, v, anchors), (v, k, anchors)):
            launched.clear()
            torch.autograd.grad(anchor_attention(*leaves), leaves, g)
            given = [address for launch in launched for address in addresses(launch)]
            assert all(address % 16 == 0 for address in given)
            assert (k.data_ptr() in given) == (shift == 0)
            assert v.data_ptr() in given
        launched.clear()
        kv = torch.zeros(2 * B * N * H * D + 8, dtype=torch.bfloat16)[shift : shift + 2 * B * N * H * D]
        kv = kv.view(B, N, 2, H, D).requires_grad_()
        torch.autograd.grad(anchor_attention_fused(kv, anchors), kv, torch.ones(B, N, H, D, dtype=torch.bfloat16))
        given = [address for launch in launched for address in addresses(launch)]
        assert all(address % 16 == 0 for address in given)
        assert (kv.data_ptr() in given) == (shift == 0)
    assert len(passes._known) == 4  # forward and backward, apart and fused: the copies are known calls


def test_kernels_are_given_strides_that_triton_knows(launched: list[Any]) -> None:
    """Of odd rows, of a lone head or batch, whatever their strides say, of heads that are padded."""
    wide = torch.zeros(2, 3, 40, 72, dtype=torch.bfloat16)
    odd = torch.zeros(1, 3, 40, 65, dtype=torch.bfloat16)[..., 1:]
    one = wide[:1, :, :, :64], wide[:, 1:2, :, :64]
    for k in (
        wide[..., :64],
        wide[..., 8:72],
        *one,
        wide[..., :33],
        wide[..., :36],
        odd,
        wide.transpose(1, 2)[..., :40],
    ):
        launched.clear()
        anchors = torch.zeros(30, k.shape[-1])
        for _ in range(2):
            out = anchor_attention(k, k, anchors)
            assert out.shape == k.shape
        strides = [x for launch in launched for x in launch[9:] if isinstance(x, tuple) and len(x) == 3]
        assert len(strides) >= 3 * 2
        assert all(getattr(each, "value", each) % 16 == 0 for x in strides for each in x)


@pytest.mark.parametrize("schedule", ["split", "single"])
def test_every_call_has_its_own_memory(driver: Driver, monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    """Nothing that a kernel writes belongs to a plan: calls on other streams, and in CUDA graphs, cannot meet in it."""
    alive: list[torch.Tensor] = []

    def allocate(*shape: Any, **keywords: Any) -> torch.Tensor:
        alive.append(torch.empty_strided(*shape, **keywords).fill_(1))
        return alive[-1]

    k, v, anchors = tensors(grad=True)
    monkeypatch.setattr(plan, "allocate", allocate)
    for _ in range(2):  # what is asked of the second holds for every later one
        anchor_attention(k, v, anchors, schedule=schedule)
    seen: list[set[int]] = []
    driver.launched = lambda *arguments: seen[-1].update(x for x in arguments[9:] if isinstance(x, int) and x > 2**31)
    for _ in range(2):
        seen.append(set())
        anchor_attention(k, v, anchors, schedule=schedule)
    assert (seen[0] & seen[1]) <= {x.data_ptr() for x in (k, v, anchors)}
    assert len(seen[0]) > 4


@pytest.mark.parametrize("schedule", ["split", "single"])
def test_a_known_call_allocates_what_the_cost_model_says(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    allocated: list[int] = []

    def allocate(*shape: Any, **keywords: Any) -> torch.Tensor:
        tensor = torch.empty_strided(*shape, **keywords)
        allocated.append(tensor.nbytes)
        return tensor

    k, v, anchors = tensors()
    monkeypatch.setattr(plan, "allocate", allocate)
    anchor_attention(k, v, anchors, schedule=schedule)
    allocated.clear()
    anchor_attention(k, v, anchors, schedule=schedule)
    monkeypatch.setattr(cost, "H100", devices.INTERPRETER)  # what a plan takes the CPU for
    size = {"b": B, "h": H, "n": N, "d": D, "m": M}
    declared = cost.peak(**size, dtype=torch.bfloat16, phase="forward", schedule=schedule)
    assert declared <= sum(allocated) < declared + plan.ALIGNMENT


def python_calls(function: Function) -> int:
    """Functions of Python that a known call enters, this one not counted."""
    return entered(function)[0]


class Nothing(torch.autograd.Function):
    """What PyTorch itself runs of an autograd function."""

    @staticmethod
    def forward(ctx: Any, k: torch.Tensor, v: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        return k.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return g, g, None


@pytest.mark.parametrize("schedule", ["split", "single"])
def test_a_known_call_runs_little_python(monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    """Ceilings of what is counted with torch 2.15 and 2.11, by any schedule: launches enter no function of Python."""
    k, v, anchors = tensors()
    kv, leaves, g = torch.zeros(B, N, 2, H, D, dtype=torch.bfloat16), tensors(grad=True), torch.zeros_like(k)
    fused, back = [x.detach().requires_grad_() for x in (kv, anchors)], torch.zeros(B, N, H, D, dtype=torch.bfloat16)

    def forward(*given: torch.Tensor) -> torch.Tensor:
        return anchor_attention(*given, schedule=schedule)

    def train() -> None:
        torch.autograd.grad(forward(*leaves), leaves, g)

    def train_fused() -> None:
        torch.autograd.grad(anchor_attention_fused(*fused, schedule=schedule), fused, back)

    def train_nothing() -> None:
        torch.autograd.grad(Nothing.apply(*leaves), leaves, g, allow_unused=True)

    once, twice = python_calls(lambda: Nothing.apply(*leaves)), python_calls(train_nothing)
    partial_sums = schedule == "split"  # a workspace forward
    calls: tuple[tuple[Function, int, int], ...] = (
        (lambda: forward(k, v, anchors), 13, 2),  # O and one workspace
        (lambda: forward(*leaves), once + 15, 2 + partial_sums),  # O, what the backward pass needs, and a workspace
        (train, twice + 20, 2 + partial_sums + 4),  # three gradients and one workspace
        (train_fused, twice + 18, 2 + partial_sums + 3),
    )
    allocations: list[Any] = []

    def allocate(*shape: Any, **keywords: Any) -> torch.Tensor:
        allocations.append(shape)
        return torch.empty_strided(*shape, **keywords)

    with without_device(silent=True):
        for function, functions, _ in calls:
            assert python_calls(function) <= functions
    monkeypatch.setattr(plan, "allocate", allocate)
    with without_device(silent=True):
        for function, _, most in calls:
            function()
            allocations.clear()
            function()
            assert len(allocations) == most


def test_hooks_hear_of_every_launch(launched: list[Any]) -> None:
    """A profiler's launch hook makes Triton launch, as it must to be told."""
    k, v, anchors = tensors()
    for _ in range(2):
        anchor_attention(k, v, anchors)
    heard: list[Any] = []
    knobs.runtime.launch_enter_hook.add(heard.append)
    try:
        launched.clear()
        anchor_attention(k, v, anchors)
    finally:
        knobs.runtime.launch_enter_hook.remove(heard.append)
    assert any(isinstance(x, torch.Tensor) for x in launched[0])
    launched.clear()
    anchor_attention(k, v, anchors)
    assert not any(isinstance(x, torch.Tensor) for x in launched[0])


def test_a_launcher_that_passes_something_else_is_refused(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later version of Triton may: an error that says so, and no plan."""
    k, v, anchors = tensors()
    monkeypatch.setattr(launching, "BEFORE_ARGUMENTS", 8)
    with pytest.raises(RuntimeError, match=r"expected that Triton .* ATTENTIONS_LAUNCHER=triton"):
        anchor_attention(k, v, anchors)
    assert not passes._known
    monkeypatch.setattr(launching, "BEFORE_ARGUMENTS", 9)
    monkeypatch.setattr(plan.Launch, "run", lambda launch, given: None)
    with pytest.raises(RuntimeError, match="launched the compiled kernel"):
        anchor_attention(k, v, anchors)
    assert not passes._known


def test_another_device_is_made_current(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    k, v, anchors = tensors()
    anchor_attention(k, v, anchors)
    entered: list[int] = []

    class Guard:
        def __init__(self, index: int) -> None:
            entered.append(index)

        def __enter__(self) -> None:
            monkeypatch.setattr(known.prepared, "current_device", lambda: 0)

        def __exit__(self, *error: Any) -> None: ...

    (known,) = passes._known.values()
    monkeypatch.setattr(torch.cuda, "device", Guard)
    monkeypatch.setattr(known.prepared, "current_device", lambda: 1)
    anchor_attention(k, v, anchors)
    assert entered == [0]


@pytest.mark.usefixtures("driver")
def test_those_who_look_at_operators_see_them() -> None:
    k, v, anchors = leaves = tensors(grad=True)
    unit = 2 * B * H * N * M * D
    with FlopCounterMode(display=False) as counter:
        out = anchor_attention(k, v, anchors)
        torch.autograd.grad(out, leaves, torch.ones_like(out))
    assert counter.get_total_flops() == (4 + 8) * unit
    out = anchor_attention(k, v, anchors)  # a plain autograd function, whose backward pass is looked at
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(out, leaves, torch.ones_like(out))
    assert counter.get_total_flops() == 8 * unit
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert anchor_attention(*(mode.from_tensor(x) for x in leaves)).shape == k.shape


@pytest.mark.usefixtures("driver")
def test_compiles_into_one_graph() -> None:
    """With fullgraph=True: what dynamo traces is the registered operator, forward and backward."""
    leaves = tensors(grad=True)
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(str(graph.code))
        return graph.forward

    out = torch.compile(anchor_attention, fullgraph=True, backend=backend)(*leaves)
    torch.autograd.grad(out, leaves, torch.ones_like(out))
    assert len(graphs) == 1
    assert "attentions.anchor" in graphs[0]


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(("schedule", "launches"), [("split", (2, 3)), ("single", (1, 2))])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_runs_the_forward_pass_again(
    launched: list[Any], reentrant: bool, schedule: str, launches: tuple[int, int]
) -> None:
    leaves = tensors(grad=True)

    def attend(*tensors: torch.Tensor) -> torch.Tensor:
        return anchor_attention(*tensors, schedule=schedule)

    def steps(function: Callable[..., torch.Tensor]) -> tuple[int, int]:
        """Launches of the forward and of the backward pass."""
        launched.clear()
        out = function(*leaves)
        first = len(launched)
        torch.autograd.backward(out, torch.ones_like(out))
        return first, len(launched) - first

    forward, backward = steps(attend)
    assert (forward, backward) == launches
    for _ in range(2):
        again = steps(lambda *x: checkpoint(attend, *x, use_reentrant=reentrant))
        assert again == (forward, forward + backward)
    assert all(x.grad is not None for x in leaves)


@pytest.mark.usefixtures("driver")
def test_autocast_casts_and_a_second_derivative_is_refused() -> None:
    k, v, anchors = (x.float().detach().requires_grad_() for x in tensors())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = anchor_attention(k, v, anchors)
    assert out.dtype == torch.bfloat16
    found = torch.autograd.grad(out, (k, anchors), torch.ones_like(out), create_graph=True)
    assert [x.dtype for x in found] == [torch.float32, torch.float32]
    with pytest.raises(RuntimeError, match=r"no autograd formula|does not require grad"):
        found[1].sum().backward()


def test_threads_may_call_at_once(driver: Driver) -> None:
    """Some meet a new call at the same time, the rest a known one; all launch the same."""
    counted, lock = [0], threading.Lock()

    def count(*arguments: Any) -> None:
        with lock:
            counted[0] += 1

    driver.launched = count
    failed: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        try:
            leaves = tensors()
            barrier.wait()
            for _ in range(50):
                anchor_attention(*leaves)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    (known,) = passes._known.values()
    assert counted[0] == 4 * 50 * len(known.prepared.launches)


@pytest.mark.usefixtures("driver")
def test_what_tuning_found_is_planned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    k, v, anchors = tensors()
    anchor_attention(k, v, anchors)
    monkeypatch.setattr(tuning, "generation", tuning.generation + 1)
    anchor_attention(k, v, anchors)
    assert len(passes._known) == 2


@pytest.mark.usefixtures("driver")
def test_plans_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "MOST_KNOWN", 2)
    for heads in (1, 2, 3):
        k, v, anchors = tensors()
        anchor_attention(k[:, :heads], v[:, :heads], anchors)
    assert len(passes._known) == 1
