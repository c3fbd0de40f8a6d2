"""Sequence-parallel attention: the ranks of a process group each hold a part of the tokens of one sequence.

    torch.distributed.init_process_group("nccl")              # under torchrun; "gloo" on CPUs
    layer = parallelise(MultiHeadAttention(192, 3, attention="anchor", tokens=n, anchors=64))
    y = layer(x[:, mine])                                      # (b, part, 192) → (b, part, 192), part = this rank's

Rank r holds a run of consecutive tokens, rank 0 the first; parts may differ and may be empty. The module, its
parameters and its state_dict stay what they were: only the core's `compute` (see attentions.base.Compute) is replaced.
Every rank calls the layer, and backward, equally often.

Gradients of parameters, `anchors` among them, are this rank's share, as those of the projections around the core are:
their sum over the ranks is the gradient. `reduce_gradients(module)` sums them in place. DistributedDataParallel takes
their mean instead: with it, multiply the loss by the number of ranks.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attentions import registry
from attentions.base import AttentionError, Spec, Work
from attentions.parallel import forms
from attentions.parallel.cost import Volume
from attentions.parallel.ranks import RankLost, Ranks
from attentions.parallel.traffic import Traffic

__all__ = [
    "RankLost", "Ranks", "Traffic", "Volume", "names", "parallelise", "reduce_gradients", "split", "volume", "why_not",
]  # fmt: skip


def names() -> list[str]:
    """The variants that have a sequence-parallel form."""
    return sorted(info.name for info in pkgutil.iter_modules(forms.__path__))


def why_not(name: str) -> str | None:
    """None if the variant `name` (or of `name:backend`) has a sequence-parallel form, else a sentence that says why."""
    definition, backend = registry.spec(name), registry.split(name)[1]
    if definition.name not in names():
        return f"{definition.name} has no sequence-parallel form; {', '.join(names())} have one"
    if backend is not None:
        return f"its sequence-parallel form is one for all backends; ask for {definition.name}, not {name}"
    return None


def parallelise(
    module: nn.Module, group: dist.ProcessGroup | None = None, *, shards: Sequence[int] | None = None
) -> nn.Module:  # fmt: skip
    """Make every attention core in `module`, or the core `module`, attend over the tokens of all ranks; in place.

    Args:
        module: holds cores from attentions.build; each was built with `tokens` = those of all ranks.
        group: the ranks that share the tokens; None is the default group.
        shards: tokens of each rank where they are always the same. Without, variants that need to know them (all but
            anchor) exchange them at every call: 8 bytes a rank.

    Returns: module.
    Raises: AttentionError without a process group, without a core in `module`, or for a variant without such a form.
        Its calls raise RankLost when another rank dies, leaves or does not answer within the group's timeout.
    """
    ranks = Ranks(group, shards)
    cores = [part for part in module.modules() if hasattr(getattr(part, "compute", None), "definition")]
    if not cores:
        raise AttentionError(f"no attention core in this {type(module).__name__}; build it with attentions.build")
    computes = [_Parallel(core, ranks) for core in cores]  # each may refuse; then nothing has changed
    for core, compute in zip(cores, computes, strict=True):
        core.compute = compute  # type: ignore[assignment]
    return module


def reduce_gradients(module: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Replace the gradient of every parameter by its sum over the ranks: one all-reduce for each dtype.

    A parameter without a gradient here counts as zero if it requires one: ranks without tokens may have none.
    """
    ranks = Ranks(group)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for kind in sorted({(str(p.dtype), str(p.device)) for p in parameters}):
        same = [p for p in parameters if (str(p.dtype), str(p.device)) == kind]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in same]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        ranks.add_up(flat)
        for parameter, total in zip(same, flat.split([p.numel() for p in same]), strict=True):
            parameter.grad = total.view_as(parameter).clone()


def split(tokens: int, ranks: int) -> tuple[int, ...]:
    """Tokens of each rank when they are shared as evenly as can be: the first ranks hold one more."""
    return tuple(tokens // ranks + (rank < tokens % ranks) for rank in range(ranks))


def volume(name: str, work: Work, *, ranks: int) -> Volume:
    """What one rank passes to collectives in one call of `work.phase`, by formula: n is all tokens, in equal shards."""
    reason = why_not(name)
    if reason:
        raise AttentionError(reason)
    return _form(name).volume(work, ranks)


class _Parallel:
    """A core's `compute` over the tokens of all ranks."""

    def __init__(self, core: nn.Module, ranks: Ranks) -> None:
        self.definition: Spec = core.compute.definition  # type: ignore[union-attr, assignment]
        reason = why_not(self.definition.name)
        if problem := getattr(core.compute, "problem", None):
            asked = ", ".join(f"{name}={value}" for name, value in problem.items())
            reason = f"sequence-parallel attention has no form for {asked}"
        if reason:
            raise AttentionError(reason)
        self.core, self.ranks, self.form = core, ranks, _form(self.definition.name)
        refuses = getattr(self.form, "refuses", None)  # of a form that does not take every option
        if refuses is not None and (reason := refuses(core)):
            raise AttentionError(reason)

    def __call__(self, first: Tensor, *others: Tensor | None, **keywords: Any) -> Tensor:
        return self.form.attend(self.core, self.ranks, first, *others, **keywords)

    def packed(self, parts: Tensor, *others: Tensor | None, **keywords: Any) -> None:
        """No form takes a projection's output as it is."""
        return


@cache
def _form(name: str) -> ModuleType:
    return importlib.import_module(f"{forms.__name__}.{name}")
