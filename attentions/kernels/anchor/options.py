"""What the options of anchor attention add: to its cost, and to what a backend has to know.

Inside the attention, so that a backend takes them or refuses the case: `scatter`, `bias`, `per_head`, `self=excluded`,
`importance`.
Around it, so that every backend has them: `logits=cosine` and `tempered` change k before; `self=learned`, `local` and
`gate` change the output after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.base import Size, Work

LEAST_OTHERS = 2.0**-10  # of a token's weight on others, what self=excluded divides by: below it rounding would speak
TEMPERED = ("none", "head", "token")
OWN = ("kept", "excluded", "learned")


def inverse_of(degree: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 / degree, by way of float64: its gradient has the square in it, which overflows float32 below 1e-19."""
    return degree.double().reciprocal().to(degree.dtype)


def counted(
    importance: Float[Tensor, "b h n"], most: Float[Tensor, "b h 1"] | None = None
) -> Float[Tensor, "b h n 1"]:  # fmt: skip
    """How many times each token counts, in at least float32; once for the most important of its head. most: the
    importance of that one, where it is not among these.
    """
    logs = importance.to(torch.promote_types(importance.dtype, torch.float32))
    return relative(logs, most).exp().unsqueeze(-1)


def relative(importance: Float[Tensor, "b h n"], most: Float[Tensor, "b h 1"] | None = None) -> Float[Tensor, "b h n"]:
    """Importance less the largest of its head: a factor common to all counts changes nothing."""
    return importance - (importance.detach().amax(dim=-1, keepdim=True) if most is None else most)


def check(size: Size, chosen: Mapping[str, Any]) -> str | None:
    """Why a core of that size cannot have these options, or None."""
    if chosen["local"] and chosen["local"] % 2 == 0:
        return f"option local={chosen['local']} is not valid; it takes an odd number, or 0 for none"
    if chosen["columns"] and not chosen["local"]:
        return f"option columns={chosen['columns']} is the grid of local; set local too, or leave it out"
    if chosen["columns"] > size.tokens:
        return f"option columns={chosen['columns']} is not valid; a row of the grid has at most tokens={size.tokens}"
    if chosen["logits"] == "cosine" and chosen["tempered"] != "none":
        return "logits=cosine has a temperature of each head already; leave tempered out, or take logits=dot"
    if size.causal and chosen["local"]:
        return f"option local={chosen['local']} has no causal form: its convolution is centred; leave one of them out"
    if size.causal and chosen["importance"]:
        return "option importance=true has no causal form; leave one of them out"
    if size.causal and chosen["self"] == "excluded":
        return "option self=excluded has no causal form; leave one of them out, or take self=learned"
    return None


def inside(work: Work) -> dict[str, bool]:
    """Which of the options that a backend has to know the case asks for, by how a user sets them."""
    chosen = work.options
    return {
        "scatter=separate": chosen.get("scatter") == "separate",
        "bias=true": bool(chosen.get("bias")),
        "per_head=true": bool(chosen.get("per_head")),
        "self=excluded": chosen.get("self") == "excluded",
        "importance=true": bool(chosen.get("importance")),
    }


def untaken(work: Work, *taken: str) -> str | None:
    """Why a backend that knows `taken` of them alone does not run a case, or None."""
    asked = [option for option, wanted in inside(work).items() if wanted and option not in taken]
    return f"does not take {' and '.join(asked)}; anchor:reference does" if asked else None


def parameters(work: Work) -> int:
    """Elements of all parameters."""
    chosen, h, m, d = work.options, work.h, work.m or 0, work.d
    sets = (h if chosen.get("per_head") else 1) * (2 if chosen.get("scatter") == "separate" else 1)
    tempered = chosen.get("tempered", "none")
    return (
        sets * m * (d + bool(chosen.get("bias")))
        + h * (chosen.get("logits") == "cosine")
        + h * (tempered != "none")
        + d * (tempered == "token")
        + h * (chosen.get("self") == "learned")
        + h * _taps(work)
        + d * d * bool(chosen.get("gate"))
        + h * d * bool(chosen.get("importance"))
    )


def products(work: Work) -> int:
    """FLOPs of a forward pass of the reference that options inside add: the way back's logits, own shares, degrees by
    products."""
    asked, weights = inside(work), work.tokens * (work.m or 0)
    return 2 * weights * (work.d * asked["scatter=separate"] + asked["self=excluded"] + asked["importance=true"])


