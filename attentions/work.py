"""One problem and its cost: the sizes that a case has, and what one call of it costs.

Shapes: b batch, h heads, n tokens, d head_dim, m the bottleneck. A problem is more than sizes where it is causal (token
i attends to tokens ≤ i), grouped (kv_heads < h: h / kv_heads heads of queries share one of keys and values) or cross
attention (kv_tokens ≠ n: keys and values of another sequence).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PHASES = ("forward", "backward", "train")
PROBLEMS = ("causal", "kv_heads", "kv_tokens")


@dataclass(frozen=True, kw_only=True)
class Work:
    """One problem size: everything that a cost model, a backend's limits or its place in the rank may depend on.

    compiled: whether torch.compile traces the call; device: its type, where PyTorch takes another way on it;
    kv_heads, kv_tokens: those of k and v; None: the queries'.
    """

    b: int
    h: int
    n: int
    d: int
    m: int | None = None
    phase: str = "forward"
    itemsize: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)
    compiled: bool = False
    device: str = "cpu"
    causal: bool = False
    kv_heads: int | None = None
    kv_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """b·h·n: the number of token vectors of q and of the output."""
        return self.b * self.h * self.n

    @property
    def keys(self) -> int:
        """b·kv_heads·kv_tokens: the number of token vectors of k and of v."""
        return self.b * self.key_heads * self.key_tokens

    @property
    def key_heads(self) -> int:
        """Heads of k and v."""
        return self.h if self.kv_heads is None else self.kv_heads

    @property
    def key_tokens(self) -> int:
        """Tokens of k and v."""
        return self.n if self.kv_tokens is None else self.kv_tokens


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one call of one phase costs.

    flops: floating-point operations of its matrix products and convolutions, a multiply-add counted as two;
    bytes: the least a call must move: each input read once, each output (and gradient) written once;
    peak: bytes alive at the worst moment above the inputs, outputs included.
    """

    flops: int
    bytes: int
    peak: int


@dataclass(frozen=True, kw_only=True)
class Exponents:
    """Declared growth in n and in m, for n much larger than m and m much larger than d: cost ~ n^a · m^c."""

    flops_n: float
    flops_m: float
    peak_n: float
    peak_m: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a module is built for: heads, head_dim (d), tokens (n, the longest input) and anchors (m).

    causal: token i attends to tokens ≤ i; kv_heads, kv_tokens (the longest input): those of k and v; None: as q's.
    """

    heads: int
    head_dim: int
    tokens: int
    anchors: int | None
    causal: bool = False
    kv_heads: int | None = None
    kv_tokens: int | None = None

    @property
    def key_heads(self) -> int:
        """Heads of k and v."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def key_tokens(self) -> int:
        """Tokens of k and v, of the longest input."""
        return self.tokens if self.kv_tokens is None else self.kv_tokens

    @property
    def problem(self) -> dict[str, Any]:
        """What of PROBLEMS is asked: its name and value."""
        asked = {name: getattr(self, name) for name in PROBLEMS}
        return {name: value for name, value in asked.items() if value not in (False, None)}
