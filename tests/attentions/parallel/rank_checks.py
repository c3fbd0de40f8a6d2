"""What the ranks of a process group compute for test_sequence_parallel.py: each check returns a rank's result.

A group is started once and runs many checks: importing torch costs more than all of them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import attentions
from attentions import parallel
from attentions.layer import MultiHeadAttention

B, H, D, M = 2, 2, 8, 5
PATIENCE = timedelta(minutes=10)  # of the group: what fails sooner than this does not fail by waiting


@dataclass(frozen=True)
class Problem:
    """One variant over shards of a sequence; options as attentions.build takes them."""

    variant: str
    dtype: str
    shards: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = ()
    known: bool = True  # the ranks are told the shards; otherwise they exchange them
    m: int = M

    @property
    def n(self) -> int:
        return sum(self.shards)

    def core(self) -> torch.nn.Module:
        torch.manual_seed(1)
        core = attentions.build(
            self.variant, heads=H, head_dim=D, tokens=self.n, anchors=self.m, **dict(self.options)
        )  # fmt: skip
        return core.to(getattr(torch, self.dtype))

    def tensors(self) -> list[Tensor]:
        """q, k, v and the gradient of the output, of all tokens."""
        generator = torch.Generator().manual_seed(2)
        shape = (B, H, self.n, D)
        return [torch.randn(shape, generator=generator).to(getattr(torch, self.dtype)) for _ in range(4)]

    def mine(self, rank: int, whole: Tensor) -> Tensor:
        start = sum(self.shards[:rank])
        return whole[:, :, start : start + self.shards[rank]]


def relative(got: Tensor, wanted: Tensor) -> float:
    """‖got − wanted‖ over ‖wanted‖, in float64."""
    return ((got.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-300)).item()


def agrees(rank: int, problem: Problem) -> dict[str, float]:
    """Largest relative error of this rank's part of the output and of each gradient, against one process."""
    whole, core = problem.tensors(), problem.core()
    *inputs, entering = whole
    for tensor in inputs:
        tensor.requires_grad_()
    expected = core(*inputs)
    expected.backward(entering)

    shards = problem.shards if problem.known else None
    over = parallel.parallelise(problem.core(), shards=shards)
    parts = [problem.mine(rank, tensor.detach()).clone().requires_grad_() for tensor in inputs]
    out = over(*parts)
    out.backward(problem.mine(rank, entering))
    parallel.reduce_gradients(over)

    errors = {"out": _error(out.detach(), problem.mine(rank, expected.detach()))}
    for name, part, tensor in zip("qkv", parts, inputs, strict=True):
        assert (part.grad is None) == (tensor.grad is None), f"gradient of {name}"
        if part.grad is not None and tensor.grad is not None:
            errors[name] = _error(part.grad, problem.mine(rank, tensor.grad))
    for (name, mine), (_, theirs) in zip(over.named_parameters(), core.named_parameters(), strict=True):
        assert mine.grad is not None, name
        assert theirs.grad is not None, name
        errors[name] = _error(mine.grad, theirs.grad)
    return errors