def products_around(work: Work) -> int:
    """FLOPs of a forward pass that options around add: what is learned of each token, the convolution, the gate."""
    chosen, elements = work.options, work.tokens * work.d
    token = (chosen.get("tempered") == "token") + bool(chosen.get("importance"))
    on_grid = elements // work.n * (work.n - _before_the_grid(work))
    return 2 * elements * (token + work.d * bool(chosen.get("gate"))) + 2 * on_grid * _taps(work)


def _before_the_grid(work: Work) -> int:
    """Tokens that stand before those of the grid."""
    columns = work.options.get("columns", 0)
    return work.n % columns if columns else 0


def _taps(work: Work) -> int:
    """Tokens that one token of the convolution sums."""
    return work.options.get("local", 0) ** (2 if work.options.get("columns") else 1)


def peak(work: Work, plain: int) -> int:
    """Bytes of the reference with the options inside; plain: without them."""
    without = _uncounted_peak(work, plain)
    return _counted_peak(work, without) if inside(work)["importance=true"] else without


def _uncounted_peak(work: Work, plain: int) -> int:
    """Separate anchors hold a second A. An excluded own share takes everything from A on in at least float32, A itself,
    its square and its gradients among it.
    """
    asked, narrow, forward = inside(work), work.itemsize < 4, work.phase == "forward"
    weights, tensor = work.tokens * (work.m or 0) * work.itemsize, work.tokens * work.d * work.itemsize
    factor = 4 // work.itemsize if narrow else 1
    a, v = weights * factor, tensor * factor  # in at least float32
    second = weights if asked["scatter=separate"] else 0
    if not asked["self=excluded"]:
        if not second or forward:
            return plain + second
        return max(5 * weights + 2 * tensor, 5 * tensor)
    if second and narrow:
        second += a
    shares = work.tokens * max(work.itemsize, 4)
    if forward:
        return max(2 * a, a + 2 * v) + (weights + v if narrow else 0) + second + 2 * shares
    return max(5 * a + 2 * v, 2 * a + (6 + narrow) * v) + (weights + tensor if narrow else 0) + second + 4 * shares


def _counted_peak(work: Work, without: int) -> int:
    """Importance holds v as often as it counts, and what each token counts; without: the bytes it has without."""
    asked, narrow = inside(work), work.itemsize < 4
    weights, tensor = work.tokens * (work.m or 0) * work.itemsize, work.tokens * work.d * work.itemsize
    times, second = 3 * work.tokens * max(work.itemsize, 4), asked["scatter=separate"]
    if work.phase == "forward":
        return without + times
    copy = tensor * 4 // work.itemsize if narrow else 0  # of k, whose product with w is taken in float32
    if asked["self=excluded"]:
        return without + times + (2 * copy or tensor)
    products = (6 + second) * weights + 2 * tensor if narrow else (4 + 2 * second) * weights + 3 * tensor
    return max(without, products, 5 * tensor + second * weights) + times + copy


def peak_around(work: Work, inner: int) -> int:
    """Bytes with what options do around a backend whose own peak is `inner`.

    A changed k is one more tensor, and later the gradients that meet in k: five tensors of k's size, the output among
    them; a narrow type has one of them in float32 and its copy where the length of k is taken.
    """
    chosen, wide = work.options, max(work.itemsize, 4)
    tensor, lengths, narrow = work.tokens * work.d * work.itemsize, work.tokens * wide, work.itemsize < wide
    cosine, tempered = chosen.get("logits") == "cosine", chosen.get("tempered", "none")
    changed, token = cosine or tempered != "none", cosine or tempered == "token"
    learned, local, gate = chosen.get("self") == "learned", chosen.get("local", 0) > 0, bool(chosen.get("gate"))
    if work.phase == "forward":
        after = (3 if local or gate else 2 if learned else 0) * tensor
        return max(inner + changed * tensor + token * lengths, after)
    held = inner + (changed + gate + (learned and bool(chosen.get("importance")))) * tensor
    if changed:
        held = max(held, (7 if cosine and narrow else 5) * tensor)
    weights = work.tokens * (work.m or 0) * work.itemsize
    if local or gate:
        held = max(held, weights + (3 + changed + local + 3 * gate) * tensor)
    if local:  # its gradient of v waits for the attention's, in another order if no token stands before the grid
        held = max(held, 3 * weights + (4 - (_before_the_grid(work) > 0) + changed) * tensor)
    if learned:
        held = max(held, 3 * (weights + tensor), weights + 5 * tensor if narrow else 0)
    return held + 3 * token * lengths
