"""Softmax attention with materialised scores: exact, by the ring; a rank holds n/P × n/P scores at a time."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from attentions.parallel import ring
from attentions.parallel.ranks import Ranks
from attentions.parallel.ring import volume

__all__ = ["attend", "volume"]


def attend(
    core: nn.Module,
    ranks: Ranks,
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
) -> Float[Tensor, "b h part d"]:
    """softmax(q kᵀ / √d) v of this rank's queries over the keys of all ranks."""
    return ring.attend(q, k, v, ranks, ranks.sizes(k), ring.EAGER)
