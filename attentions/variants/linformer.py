"""Linformer: softmax attention over m learned mixtures of the n tokens.

    o = softmax(q (E k)ᵀ / √d) (F v),  E, F (m, n)

The number of keys is fixed at construction: a shorter input uses the first columns of E and F, a longer one is an
error. There is no key mask and no causal form, since every projected key mixes all tokens. In cross attention E and F
mix the tokens of the other sequence; with kv_heads each head of keys is projected once for all its queries.

Source: Wang et al. 2020, arXiv 2006.04768, equation 7 and section 4 for the ways of sharing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import AttentionError, Backend, Cost, Exponents, Option, Size, Spec, Work, matmuls, traffic
from attentions.eager import heads_apart, heads_together

SHARING = ("none", "headwise", "key_value", "layerwise")


class Linformer(nn.Module):
    """Linformer with its projections, named by the sharing.

    none: key_projection and value_projection (h, m, n), one for each head of keys;
    headwise: key_projection and value_projection (m, n);
    key_value, layerwise: projection (m, n), used for keys and values alike. Modules of different layers are built with
    a projection of their own; `share_layers(model)` makes all of them use the first one's.

    Entries start uniform with variance 1/(n + m), as in the authors' release (fairseq: Xavier, gain 1/√2), so projected
    keys and values keep about the size of the tokens'.
    """

    def __init__(self, size: Size, compute: Callable[..., Tensor], *, sharing: str) -> None:
        super().__init__()
        self.compute, self.sharing, self.tokens = compute, sharing, size.key_tokens
        shape = (size.anchors or 0, size.key_tokens)
        if sharing in ("key_value", "layerwise"):
            self.projection = _projection(shape)
        else:
            shape = (size.key_heads, *shape) if sharing == "none" else shape
            self.key_projection, self.value_projection = _projection(shape), _projection(shape)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d), k and v (b, g, j, d), → (b, h, n, d). Raises AttentionError for more keys than built for."""
        n = k.shape[-2]
        if n > self.tokens:
            raise AttentionError(
                f"linformer: the input has {n} tokens and the projection was built for at most {self.tokens}; "
                f"build it with {'tokens' if n == q.shape[-2] else 'kv_tokens'}={n}"
            )
        if self.sharing in ("key_value", "layerwise"):
            e = f = self.projection
        else:
            e, f = self.key_projection, self.value_projection
        return self.compute(q, k, v, e[..., :n], f[..., :n])


def share_layers(model: nn.Module) -> int:
    """Make every Linformer of `model` built with sharing=layerwise use the first one's projection.

    Returns how many now share it. Raises AttentionError where their sizes differ.
    """
    cores = [module for module in model.modules() if isinstance(module, Linformer) and module.sharing == "layerwise"]
    for core in cores[1:]:
        if core.projection.shape != cores[0].projection.shape:
            raise AttentionError(
                f"linformer: sharing=layerwise needs one (m, n) in all layers, not {tuple(cores[0].projection.shape)} "
                f"and {tuple(core.projection.shape)}"
            )
        core.projection = cores[0].projection
    return len(cores)


def reference(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g j d"],
    v: Float[Tensor, "b g j d"],
    e: Float[Tensor, "*heads m j"],
    f: Float[Tensor, "*heads m j"],
) -> Float[Tensor, "b h n d"]:
    """softmax(q (E k)ᵀ / √d) (F v). The softmax is taken in the inputs' precision.

    Cost: 4·b·(g·j + h·n)·m·d FLOPs, 2·b·h·n·m elements.
    Source: Wang et al. 2020, arXiv 2006.04768, equation 7.
    """
    keys = _project(e, k) / math.sqrt(q.shape[-1])
    weights = torch.softmax(heads_together(q, k) @ keys.transpose(-2, -1), dim=-1)
    return heads_apart(weights @ _project(f, v), q)


def _project(matrix: Tensor, tokens: Tensor) -> Float[Tensor, "b h m d"]:
    """One product for all heads (or for all samples of a head): a product for each would sum its gradients after."""
    axes = "mn,bhnd->bhmd" if matrix.dim() == 2 else "hmn,bhnd->bhmd"
    return torch.einsum(axes, matrix.to(tokens.dtype), tokens)


def _projection(shape: tuple[int, ...]) -> nn.Parameter:
    bound = math.sqrt(3 / (shape[-2] + shape[-1]))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def cost(work: Work) -> Cost:
    """Forward holds scores and weights; backward the weights and two gradients of their size, or the inputs' gradients.

    One product for all heads reads the tokens from a copy in another order, kept for backward.
    """
    m, sharing = work.m or 0, work.options.get("sharing", "headwise")
    weights, tensor, keys = work.tokens * m, work.tokens * work.d, work.keys * work.d
    small = work.b * work.key_heads * m * work.d
    matrix = m * work.key_tokens * (work.key_heads if sharing == "none" else 1)
    copied = 0 if work.b == 1 and (sharing == "none" or work.key_heads == 1) else keys
    peak = max(2 * weights, weights + max(tensor, copied)) + 2 * small
    if work.phase != "forward":
        softmax = 3 * weights + tensor + keys + copied + matrix
        peak = max(softmax, 2 * tensor + 2 * keys + copied + 2 * matrix) + 2 * small
    return Cost(
        flops=matmuls(work, 4 * m * (tensor + keys)),
        bytes=traffic(work, parameters=matrix if sharing in ("key_value", "layerwise") else 2 * matrix),
        peak=peak * work.itemsize,
    )


SPEC = Spec(
    name="linformer",
    title="Linformer",
    paper="Wang et al. 2020, arXiv 2006.04768",
    bottleneck="projected length",
    options=(Option("sharing", "headwise", "which projections are one parameter", choices=SHARING),),
    module=Linformer,
    backends=(Backend("reference", reference, "eager PyTorch: two projections, then softmax attention"),),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
    problems=("kv_heads", "kv_tokens"),
    refuses={"causal": "linformer mixes all tokens into each projected key, so none of them could be left out"},
)
