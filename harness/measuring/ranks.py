"""One rank of a case that several processes share: joins the group, holds its tokens, follows rank 0. Imports torch.

    join(Join(rank=0, ranks=4, meeting=MeetingFile(file=...), ...))      # in every rank's worker process
    measure(MeasurePart(case=..., metrics=..., settings=...))            # the same in every rank, at the same time

Rank 0 conducts: it holds the whole case besides its part, for the comparison with float64 and for the time of one
process, and tells the others by small broadcasts what to do next. A sample is the time of the slowest rank from a
common barrier on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attentions import parallel
from harness import stats
from harness.machine import system
from harness.measuring.metrics import Settings, error, latency
from harness.measuring.requests import Join, MeasurePart, MeetingFile
from harness.measuring.subject import Subject
from harness.store.record import Case, Reading

END, CALL, BACK, TIME, COUNT, DEAL = range(6)  # what rank 0 orders; TIME with a number of samples
WARM_UP_CALLS = 2
MIB = 2**20


def join(request: Join) -> None:
    """Become a rank of a group: gloo for tensors on the CPU, nccl for those on a GPU."""
    meeting = request.meeting
    if isinstance(meeting, MeetingFile):
        store = dist.FileStore(str(Path(meeting.file)), request.ranks)
    else:
        store = dist.PrefixStore(meeting.prefix, dist.TCPStore(meeting.host, meeting.port, is_master=False))
    dist.init_process_group(
        "gloo" if request.device == "cpu" else "cpu:gloo,cuda:nccl", store=store, rank=request.rank,
        world_size=request.ranks, timeout=timedelta(seconds=request.patience_s),
    )  # fmt: skip


def measure(request: MeasurePart) -> dict[str, Reading]:
    """Rank 0: the readings of the case by metric. The other ranks: nothing, once rank 0 has ended."""
    try:
        return _measure(request)
    except BaseException:
        parallel.Ranks().leave()  # the others wait for this rank
        raise


def _measure(request: MeasurePart) -> dict[str, Reading]:
    case, rank, ranks = request.case, dist.get_rank(), dist.get_world_size()
    shards = parallel.split(case.n, ranks)
    part = Part(replace(case, device=request.device), shards[rank])
    whole = Subject(part.whole) if rank == 0 else None
    _deal_all(part, whole, shards)
    parallel.parallelise(part.module, shards=shards)
    if whole is None:
        _follow(part)
        return {}
    told = _conduct(whole, part, shards, request.settings, request.one_process)
    readings = {reading.metric: reading for reading in told}
    order(END)
    return readings


class Part(Subject):
    """A rank's tokens of a case: the module of the whole, inputs and gradient of its part."""

    def __init__(self, case: Case, tokens: int) -> None:
        self.whole = case
        super().__init__(replace(case, n=tokens))

    def build(self, name: str) -> nn.Module:
        """The whole case's module, so that its parameters are those of one process."""
        part, self.case = self.case, self.whole
        try:
            return super().build(name)
        finally:
            self.case = part


class Whole:
    """All ranks' parts as one module in rank 0, which harness.measuring.metrics.error compares like any other."""

    def __init__(self, part: Part, shards: tuple[int, ...]) -> None:
        self.part, self.shards = part, shards

    def __call__(self, *inputs: Tensor) -> Tensor:
        return _Gathered.apply(self, *inputs)

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.part.module.parameters()

    def state_dict(self) -> dict[str, Any]:
        return self.part.module.state_dict()


class _Gathered(torch.autograd.Function):
    """Forward and backward of all ranks on the inputs that they hold; `inputs` are those, whole."""

    @staticmethod
    def forward(ctx: Any, whole: Whole, *inputs: Tensor) -> Tensor:
        ctx.whole, ctx.shapes = whole, [tensor.shape for tensor in inputs]
        order(CALL, int(whole.part.needs_graph))
        ctx.out = _call(whole.part, bool(whole.part.needs_graph))
        return _collect(ctx.out.detach(), whole.shards)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        part = ctx.whole.part
        order(BACK)
        _deal(part.gradient, grad, ctx.whole.shards)
        found = _backward(part, ctx.out)
        return None, *(_collect(g, ctx.whole.shards) if g is not None else None for g in found)


def order(what: int, number: int = 0) -> None:
    """Rank 0 tells the others what comes next."""
    dist.broadcast(torch.tensor([what, number]), 0)


def _follow(part: Part) -> None:
    """What a rank other than 0 does: as told, until END."""
    out = None
    while True:
        told = torch.empty(2, dtype=torch.int64)
        dist.broadcast(told, 0)
        what, number = told.tolist()
        if what == END:
            return
        if what == CALL:
            out = _call(part, bool(number))
            _collect(out.detach(), ())
        elif what == BACK and out is not None:
            _deal(part.gradient, None, ())
            for gradient in _backward(part, out):
                if gradient is not None:
                    _collect(gradient, ())
        elif what == TIME:
            _time(part, number)
        elif what == COUNT:
            _count(part)
        elif what == DEAL:
            _deal_all(part, None, ())


def _call(part: Part, graph: bool) -> Tensor:
    part.clear()
    with torch.set_grad_enabled(graph):
        return part.module(*part.inputs)


def _backward(part: Part, out: Tensor) -> list[Tensor | None]:
    """Gradients of this rank's inputs; those of the parameters are summed over the ranks."""
    with torch.enable_grad():
        out.backward(part.gradient)
    parallel.reduce_gradients(part.module)
    return [tensor.grad for tensor in part.inputs]


