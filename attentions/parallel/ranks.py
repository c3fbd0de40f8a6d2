"""The ranks of a process group that share the tokens of one sequence, and how tensors pass between them.

    ranks = Ranks(group)                 # None: the default group
    total = ranks.total(partial)         # all-reduced sum, differentiable: what every rank contributed
    left, right = ranks.halo(v, 16, sizes)

Rank r holds `sizes[r]` consecutive tokens, rank 0 the first of them. Every rank must make the same calls in the same
order, backward included; an empty shard makes them too. A call that fails raises RankLost and closes this rank's
connections, so that the ranks that wait for it fail as well instead of waiting for the group's timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from attentions.base import AttentionError

NOBODY = 1 << 20  # a tag that nobody sends with


class RankLost(RuntimeError):
    """A collective call failed: another rank died, left, or did not answer in time. The group is of no further use."""


class Ranks:
    """This process among the ranks of a group.

    group: None is the default group. shards: the tokens of every rank, where they are known beforehand; without them
    the ranks tell each other at each call that needs them, 8 bytes each.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, shards: Sequence[int] | None = None) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise AttentionError(
                "sequence-parallel attention needs a process group and there is none; start the script with torchrun "
                "and call torch.distributed.init_process_group() first"
            )
        found = group if group is not None else dist.group.WORLD
        self.rank = dist.get_rank(found)
        if found is None or self.rank < 0:
            raise AttentionError("this process is not part of the process group that is to share the tokens")
        self.group: dist.ProcessGroup = found
        self.count: int = dist.get_world_size(found)
        if shards is not None and (len(shards) != self.count or min(shards) < 0):
            raise AttentionError(f"shards={list(shards)} must hold a token count for each of {self.count} ranks")
        self.shards = None if shards is None else tuple(shards)

    def sizes(self, tokens: Tensor) -> tuple[int, ...]:
        """How many tokens each rank holds; `tokens` is (b, h, n, d), n this rank's."""
        mine = tokens.shape[-2]
        if self.shards is None:
            counts = torch.empty(self.count, dtype=torch.int64, device=tokens.device)
            here = torch.tensor([mine], dtype=torch.int64, device=tokens.device)
            self._call(lambda: dist.all_gather(list(counts.split(1)), here, group=self.group))
            return tuple(counts.tolist())
        if self.shards[self.rank] != mine:
            promised = self.shards[self.rank]
            raise AttentionError(f"rank {self.rank} got {mine} tokens; shards={list(self.shards)} says {promised}")
        return self.shards

    def total(self, partial: Tensor) -> Tensor:
        """Σ over the ranks of `partial`, on every rank. Its backward sums the ranks' gradients in the same way."""
        return _Total.apply(partial, self)

    def largest(self, tensor: Tensor) -> Tensor:
        """Elementwise maximum over the ranks, on every rank; not differentiable."""
        out = tensor.detach().clone(memory_format=torch.contiguous_format)
        self._call(lambda: dist.all_reduce(out, op=dist.ReduceOp.MAX, group=self.group))
        return out

    def halo(self, x: Float[Tensor, "b h n d"], width: int, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The `width` tokens before and after this rank's, from whoever holds them; zeros beyond the sequence's ends.

        (b, h, n, d) → two of (b, h, width, d). Its backward returns the gradients to the owners, who add them up.
        """
        return _Halo.apply(x, width, tuple(sizes), self)

    def send(self, block: Tensor, expected: tuple[int, ...]) -> Pending:
        """Start passing `block` to the next rank of the ring while one of shape `expected` comes from the one before.

        Both ends know the sizes: what holds no element is not sent.
        """
        if self.count == 1:
            return Pending(self, [], block)
        arriving = block.new_empty(expected)
        following, previous = (self.rank + 1) % self.count, (self.rank - 1) % self.count
        return Pending(self, self._start([(block.contiguous(), following)], [(arriving, previous)]), arriving)

    def add_up(self, tensor: Tensor) -> None:
        """Replace a contiguous tensor by its sum over the ranks."""
        self._call(lambda: dist.all_reduce(tensor, group=self.group))

    def leave(self) -> None:
        """Close this rank's connections, so that whoever waits for it fails instead; the group is of no further use.

        Gloo's abort leaves them open; a receive that is given up closes them all.
        """
        with suppress(Exception):  # older releases have no such call
            self.group.abort()
        if "gloo" not in dist.get_backend(self.group):
            return
        for other in set(range(self.count)) - {self.rank}:
            with suppress(RuntimeError):
                message = dist.irecv(torch.empty(1), dist.get_global_rank(self.group, other), self.group, tag=NOBODY)
                if message is not None:
                    message.wait(timedelta(milliseconds=1))

    def _start(self, outgoing: Sequence[tuple[Tensor, int]], incoming: Sequence[tuple[Tensor, int]]) -> list[Any]:
        """Begin messages to and from ranks of this group, empty ones left out; what to wait for."""
        pairs = [(dist.isend, *message) for message in outgoing] + [(dist.irecv, *message) for message in incoming]
        messages = [
            dist.P2POp(call, tensor, dist.get_global_rank(self.group, rank), self.group)
            for call, tensor, rank in pairs if tensor.numel()
        ]  # fmt: skip
        return self._call(lambda: dist.batch_isend_irecv(messages)) if messages else []

    def _call(self, call: Callable[[], Any]) -> Any:
        """What `call` returns; RankLost where it fails, the group closed so that no other rank waits for this one."""
        try:
            return call()
        except RuntimeError as error:
            self.leave()
            raise RankLost(
                f"rank {self.rank} of {self.count} lost the others: {' '.join(str(error).split())[:300]}"
            ) from error


class Pending:
    """A message on its way; `wait` gives the tensor that arrives."""

    def __init__(self, ranks: Ranks, works: Sequence[Any], arriving: Tensor) -> None:
        self._ranks, self._works, self._arriving = ranks, works, arriving

    def wait(self) -> Tensor:
        """The tensor that came. Raises RankLost."""
        for work in self._works:
            self._ranks._call(work.wait)
        return self._arriving


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, partial: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        out = partial.clone(memory_format=torch.contiguous_format)
        ranks.add_up(out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        out = grad.clone(memory_format=torch.contiguous_format)
        ctx.ranks.add_up(out)
        return out, None


class _Halo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int, sizes: tuple[int, ...], ranks: Ranks) -> tuple[Tensor, Tensor]:
        ctx.ranks, ctx.shape, ctx.width = ranks, x.shape, width
        ctx.wanted, ctx.lent = _plan(sizes, width, ranks.rank)
        both = x.new_zeros(*x.shape[:2], 2 * width, x.shape[3])
        outgoing = [(x[:, :, part].contiguous(), other) for other, part in ctx.lent]
        incoming = [(torch.empty_like(both[:, :, part]).contiguous(), other) for other, part in ctx.wanted]
        Pending(ranks, ranks._start(outgoing, incoming), both).wait()
        for (piece, _), (_, part) in zip(incoming, ctx.wanted, strict=True):
            both[:, :, part] = piece
        left, right = both.split(width, dim=2)
        return left.clone(), right.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, left: Tensor, right: Tensor) -> tuple[Tensor, None, None, None]:
        both = torch.cat([left, right], dim=2)
        grad = both.new_zeros(ctx.shape)
        outgoing = [(both[:, :, part].contiguous(), other) for other, part in ctx.wanted]
        incoming = [(torch.empty_like(grad[:, :, part]).contiguous(), other) for other, part in ctx.lent]
        Pending(ctx.ranks, ctx.ranks._start(outgoing, incoming), grad).wait()
        for (piece, _), (_, part) in zip(incoming, ctx.lent, strict=True):
            grad[:, :, part] += piece
        return grad, None, None, None


def _plan(sizes: Sequence[int], width: int, rank: int) -> tuple[list[tuple[int, slice]], list[tuple[int, slice]]]:
    """What a rank wants of whom, as parts of its 2·width halo, and what it lends to whom, as parts of its tokens.

    Short neighbours make a halo span several ranks. A rank without tokens wants nothing.
    """
    starts = [0, *accumulate(sizes)]

    def shared(asker: int, owner: int) -> Iterator[tuple[int, int, int]]:
        """Tokens first … last of the asker's halo that the owner holds, and their place in the halo."""
        if asker == owner or not sizes[asker]:
            return
        for place, low in ((0, starts[asker] - width), (width, starts[asker + 1])):
            first, last = max(low, starts[owner]), min(low + width, starts[owner + 1])
            if first < last:
                yield first, last, place + first - low

    others = range(len(sizes))
    wanted = [(owner, slice(at, at + last - first)) for owner in others for first, last, at in shared(rank, owner)]
    lent = [
        (asker, slice(first - starts[rank], last - starts[rank]))
        for asker in others for first, last, _ in shared(asker, rank)
    ]  # fmt: skip
    return wanted, lent
