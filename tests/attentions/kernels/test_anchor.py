"""The anchor kernels: values under the interpreter, resources ahead of time, and both on a GPU where there is one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from problems import Operators, Problem, distance, gradients

from attentions.kernels.anchor import choices, cost, devices, plan, plan_forward, tuning
from attentions.kernels.anchor.tiles import TILES
from attentions.layer import MultiHeadAttention

ahead = pytest.importorskip("attentions.kernels.ahead", reason="needs Triton with its compiler for NVIDIA GPUs")
not_interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here")

GENERATIONS = {80: devices.A100, 90: devices.H100}
BF16, FP32 = torch.bfloat16, torch.float32


@not_interpreted
def test_values_under_the_interpreter_begin(interpreted: Callable[[], None]) -> None:
    """They take about as long as compiling does, on the other core; the last test here waits for them."""


def launches(
    n: int, d: int, m: int, dtype: torch.dtype, device: devices.Device, schedule: str, phase: str
) -> tuple[plan.Launch, ...]:
    """What a device that is not here would run."""
    return cost.sketch(b=8, h=12, n=n, d=d, m=m, dtype=dtype, phase=phase, device=device, schedule=schedule).launches


# A class of each kind: whole, ragged, a head a program, blocked, float32. scripts/aot_report.py compiles all of them
# for both generations; here those whose kernels take long are compiled for one.
CLASSES = [
    (16384, 64, 64, BF16, "split", 80),
    (16384, 64, 64, BF16, "split", 90),
    (1000, 80, 30, BF16, "split", 80),
    (1000, 80, 30, BF16, "split", 90),
    (198, 64, 30, BF16, "single", 80),
    (198, 64, 30, BF16, "single", 90),
    (4096, 128, 512, BF16, "split", 90),
    (4096, 64, 64, FP32, "split", 80),
]


@not_interpreted
@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("shape", CLASSES, ids=str)
def test_compiles_without_spills_and_inside_shared_memory(shape: Any, phase: str) -> None:
    n, d, m, dtype, schedule, capability = shape
    for launch in launches(n, d, m, dtype, GENERATIONS[capability], schedule, phase):
        found = ahead.compile_launch(launch, capability=capability)
        assert found.spilled_bytes == 0, found
        assert found.shared_bytes <= ahead.SHARED_LIMIT[capability], found
        assert found.resident >= 1, found


@not_interpreted
@pytest.mark.parametrize(("phase", "schedule", "m"), [
    ("forward", "split", 16), ("forward", "split", 30), ("backward", "split", 30), ("forward", "single", 30),
    ("backward", "single", 30),
])  # fmt: skip
def test_hopper_multiplies_by_warpgroups_only(phase: str, schedule: str, m: int) -> None:
    """With few anchors too: a product of fewer than 64 rows would fall back to single warps, and its operands would go
    through shared memory and barriers for that."""
    for launch in launches(1024 if schedule == "single" else 16384, 64, m, BF16, devices.H100, schedule, phase):
        found = ahead.compile_launch(launch, capability=90)
        assert found.warp_products == 0, found
        assert found.spilled_bytes == 0, found
        if "reduc" not in found.kernel and "gradient" not in found.kernel and "mean" not in found.kernel:
            assert found.warpgroup_products > 0, found


def test_a_plan_runs_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, which need not be the one that holds the tensors."""
    entered: list[Any] = []

    class Guard(torch.cuda.device_of):
        def __init__(self, tensor: torch.Tensor) -> None:
            entered.append(tensor)
            super().__init__(tensor)

    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    k, _, anchors, _ = Problem(1, 2, 64, 64, 64, BF16).tensors()
    planned = plan_forward.forward(k, k, anchors, device=devices.H100)
    ran: list[int] = []
    monkeypatch.setattr(plan.Launch, "run", lambda launch, tensors: ran.append(len(entered)))
    planned.run(dict.fromkeys(plan_forward.TENSORS, k))
    assert len(entered) == 1
    assert entered[0] is k
    assert ran == [1] * len(planned.launches)


