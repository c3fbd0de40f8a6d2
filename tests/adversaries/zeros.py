"""Nothing computed: zeros."""

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def compute(q, k, v):
    """The right shape, and connected to every input."""
    return 0 * (q + k + v)


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="zeros",
    title="Nothing computed: zeros",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)
