"""Makes a module of a variant: which backend can run a case, the one that is named, or at every call the best.

core = attentions.build("anchor:sdpa", heads=4, head_dim=64, tokens=4096, anchors=64)
out = core(q, k, v)                                  # (b, h, n, d) each
attentions.why_unavailable("flash:fa3")              # None, or a sentence: what is missing and how to get it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from operator import index
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from attentions.base import AttentionError, Backend, Size, Spec, Unavailable, Work, keys_of
from attentions.registry import spec, split


@cache
def devices() -> tuple[str, ...]:
    """The kinds of device this machine offers, best first: ('cuda', 'cpu') or ('cpu',)."""
    return ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)


def why_unavailable(
    name: str, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None, work: Work | None = None
) -> str | None:
    """None if `name` or `name:backend` can run here, else a sentence: what is missing and how to get it.

    device: where; without one, any device of this machine will do. dtype and work narrow it to one case.
    """
    definition, backend = spec(name), split(name)[1]
    if device is None:
        reasons = [why_unavailable(name, device=kind, dtype=dtype, work=work) for kind in devices()]
        return None if None in reasons else reasons[0]
    device = torch.device(device)
    if backend is not None:
        return _refusal(definition, definition.backend(backend), device, dtype, work)
    reasons = []
    for candidate in definition.candidates(work or _SMALL, dtype or torch.float32, device):
        reason = _refusal(definition, candidate, device, dtype, work)
        if reason is None:
            return None
        reasons.append(f"{definition.name}:{candidate.name} {reason}")
    return "; ".join(reasons)


def resolve(name: str, *, device: str | torch.device, dtype: torch.dtype, work: Work) -> Backend:
    """The backend that runs `name` for this case: the named one, or the best that runs. Raises Unavailable."""
    definition, backend = spec(name), split(name)[1]
    device = torch.device(device)
    options = [definition.backend(backend)] if backend else definition.candidates(work, dtype, device)
    for candidate in options:
        if _refusal(definition, candidate, device, dtype, work) is None:
            return candidate
    raise Unavailable(why_unavailable(name, device=device, dtype=dtype, work=work))


def build(
    name: str, *, heads: int, head_dim: int, tokens: int, anchors: int | None = None, causal: bool = False,
    kv_heads: int | None = None, kv_tokens: int | None = None, **options: Any,
) -> nn.Module:  # fmt: skip
    """A core: an nn.Module that maps (q, k, v) to (b, heads, n, head_dim).

    q is (b, heads, n ≤ tokens, head_dim); k and v are (b, kv_heads, kv_tokens, head_dim), by default as q.

    name: a variant, or `variant:backend`; the bare name takes, at every call, the best backend for those inputs.
    anchors: the bottleneck m; exact variants ignore it. causal: token i attends to tokens ≤ i. kv_heads: grouped
    attention, a divisor of heads. kv_tokens: attention to another sequence. options: the variant's own, see
    `spec(name).options`.

    Raises AttentionError for an unknown name, size or option, and for a problem that the variant cannot do;
    Unavailable when a named backend cannot run here or lacks the problem.
    """
    definition, backend = spec(name), split(name)[1]
    parsed = definition.parse_options(options)
    for what, value in (("heads", heads), ("head_dim", head_dim), ("tokens", tokens)):
        _positive(definition, what, value)
    if definition.bottleneck:
        _positive(definition, f"anchors (its {definition.bottleneck})", anchors)
    kv_heads, kv_tokens = keys_of(heads, tokens, kv_heads, kv_tokens)
    if reason := definition.why_not(causal=causal, kv_heads=kv_heads, kv_tokens=kv_tokens):
        raise AttentionError(reason)
    size = Size(
        heads=heads, head_dim=head_dim, tokens=tokens, anchors=anchors, causal=causal, kv_heads=kv_heads,
        kv_tokens=kv_tokens,
    )  # fmt: skip
    if reason := definition.check(size, parsed):
        raise AttentionError(f"{definition.name}: {reason}")
    if backend is None:
        return definition.module(size, Automatic(definition, size, parsed), **parsed)
    chosen = definition.backend(backend)
    reason = why_unavailable(name) or _lacks(definition, chosen, size, parsed)
    if reason:
        raise Unavailable(f"{name} {reason}")
    return definition.module(size, Named(definition, chosen, size.problem), **parsed)


class Named:
    """Calls one backend."""

    def __init__(self, definition: Spec, backend: Backend, problem: Mapping[str, Any]) -> None:
        self.definition, self.backend, self.problem = definition, backend, dict(problem)
        self.asked = _asked(self.problem)

    def __reduce__(self) -> tuple[Any, ...]:
        """By name: a definition is code, and is found again where the module is loaded (a plugin: once that is)."""
        return _named, (self.definition.name, self.backend.name, self.problem)

    def __call__(self, *tensors: Tensor | None, **keywords: Any) -> Tensor:
        return self.backend.compute(*tensors, **keywords, **self.asked)

    def packed(self, parts: Tensor, *others: Tensor | None, **keywords: Any) -> Tensor | None:
        return self.backend.packed(parts, *others, **keywords, **self.asked) if self.backend.packed else None


class Automatic:
    """Calls the best backend for the tensors at hand; remembers the choice for each kind of input."""

    def __init__(self, definition: Spec, size: Size, options: dict[str, Any]) -> None:
        self.definition, self.size, self.options = definition, size, options
        self.problem = size.problem
        self.asked = _asked(self.problem)
        self.backends = {backend.name: backend for backend in definition.backends}
        self.chosen: dict[tuple[Any, ...], Backend] = {}

        def best(device: torch.device, dtype: torch.dtype, **work: Any) -> str:
            case = Work(m=size.anchors, options=options, causal=size.causal, kv_heads=size.kv_heads, **work)
            return self._name(case, dtype, device)

        # torch.compile calls it and takes the answer for a constant: looking for files and packages and trying kernels
        # is not to be traced. What torch.compiler.assume_constant_result sets, which would import the compiler here.
        best._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
        self.best = best

    def __reduce__(self) -> tuple[Any, ...]:
        """By name, as Named; what was chosen here need not be what runs where the module is loaded."""
        return _automatic, (self.definition.name, self.size, self.options)

    def __call__(self, first: Tensor, *others: Tensor | None, **keywords: Any) -> Tensor:
        keys = None
        if self.size.kv_tokens is not None and isinstance(k := others[0], Tensor):
            keys = index(k.shape[-2])
        backend = self._choose(first.shape, keys, first, *others)
        return backend.compute(first, *others, **keywords, **self.asked)

    def packed(self, parts: Tensor, *others: Tensor | None, **keywords: Any) -> Tensor | None:
        b, n, _, h, d = parts.shape
        take = self._choose((b, h, n, d), None, parts, *others).packed
        return take(parts, *others, **keywords, **self.asked) if take else None

    def _name(self, work: Work, dtype: torch.dtype, device: torch.device) -> str:
        """Of `backends`, that which a kind of input takes."""
        return resolve(self.definition.name, device=device, dtype=dtype, work=work).name

    def _choose(self, shape: Sequence[int], keys: int | None, first: Tensor, *others: Tensor | None) -> Backend:
        """shape: (b, h, n, d) of q; keys: kv_tokens where they are not q's."""
        b, h, n, d = map(index, shape)  # of a graph of any size too: the choice is for this one
        training = torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in (first, *others))
        compiled = torch.compiler.is_compiling()
        key = (b, h, n, keys, d, first.dtype, first.device, training, compiled)  # all that rank and limits may ask for
        if key not in self.chosen:
            phase = "train" if training else "forward"
            name = self.best(
                first.device, first.dtype, b=b, h=h, n=n, d=d, phase=phase, itemsize=first.element_size(),
                compiled=compiled, kv_tokens=None if keys == n else keys,
            )  # fmt: skip
            self.chosen[key] = self.backends[name]
        return self.chosen[key]