@pytest.mark.parametrize("n", [1, 1000, 4096, 16384, 65536, 2**20, 2**22])
@pytest.mark.parametrize(("b", "h"), [(1, 1), (8, 12), (64, 16)])
def test_plans_cover_every_token_and_stay_small(n: int, b: int, h: int) -> None:
    m, d = 64, 64
    k = torch.empty(b, h, n, d, dtype=BF16, device="meta")
    anchors = torch.empty(m, d, device="meta")
    for schedule in choices.SCHEDULES:
        kind = choices.shape_class(k, anchors, "forward")
        choice = choices.default_choice(kind, n=n, m=m, parts=b * h, device=devices.H100, schedule=schedule)
        planned = plan_forward.forward(k, k, anchors, device=devices.H100, choice=choice)
        inputs = 2 * k.numel() * k.element_size()
        if b * h >= 96 and n >= 65536:
            assert planned.workspace_bytes < 0.01 * inputs, (schedule, planned.workspace_bytes / inputs)
        for name in ("splits", "chunks"):
            tile = next(iter(choice.tiles.values())).tokens
            span, count = choices.span_of(n, getattr(choice, name), tile)
            assert span % tile == 0
            assert (count - 1) * span < n <= count * span


@pytest.mark.parametrize(
    ("n", "m", "dtype", "why"),
    [
        (1024, 64, BF16, None),
        (1025, 64, BF16, "up to 1024 tokens"),
        (198, 30, FP32, "16-bit"),
        (198, 512, BF16, "m × d"),
    ],
)
def test_single_is_never_replaced(n: int, m: int, dtype: torch.dtype, why: str | None) -> None:
    for phase in ("forward", "backward"):
        said = choices.not_single(n=n, d=64, m=m, dtype=dtype, phase=phase)
        assert (said is None) == (why is None)
        assert why is None or (why in str(said) and "anchor:split takes" in str(said))
        plan = cost.sketch(b=8, h=12, n=n, d=64, m=m, dtype=dtype, phase=phase, device=devices.H100, schedule="single")
        assert (plan.choice.schedule == "single") == (why is None)


def test_short_heads_run_single() -> None:
    """However few there are, up to 512 tokens; to 1024, where there is one for each multiprocessor."""
    found = {
        (n, parts): choices.rule(n=n, parts=parts, device=devices.H100) for n in (198, 1024) for parts in (12, 192)
    }
    assert found == {(198, 12): "single", (198, 192): "single", (1024, 12): "split", (1024, 192): "single"}
    assert choices.rule(n=1025, parts=768, device=devices.H100) == "split"


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_few_short_heads_run_in_larger_programs(phase: str) -> None:
    """Where most multiprocessors have none, a program may take one for itself."""
    found = {}
    for h in (12, 33, 34, 96):
        sizes = {"b": 1, "h": h, "n": 198, "d": 64, "m": 30, "dtype": BF16, "phase": phase}
        (tile,) = cost.sketch(**sizes, device=devices.H100).choice.tiles.values()
        found[h] = tile.tokens, tile.warps, tile.stages
    assert found == {12: (128, 8, 3), 33: (128, 8, 3), 34: (64, 4, 3), 96: (64, 4, 3)}


def test_every_class_has_tiles_for_every_role() -> None:
    """Whatever `limits` lets through can be planned, on every generation."""
    for dtype in choices.DTYPES:
        for d in choices.HEAD_DIMS:
            for m in (1, 16, 30, 64, 100, 256, 257, 512):
                for device in GENERATIONS.values():
                    for phase in ("forward", "backward"):
                        for schedule in choices.SCHEDULES:
                            assert launches(640, d, m, dtype, device, schedule, phase)
    assert all(set(tiles) == set(GENERATIONS) for tiles in TILES.values())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ATTENTIONS_CACHE", str(tmp_path))
    tuning.remembered.cache_clear()
    yield tmp_path / "anchor.json"
    tuning.remembered.cache_clear()