def _conduct(
    whole: Subject, part: Part, shards: tuple[int, ...], settings: Settings, one_process: str | None
) -> Iterator[Reading]:
    """Every figure, once the result of all ranks together is right. one_process: why one alone cannot run it."""
    alone = whole.module
    whole.module = Whole(part, shards)  # type: ignore[assignment]
    yield next(iter(error.measure(whole, {}, settings)))
    whole.module = alone
    yield _traffic(part)

    def sample(count: int) -> list[float]:
        order(TIME, count)
        return _time(part, count)

    sample(WARM_UP_CALLS)
    samples, stopped = latency.until_evidence(sample, settings)
    summary = stats.summarise(samples)
    settings.samples["latency"] = samples
    tokens = f"{max(shards)} tokens" if len(set(shards)) == 1 else f"{min(shards)} or {max(shards)} tokens"
    note = f"slowest of {len(shards)} ranks from a barrier, {tokens} each, {_threads()} a rank"
    if part.device.type == "cpu":
        note += f", {len(system.affinity())} cores here"
    timed = Reading(
        metric="latency", value=summary.median, ci_low=summary.ci_low, ci_high=summary.ci_high,
        p20=summary.p20, p80=summary.p80, samples=summary.samples,
        note=f"{note}; {latency.how_it_ended(stopped, summary)}",
    )  # fmt: skip
    whole.module = Whole(part, shards)  # type: ignore[assignment]
    error.check_again(whole, told=lambda: (order(DEAL), _deal_all(part, whole, shards)))
    whole.module = alone
    yield timed
    yield timed.per(1e3 * whole.case.b * whole.case.n, metric="throughput")
    yield _efficiency(whole, samples, len(shards), settings, one_process)


def _efficiency(
    whole: Subject, samples: list[float], ranks: int, settings: Settings, one_process: str | None
) -> Reading:
    """Time of one process over P times the time of P ranks, while the others wait."""
    name = "scaling_efficiency"
    if one_process:
        return Reading(metric=name, status="oom", note=f"one process: {one_process}")
    alone = Settings(budget_s=settings.budget_s, min_samples=settings.min_samples, precision=settings.precision)
    watch = latency.watch_of(whole)
    watch.fall_back("as of the ranks together")
    reading = next(iter(latency.readings_of(watch, alone, items=whole.case.n)))
    ratio, low, high = stats.ratio_interval(alone.samples["latency"], samples)
    return Reading(
        metric=name, value=ratio / ranks, ci_low=low / ranks, ci_high=high / ranks, samples=len(samples),
        note=f"one process, {_threads()}: {whole.case.label} in {reading.value} ms",
    )  # fmt: skip


def _traffic(part: Part) -> Reading:
    """What the rank that sends most sends in one call, by the convention of ring algorithms."""
    order(COUNT)
    wire, payload, calls = _count(part)
    return Reading(
        metric="bytes_sent", value=max(wire) / MIB, samples=1,
        note=f"of the rank that sends most, all-reduces as rings; payload {max(payload):.0f} bytes in {calls}",
    )  # fmt: skip


def _count(part: Part) -> tuple[list[float], list[float], str]:
    """Wire and payload bytes of one call, of every rank, and this rank's collectives in words."""
    state = part.prepare()
    with parallel.Traffic() as traffic:
        part.run(state)
    mine = torch.tensor([traffic.wire_bytes, float(traffic.payload_bytes)], dtype=torch.float64)
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine)
    wire, payload = torch.stack(found).unbind(dim=1)
    calls = ", ".join(f"{count} {name}" for name, count in sorted(traffic.calls.items()) if name != "recv")
    return wire.tolist(), payload.tolist(), calls or "no collective"


def _time(part: Part, count: int) -> list[float]:
    """Samples in ms: each the slowest rank's, all starting from a barrier."""
    mine = []
    for _ in range(count):
        state = part.prepare()
        part.synchronise()
        dist.all_reduce(torch.zeros(1))  # a barrier; through the CPU, so that no GPU is busy when its clock starts
        started = time.perf_counter_ns()
        part.run(state)
        part.synchronise()
        mine.append((time.perf_counter_ns() - started) / 1e6)
    slowest = torch.tensor(mine, dtype=torch.float64)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return slowest.tolist()


def _deal_all(part: Part, whole: Subject | None, shards: tuple[int, ...]) -> None:
    """Give every rank its part of the whole's first inputs and of the gradient; only rank 0 has the whole."""
    part.rewind()
    held = (*part.inputs, *([part.gradient] if part.needs_graph else []))
    sources = (*whole.inputs, whole.gradient) if whole else (None,) * len(held)
    for tensor, source in zip(held, sources, strict=False):
        _deal(tensor, source, shards)


def _deal(part: Tensor, whole: Tensor | None, shards: tuple[int, ...]) -> None:
    """Fill every rank's `part` from rank 0's `whole`, cut along the tokens."""
    if whole is None:
        piece = torch.empty_like(part, requires_grad=False).contiguous()
        if part.numel():
            dist.recv(piece, 0)
    else:
        pieces = whole.detach().split(list(shards), dim=-2)
        for rank, other in enumerate(pieces[1:], 1):
            if other.numel():
                dist.send(other.contiguous(), rank)
        piece = pieces[0]
    with torch.no_grad():
        part.copy_(piece)


def _collect(part: Tensor, shards: tuple[int, ...]) -> Tensor:
    """Rank 0: all ranks' parts, joined along the tokens. Others (who give no shards): send theirs."""
    if not shards:
        dist.send(part.contiguous(), 0)
        return part
    pieces = [part]
    for rank, tokens in enumerate(shards[1:], 1):
        pieces.append(part.new_empty((*part.shape[:-2], tokens, part.shape[-1])))
        dist.recv(pieces[-1], rank)
    return torch.cat(pieces, dim=-2)


def _threads() -> str:
    count = torch.get_num_threads()
    return "1 thread" if count == 1 else f"{count} threads"
