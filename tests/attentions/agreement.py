"""How right an implementation must be: by the error that the reference has in the same precision, against float64.

FACTOR times that error is allowed, for the output and for each gradient by itself. An implementation that rounds at
other places than the reference makes an error of the same size, not the same error: it may round a number three or four
times on its way where the reference rounds once, and of two draws of one distribution one is the smaller. The largest
ratio seen on a CPU is 3.2 (anchor:sdpa, float32). Where the reference makes no error at all, one rounding counts as
one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FACTOR = 4.0
ZERO = 1e-12  # of the upstream gradient: below it a float64 gradient is zero by the mathematics


def results(core: nn.Module, q: Tensor, k: Tensor, v: Tensor, upstream: Tensor | None) -> dict[str, Tensor]:
    """The output and, with an upstream gradient, every gradient, in float64."""
    if upstream is None:
        with torch.no_grad():
            out = core(q, k, v)
        found = {}
    else:
        out = core(q, k, v)
        named = {"q": q, "k": k, "v": v, **dict(core.named_parameters())}
        grads = torch.autograd.grad(out, list(named.values()), upstream.to(out.dtype), allow_unused=True)
        found = {name: grad.double() for name, grad in zip(named, grads, strict=True) if grad is not None}
    assert (out.shape, out.dtype, out.device) == (q.shape, q.dtype, q.device)
    return {"out": out.detach().double()} | found


def errors(found: dict[str, Tensor], exact: dict[str, Tensor], upstream: Tensor | None = None) -> dict[str, float]:
    """‖found − exact‖ / ‖exact‖ of each, NaN included; of a gradient that is zero by the mathematics (one token, one
    anchor: nothing to choose between), whose rounding has no size of its own, against the upstream gradient."""
    assert found.keys() == exact.keys()
    scale = upstream.double().norm().item() if upstream is not None else 1.0
    table = {}
    for name, right in exact.items():
        assert found[name].shape == right.shape
        size = right.norm().item()
        table[name] = (found[name] - right).norm().item() / (size if size > ZERO * scale else scale)
    return table


def disagreements(
    found: dict[str, Tensor], plain: dict[str, Tensor], exact: dict[str, Tensor], *, dtype: torch.dtype,
    upstream: Tensor | None = None, factor: float = FACTOR,
) -> list[str]:  # fmt: skip
    """What of `found` is further from `exact` than it may be; `plain`: the reference's results in `dtype`."""
    mine, own = errors(found, exact, upstream), errors(plain, exact, upstream)
    allowed = {name: factor * max(own[name], torch.finfo(dtype).eps) for name in exact}
    return [
        f"{name}: error {mine[name]:.2e}, allowed {allowed[name]:.2e} = {factor:g} × max({own[name]:.2e}, eps)"
        for name in exact
        if not mine[name] <= allowed[name]
    ]