def test_tuning_keeps_the_fastest_and_remembers_it(cache: Path) -> None:
    k, _, anchors, _ = Problem(1, 2, 640, 64, 64, BF16).tensors()

    def measure(choice: choices.Choice) -> float:
        if choice.schedule != "split":
            return 100.0
        if choice.tiles["gather"].warps == 8 and choice.tiles["gather"].tokens == 64:
            raise RuntimeError("out of resources")
        return 10.0 - choice.tiles["gather"].tokens / 128 + abs(choice.chunks - 2)

    best = tuning.tune(k, k, anchors, phase="forward", measure=measure)
    assert best.tiles["gather"].tokens == 128
    assert best.chunks in (1, 2)
    tuning.remembered.cache_clear()
    assert list(tuning.remembered().values()) == [best]
    assert json.loads(cache.read_text())["version"] == tuning.VERSION
    assert list(cache.parent.iterdir()) == [cache]


def test_what_was_tuned_before_a_cut_is_remembered(cache: Path) -> None:
    """A run that is cut off in one schedule keeps what the schedules before it gave."""
    k, _, anchors, _ = Problem(1, 2, 640, 64, 64, BF16).tensors()

    def measure(choice: choices.Choice) -> float:
        if choice.schedule == "single":
            raise KeyboardInterrupt
        return 10.0

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(k, k, anchors, phase="forward", measure=measure)
    assert [choice.schedule for choice in tuning.remembered().values()] == ["split"]


def test_a_candidate_that_the_assembler_refuses_loses(cache: Path) -> None:
    k, _, anchors, _ = Problem(1, 2, 640, 64, 64, BF16).tensors()

    def measure(choice: choices.Choice) -> float:
        if any(tile.tokens == 128 for tile in choice.tiles.values()):
            raise triton.runtime.errors.PTXASError("uses too much shared data")
        return 10.0

    best = tuning.tune(k, k, anchors, phase="forward", measure=measure)
    assert all(tile.tokens != 128 for tile in best.tiles.values())


def test_a_tuned_single_ends_where_single_does(cache: Path) -> None:
    """Its class reaches to longer heads than the schedule is for."""
    k, _, anchors, _ = Problem(1, 2, 1000, 64, 64, BF16).tensors()
    best = tuning.tune(k, k, anchors, phase="forward", measure=lambda choice: 1.0 + (choice.schedule == "split"))
    assert best.schedule == "single"
    kind = choices.shape_class(k, anchors, "forward")
    names = {tuning.key(kind, n=n, parts=2, device=devices.H100) for n in (1000, 1024, 1400)}
    assert len(names) == 1
    assert [tuning._fits(best, n) for n in (1000, 1024, 1400)] == [True, True, False]


@not_interpreted
def test_values_under_the_interpreter(interpreted: Callable[[], None]) -> None:
    interpreted()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1, "choices": {}}', '{"version": 2, "choices": {"a": {}}}']
)
def test_an_unreadable_tuning_file_is_ignored(cache: Path, text: str) -> None:
    cache.write_text(text)
    assert tuning.remembered() == {}


# On a GPU ------------------------------------------------------------------------------------------------------------

# Every d with every m, and each of them with every dtype and both layouts; all 105 take minutes to compile.
DTYPES = ((torch.float16, "heads"), (BF16, "tokens"), (FP32, "heads"))
ON_DEVICE = [
    Problem(2, 3, 1000, d, m, *DTYPES[(i + j) % 3], "cuda")
    for i, d in enumerate(choices.HEAD_DIMS)
    for j, m in enumerate((1, 8, 30, 64, 100, 256, 512))
] + [Problem(8, 12, 16384, 64, 64, BF16, "tokens", "cuda"), Problem(1, 1, 100_001, 64, 64, BF16, "heads", "cuda")]
GPU_AGREEMENT = {FP32: 4.0, torch.float16: 1.5, BF16: 1.5}


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plan, "allocate", lambda *shape, **keywords: torch.empty_strided(*shape, **keywords).fill_(float("nan"))
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("schedule", choices.SCHEDULES)
@pytest.mark.parametrize("problem", ON_DEVICE, ids=str)
def test_agrees_with_float64_on_a_device(problem: Problem, schedule: str) -> None:
    from attentions.kernels.anchor.operators import anchor_attention

    for name, (error, eager) in problem.errors(lambda *x: anchor_attention(*x, schedule=schedule)).items():
        allowed = GPU_AGREEMENT[problem.dtype] * max(eager, torch.finfo(problem.dtype).eps)
        assert error <= max(allowed, problem.rounding), (name, error, eager)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("schedule", choices.SCHEDULES)
