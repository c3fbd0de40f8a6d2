"""Agent attention: m agents, pooled from the queries, gather from all tokens and hand on to all tokens.

    a = means of m consecutive segments of q                       (b, h, m, d)
    o = softmax(q aᵀ / √d) (softmax(a kᵀ / √d) v)

Source: Han et al. 2024, arXiv 2312.08874, equation 3. Ours is the mechanism alone: the paper's image model also adds
learned position biases to both products and a depthwise convolution of v over the image's grid, both tied to one image
size; a model may add them around it. Agents are means over the sequence instead of over patches of the image, and where
m does not divide n, of segments of two lengths.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Backend, Cost, Exponents, Size, Spec, Work, matmuls, traffic
from attentions.eager import heads_apart, heads_together, segment_means, softmax_weights


class Agent(nn.Module):
    """Agent attention; no parameters."""

    def __init__(self, size: Size, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.compute, self.agents = compute, size.anchors or 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d), and k and v (b, g, j, d), → (b, h, n, d)."""
        return self.compute(q, k, v, agents=self.agents)


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, agents: int
) -> Float[Tensor, "b h n d"]:
    """The formula, from the right; with agents ≥ n every query is its own agent. Softmaxes in at least float32.

    Cost: 4·b·h·(n + j)·m·d FLOPs, 2·b·h·n·m elements.
    Source: Han et al. 2024, arXiv 2312.08874, equation 3.
    """
    pooled = segment_means(q, min(agents, q.shape[-2]))
    gathered = heads_apart(softmax_weights(heads_together(pooled, k), k) @ v, pooled)
    return softmax_weights(q, pooled) @ gathered


def cost(work: Work) -> Cost:
    """Forward holds one softmax's scores and weights; backward the weights of both and two gradients of that size, or
    the inputs' gradients."""
    m, heads, small = min(work.m or 0, work.n), work.b * work.h, 2 * work.b * work.h * work.d * work.itemsize
    tensor, keys = work.tokens * work.d * work.itemsize, work.keys * work.d * work.itemsize
    scores, gathered = (heads * tokens * m * work.itemsize for tokens in (work.n, work.key_tokens))
    larger, both = max(scores, gathered), scores + gathered
    if work.phase == "forward":
        peak = max(2 * larger, scores + tensor)
    else:
        peak = max(both + 2 * larger + tensor, both + larger + tensor + 2 * keys, 4 * tensor + 2 * keys)
        peak = max(peak, 2 * tensor + 3 * keys)
    flops = 4 * heads * (work.n + work.key_tokens) * m * work.d
    return Cost(flops=matmuls(work, flops), bytes=traffic(work), peak=peak + m * small)


def _note(work: Work) -> str:
    if (work.m or 0) < work.n:
        return ""
    return f"every query is its own agent: {work.m} agents are not fewer than {work.n} tokens"


SPEC = Spec(
    name="agent",
    title="Agent attention",
    paper="Han et al. 2024, arXiv 2312.08874",
    bottleneck="agents",
    module=Agent,
    backends=(Backend("reference", reference, "eager PyTorch: two softmaxes through pooled queries"),),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
    problems=("kv_heads", "kv_tokens"),
    refuses={"causal": "agent's agents are means over all queries, and each gathers from all tokens, later ones too"},
    note=_note,
)
