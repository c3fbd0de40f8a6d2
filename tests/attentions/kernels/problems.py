"""Problems for kernel tests, and what they are compared with: the reference in float64 and in their own dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attentions.variants.anchor import reference

Compute = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """Tensors k, v, anchors and an upstream gradient; layout `heads` (b, h, n, d) or `tokens` (b, n, h, d)."""

    b: int
    h: int
    n: int
    d: int
    m: int
    dtype: torch.dtype = torch.float32
    layout: str = "heads"
    device: str = "cpu"
    spread: float = 1.0

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """k, v, anchors (float32, as a layer's parameter) and the output's gradient."""
        source = torch.Generator().manual_seed(self.n + 7 * self.m + self.d)
        shape = (self.b, self.h, self.n, self.d)

        def draw() -> Tensor:
            drawn = torch.randn(shape, generator=source).to(self.device, self.dtype)
            return drawn.transpose(1, 2).contiguous().transpose(1, 2) if self.layout == "tokens" else drawn

        k, v, g = draw(), draw(), draw()
        anchors = torch.randn(self.m, self.d, generator=source).to(self.device) * self.spread
        return k, v, anchors, g

    @property
    def rounding(self) -> float:
        """A relative error that sums over the tokens may have in this dtype, however exact PyTorch's are.

        Kernels add tokens one after the other, PyTorch in a tree. Of N additions of independent values, each rounded by
        up to u, with an rms of u/√3 relative to the sum so far, which grows as √i: u·√(Σ i / 3N) = u·√(N/6). Twice
        that, since eps = 2u; with values of one sign it is less.
        """
        return torch.finfo(self.dtype).eps * math.sqrt(self.n / 6) if self.dtype == torch.float32 else 0.0

    def errors(self, compute: Compute) -> dict[str, tuple[float, float]]:
        """Of the output and each gradient: (relative error against float64, the reference's own in this dtype)."""
        k, v, anchors, g = self.tensors()
        exact = gradients(reference, k.double(), v.double(), anchors.double(), g.double())
        plain, found = gradients(reference, k, v, anchors, g), gradients(compute, k, v, anchors, g)
        return {name: (distance(found[name], exact[name], g), distance(plain[name], exact[name], g)) for name in exact}


class Operators(TorchDispatchMode):
    """Records the names of the operators that PyTorch dispatches, and which of those copy a tensor."""

    COPIES = ("copy_", "clone", "_to_copy", "contiguous", "_reshape_copy", "cat", "stack", "repeat", "index")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # fmt: skip
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    @property
    def copies(self) -> list[str]:
        return [name for name in self.names if name in self.COPIES or name.endswith("_copy")]


def gradients(compute: Compute, k: Tensor, v: Tensor, anchors: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The output and the gradients of k, v and the anchors."""
    leaves = [x.detach().requires_grad_() for x in (k, v, anchors)]
    out = compute(*leaves)
    found = torch.autograd.grad(out, leaves, g)
    return {"out": out.detach(), "k": found[0], "v": found[1], "anchors": found[2]}


def distance(found: Tensor, exact: Tensor, upstream: Tensor | None = None) -> float:
    """‖found − exact‖ / ‖exact‖ in float64; NaN passes no comparison. A gradient that is zero by the mathematics, as
    with one anchor, is rounding alone, without a size of its own: it is measured against the upstream gradient."""
    size, scale = exact.norm().item(), 1.0 if upstream is None else upstream.double().norm().item()
    return (found.double() - exact).norm().item() / (size if size > 1e-12 * scale else scale)
