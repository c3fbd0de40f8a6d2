"""Returns an input."""

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def compute(q, k, v):
    """Nothing to do."""
    return v


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="returns_input",
    title="Returns an input",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)