def test_repeats_bit_for_bit_on_a_device(schedule: str) -> None:
    from attentions.kernels.anchor.operators import anchor_attention

    for problem in (
        Problem(8, 12, 16384, 64, 64, BF16, "tokens", "cuda"),
        Problem(1, 2, 5000, 128, 512, BF16, device="cuda"),
    ):
        k, v, anchors, g = problem.tensors()
        first = gradients(lambda *x: anchor_attention(*x, schedule=schedule), k, v, anchors, g)
        for _ in range(5):
            again = gradients(lambda *x: anchor_attention(*x, schedule=schedule), k, v, anchors, g)
            assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_offsets_beyond_32_bits_on_a_device() -> None:
    """2²² tokens of 12 heads inside one token: the last token lies 6·10⁹ elements from the first."""
    from attentions.kernels.anchor.operators import anchor_attention

    n, h, d, m = 2**22, 12, 64, 16
    wide = torch.empty(1, n, 2, h, d, dtype=BF16, device="cuda")
    for part in wide[0].chunk(16):
        part.normal_()
    k, v = (wide[:, :, i].transpose(1, 2) for i in (0, 1))
    anchors = torch.randn(m, d, device="cuda")
    out = anchor_attention(k, v, anchors)
    one = anchor_attention(k[:, -1:].contiguous(), v[:, -1:].contiguous(), anchors)
    assert torch.equal(out[:, -1:], one) or (out[:, -1:] - one).float().norm() / one.float().norm() < 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_on_a_device() -> None:
    """Above inputs and output: what the cost model says, which is a matrix and its degrees for each split and one more;
    3 % of the inputs of 12 heads on 132 multiprocessors, and under 1 % from 96 heads on."""
    from attentions.kernels.anchor.operators import anchor_attention

    size = {"b": 1, "h": 12, "n": 65536, "d": 64, "m": 64}
    k, v, anchors, _ = Problem(**size, dtype=BF16, device="cuda").tensors()
    anchor_attention(k, v, anchors)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = anchor_attention(k, v, anchors)
    above = torch.cuda.max_memory_allocated() - before - out.nbytes
    declared = cost.peak(**size, dtype=BF16, phase="forward") - out.nbytes
    assert declared <= above < declared + 1024  # the allocator's 512, and 128 between what is kept and the workspace
    choice = tuning.choose(k, v, anchors, "forward", None)
    assert above <= 4 * 12 * (choice.splits + 1) * 64 * (64 + 1) + 1024


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_layer_copies_nothing_on_a_device() -> None:
    """The bare name takes the fused operators, and the layer is the one with the reference.

    A gradient of ones would not do: columns of the n × n matrix sum to one, so that the gradients of k and of the
    anchors would be exactly zero, and both sides rounding.
    """
    found = {}
    g = torch.randn(2, 1000, 192, generator=torch.Generator().manual_seed(0)).cuda()
    for attention in ("anchor", "anchor:reference"):
        torch.manual_seed(0)
        layer = MultiHeadAttention(192, 3, attention=attention, tokens=1000, anchors=30).cuda()
        x = torch.randn(2, 1000, 192, device="cuda", requires_grad=True)
        with Operators() as seen:
            out = layer(x)
            grads = torch.autograd.grad(out, (x, *layer.parameters()), g)
        found[attention] = [out.detach(), *grads]
        assert (seen.copies == []) == ("anchor_fused_backward" in seen.names) == (attention == "anchor")
    for ours, theirs in zip(*found.values(), strict=True):
        assert distance(ours, theirs.double()) < 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiles_into_a_graph_on_a_device() -> None:
    from attentions.kernels.anchor.operators import anchor_attention

    k, v, anchors, g = Problem(1, 2, 1000, 64, 30, BF16, device="cuda").tensors()
    found = gradients(torch.compile(anchor_attention, fullgraph=True), k, v, anchors, g)
    plain = gradients(anchor_attention, k, v, anchors, g)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