def _error(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape, f"{got.shape} is not {wanted.shape}"
    assert got.dtype == wanted.dtype
    return relative(got, wanted) if got.numel() else 0.0


def sends(rank: int, problem: Problem, phase: str) -> dict[str, Any]:
    """What a rank sends in one call of a phase as counted, its operators, and what the model says."""
    *inputs, entering = problem.tensors()
    over = parallel.parallelise(problem.core(), shards=problem.shards)
    parts = [problem.mine(rank, tensor).requires_grad_(phase != "forward") for tensor in inputs]
    out = over(*parts) if phase == "backward" else None
    with parallel.Traffic() as traffic:
        if phase == "forward":
            with torch.no_grad():
                over(*parts)
        else:
            (over(*parts) if out is None else out).backward(problem.mine(rank, entering))
    work = attentions.Work(
        b=B, h=H, n=problem.n, d=D, m=problem.m, phase=phase, itemsize=getattr(torch, problem.dtype).itemsize,
        options=attentions.spec(problem.variant).parse_options(dict(problem.options)),
    )  # fmt: skip
    model = parallel.volume(problem.variant, work, ranks=len(problem.shards))
    return {
        "wire": traffic.wire_bytes, "payload": traffic.payload_bytes, "calls": dict(traffic.calls),
        "model": model.wire_bytes(len(problem.shards)),
    }  # fmt: skip


def layer(rank: int, ranks: int) -> dict[str, Any]:
    """A multi-head layer over the ranks: its error, and whether its parameters kept their names."""
    n, dim = 6 * ranks, H * D
    torch.manual_seed(3)
    whole = MultiHeadAttention(dim, H, attention="anchor", tokens=n, anchors=M).double()
    over = MultiHeadAttention(dim, H, attention="anchor", tokens=n, anchors=M).double()
    before = list(over.state_dict())
    parallel.parallelise(over)
    over.load_state_dict(whole.state_dict())
    x = torch.randn(B, n, dim, dtype=torch.float64)
    mine = slice(6 * rank, 6 * rank + 6)
    expected, out = whole(x), over(x[:, mine])
    expected.square().sum().backward()
    out.square().sum().backward()
    parallel.reduce_gradients(over)
    pairs = list(zip(over.parameters(), whole.parameters(), strict=True))
    return {
        "error": relative(out.detach(), expected[:, mine].detach()), "same_names": list(over.state_dict()) == before,
        "gradients": max(relative(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None),
    }  # fmt: skip


def refuses(rank: int, shards: tuple[int, ...]) -> dict[str, str]:
    """What is said to impossible requests, none of which reaches a collective."""
    core = attentions.build("anchor", heads=H, head_dim=D, tokens=8, anchors=M)
    q = torch.zeros(B, H, 2, D)  # no rank has promised 2 tokens
    full = parallel.parallelise(attentions.build("full", heads=H, head_dim=D, tokens=8), shards=shards)
    small = attentions.build("linformer", heads=H, head_dim=D, tokens=sum(shards) - 1, anchors=M)
    parallel.parallelise(small, shards=shards)
    mine = torch.zeros(B, H, shards[rank], D)
    return {
        "count": _said(lambda: parallel.parallelise(core, shards=[1, 2, 3, 4, 5])),
        "core": _said(lambda: parallel.parallelise(torch.nn.Linear(2, 2))),
        "promise": _said(lambda: full(q, q, q)),
        "columns": _said(lambda: small(mine, mine, mine)),
    }


def _said(call: Callable[[], Any]) -> str:
    try:
        call()
    except attentions.AttentionError as error:
        return str(error)
    return "nothing"


def dies(rank: int, victim: int) -> dict[str, Any]:
    """One rank is killed while the others wait for it in a collective: what they see, and after how long.

    They stay alive, so that nobody learns of it from a neighbour's death.
    """
    if rank == victim:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    core = parallel.parallelise(attentions.build("anchor", heads=H, head_dim=D, tokens=64, anchors=M))
    q = torch.zeros(B, H, 4, D)
    started = time.monotonic()
    try:
        for _ in range(100):
            core(q, q, q)
    except parallel.RankLost as error:
        return {"lost": str(error), "seconds": time.monotonic() - started}
    return {"lost": "", "seconds": time.monotonic() - started}


Check = tuple[str, str, tuple[Any, ...]]  # a name, a function of this module, its arguments after the rank


def run_rank(rank: int, ranks: int, store: str, checks: Sequence[Check], results: Any, leave: Any) -> None:
    """Join the group, put each check's result or failure into `results`, and stay until `leave` is set."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(Path(store)), ranks), rank=rank, world_size=ranks, timeout=PATIENCE
    )  # fmt: skip
    for name, function, arguments in checks:
        try:
            results.put((rank, name, globals()[function](rank, *arguments)))
        except Exception as error:  # told to the test, which fails with it
            results.put((rank, name, f"{type(error).__name__}: {error}"))
    leave.wait()
    results.close()
    results.join_thread()
    os._exit(0)