def _named(name: str, backend: str, problem: Mapping[str, Any] = MappingProxyType({})) -> Named:
    definition = spec(name)
    return Named(definition, definition.backend(backend), problem)


def _automatic(name: str, size: Size, options: dict[str, Any]) -> Automatic:
    return Automatic(spec(name), size, options)


def _asked(problem: Mapping[str, Any]) -> dict[str, bool]:
    """What a compute function is told of the problem beside its tensors, which tell the rest."""
    return {"causal": True} if problem.get("causal") else {}


def _lacks(definition: Spec, backend: Backend, size: Size, options: dict[str, Any]) -> str | None:
    """Why a named backend cannot do what is more than the default problem, in any precision, on any device here."""
    if not size.problem:
        return None
    work = Work(
        b=1, h=size.heads, n=size.tokens, d=size.head_dim, m=size.anchors, options=options, **size.problem
    )  # fmt: skip
    reasons = [
        _refusal(definition, backend, torch.device(kind), dtype, replace(work, itemsize=dtype.itemsize))
        for kind in devices()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    return None if None in reasons else reasons[-1]


_SMALL = Work(b=1, h=1, n=64, d=64, m=16)


def _refusal(
    definition: Spec, backend: Backend, device: torch.device, dtype: torch.dtype | None, work: Work | None
) -> str | None:
    reason = _missing(definition, backend, device)
    if reason is None and work is not None and dtype is not None:
        return backend.limits(work, dtype, device)
    return reason


@cache
def _missing(definition: Spec, backend: Backend, device: torch.device) -> str | None:
    if device.type == "cuda" and not torch.cuda.is_available():
        return "needs a CUDA device and PyTorch sees none here"
    return backend.missing(device)


def _positive(definition: Spec, what: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise AttentionError(f"{definition.name}: {what} must be a whole number of at least 1, not {value!r}")
