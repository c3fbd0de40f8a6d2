"""What a variant is: a definition, its implementations, and what it costs.

A *variant* is a definition (`Spec`); a *backend* is one implementation of it (`Backend`). The backend `reference` is
readable eager PyTorch: it runs in float64, is differentiable, and is what every other backend is tested against.

    SPEC = Spec(name="mine", title="My attention", backends=(Backend("reference", my_function),))

Shapes: b batch, h heads, n tokens, d head_dim, m the bottleneck (anchors, landmarks, projected length). A core maps
(q, k, v), each (b, h, n, d), to (b, h, n, d); k and v are (b, kv_heads, kv_tokens, d) where those are asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from attentions.work import PHASES, PROBLEMS, Cost, Exponents, Size, Work

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class AttentionError(ValueError):
    """A request that names something that does not exist or cannot be; the message says what is valid."""


class Unavailable(RuntimeError):
    """A backend that exists but cannot run here; the message says what is missing and how to get it."""


@dataclass(frozen=True)
class Option:
    """One keyword of a variant: its default, its type or valid choices, and a sentence about it."""

    name: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    minimum: float | None = None

    def parse(self, value: Any, *, variant: str) -> Any:
        """Turn text or a value into a valid value. Raises AttentionError naming the option, the value and the rule."""
        kind = type(self.default)
        rule = f"one of {', '.join(map(str, self.choices))}" if self.choices else KINDS.get(kind, f"a {kind.__name__}")
        if self.minimum is not None:
            rule += f" of at least {self.minimum:g}"
        if near := difflib.get_close_matches(str(value).lower(), map(str, self.choices), n=1):
            rule += f"; did you mean {near[0]!r}?"
        problem = AttentionError(f"{variant}: option {self.name}={value!r} is not valid; it takes {rule}")
        try:
            parsed = _truth(value) if kind is bool else kind(value)
        except (TypeError, ValueError):
            raise problem from None
        if kind is int and isinstance(value, float) and value != parsed:
            raise problem
        if kind is float and parsed != parsed:
            raise problem
        if (self.choices and parsed not in self.choices) or (self.minimum is not None and parsed < self.minimum):
            raise problem
        return parsed


@dataclass(frozen=True, eq=False)
class Backend:
    """One implementation of a variant.

    compute: called as the variant's module calls it (for a variant without parameters: `compute(q, k, v)`), with the
        keyword `causal=True` where that is asked, and only there;
    missing: why it cannot run on a device here, or None; one that can do a forward pass alone is not missing;
    limits: why it cannot run one case (Work, dtype, device) although it is installed, or None: a size, a precision, a
        phase, as with kernels that have no backward pass, or a problem that the definition has and it lacks;
    automatic: whether the variant's bare name may take it;
    packed: the same from the output of a layer's projection, (b, n, parts, h, d) with parts 2 (k = q, v) or 3 (q, k,
        v), to (b, n, h, d), without copies; called as the variant's module calls it; None: it takes them apart only;
    flops, peak: what this implementation executes and allocates where that differs from the definition's cost;
    opaque: its work is one compiled call in which PyTorch's dispatcher sees no operators to count;
    frugal: on any device and in any precision it computes what the reference does, in far less memory: where the
        reference does not fit in float64, it is held against this (and this against the reference on fewer tokens);
    layer: builds a whole layer, (b, n, dim) → (b, n, dim), in the place of a core (attentions.plugins).
    """

    name: str
    compute: Callable[..., Tensor]
    summary: str = ""
    missing: Callable[[torch.device], str | None] = field(default=lambda device: None)
    limits: Callable[[Work, torch.dtype, torch.device], str | None] = field(default=lambda work, dtype, device: None)
    automatic: bool = True
    packed: Callable[..., Tensor] | None = None
    flops: Callable[[Work], int] | None = None
    peak: Callable[[Work], int] | None = None
    opaque: bool = False
    frugal: bool = False
    layer: Callable[[Size], nn.Module] | None = None


@runtime_checkable
class Compute(Protocol):
    """What a module is given to compute with: the chosen backend, or at every call the best one."""

    def __call__(self, first: Tensor, *others: Tensor | None, **keywords: Any) -> Tensor: ...

    def packed(self, parts: Tensor, *others: Tensor | None, **keywords: Any) -> Tensor | None:
        """(b, n, parts, h, d) → (b, n, h, d) by the backend's `packed`; None where it has none."""


class Core(nn.Module):
    """The module of a variant without parameters: its backend, applied to (q, k, v)."""

    def __init__(self, size: Size, compute: Callable[..., Tensor], /, **options: Any) -> None:
        super().__init__()
        self.compute, self.options = compute, options

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d), and k and v (b, kv_heads, kv_tokens, d), → (b, h, n, d)."""
        return self.compute(q, k, v, **self.options)


@dataclass(frozen=True, kw_only=True, eq=False)  # compared and cached by identity: a default need not be hashable
class Spec:
    """A variant's definition.

    name: as users type it; title: a line for tables; paper: authors, year, arXiv, section;
    exact: equals softmax attention up to rounding (then it has no m);
    floor: attention removed, to read accuracies against; a sweep that names no variants leaves it out;
    different: another function than softmax attention by design, no estimate of it: its distance from it ranks nothing;
    module: built as `module(size, compute, **options)`; holds the parameters and calls `compute` (a `Compute`). It may
        offer `packed(parts)`: the result of `compute.packed` for a projection's output, None where that is None;
    backends: best first, `reference` among them; rank: reorders them for one case, where the best depends on it;
    model: the cost model, Work → Cost; None for a plugin that declares none;
    shares_query_key: the layer projects one tensor for query and key (2·width instead of 3·width);
    problems: which of PROBLEMS the definition, and so its reference, can do; refuses: why it cannot do another;
    check: why a size is impossible for this variant (Size, options), or None; note: a remark for a row, or empty.
    """

    name: str
    title: str
    backends: tuple[Backend, ...]
    paper: str = ""
    exact: bool = False
    floor: bool = False
    different: bool = False
    bottleneck: str = ""
    options: tuple[Option, ...] = ()
    module: Callable[..., nn.Module] = Core
    model: Callable[[Work], Cost] | None = None
    exponents: Exponents | None = None
    shares_query_key: bool = False
    rank: Callable[[Work, torch.dtype, torch.device], Sequence[str]] | None = None
    problems: tuple[str, ...] = ()
    refuses: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Size, Mapping[str, Any]], str | None] = field(default=lambda size, options: None)
    note: Callable[[Work], str] = field(default=lambda work: "")

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or not self.name.islower():
            raise AttentionError(f"a variant's name is a lower-case identifier, not {self.name!r}")
        names = [backend.name for backend in self.backends]
        layers = bool(self.backends) and all(backend.layer for backend in self.backends)  # each its own reference
        if ("reference" not in names and not layers) or len(set(names)) != len(names):
            raise AttentionError(f"{self.name}: backends must be distinct and include 'reference', not {names}")
        for problem in (*self.problems, *self.refuses):
            if problem not in PROBLEMS:
                raise AttentionError(unknown(f"problem of {self.name}", problem, PROBLEMS))
        if taken := {option.name for option in self.options} & set(PROBLEMS):
            raise AttentionError(
                f"{self.name}: {', '.join(sorted(taken))} is a problem, and no option may be called so"
            )

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Option name → default value."""
        return MappingProxyType({option.name: option.default for option in self.options})

    def backend(self, name: str) -> Backend:
        """The backend of that name. Raises AttentionError with the valid names."""
        return pick_named(name, self.backends, what=f"backend of {self.name}")

    def parse_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults overlaid with `given` (texts or values). Raises AttentionError for unknown names and bad values."""
        parsed = dict(self.defaults)
        for name, value in given.items():
            option = pick_named(name, self.options, what=f"option of {self.name}")
            parsed[option.name] = option.parse(value, variant=self.name)
        return parsed

    def why_not(
        self, *, causal: bool = False, kv_heads: int | None = None, kv_tokens: int | None = None
    ) -> str | None:  # fmt: skip
        """One sentence why this variant cannot do what is asked, or None. None of a number: the queries' own."""
        asked = {"causal": causal, "kv_heads": kv_heads is not None, "kv_tokens": kv_tokens is not None}
        for problem in PROBLEMS:
            if asked[problem] and problem not in self.problems:
                able = (
                    f"it declares {' and '.join(self.problems)} alone" if self.problems else "it declares none of them"
                )
                return self.refuses.get(problem, f"{self.name} declares no form for {problem}; {able}")
        if causal and kv_tokens is not None:
            return f"{self.name}: causal attention to kv_tokens={kv_tokens} does not say which token sees which"
        return None

    def cost(
        self, /, b: int, h: int, n: int, d: int, m: int | None = None, phase: str = "forward", *,
        itemsize: int = 4, backend: str = "reference", device: str = "cpu", causal: bool = False,
        kv_heads: int | None = None, kv_tokens: int | None = None, **options: Any,
    ) -> Cost:  # fmt: skip
        """The cost of one call of one phase, in FLOP and bytes; `backend` corrects flops and peak to that backend's."""
        if self.model is None:
            raise AttentionError(f"{self.name} declares no cost model")
        if phase not in PHASES:
            raise AttentionError(f"phase {phase!r} is not one of {', '.join(PHASES)}")
        kv_heads, kv_tokens = keys_of(h, n, kv_heads, kv_tokens)
        if reason := self.why_not(causal=causal, kv_heads=kv_heads, kv_tokens=kv_tokens):
            raise AttentionError(reason)
        work = Work(
            b=b, h=h, n=n, d=d, m=m, phase=phase, itemsize=itemsize, options=self.parse_options(options),
            device=device, causal=causal, kv_heads=kv_heads, kv_tokens=kv_tokens,
        )  # fmt: skip
        cost, chosen = self.model(work), self.backend(backend)
        flops = chosen.flops(work) if chosen.flops else cost.flops
        return replace(cost, flops=flops, peak=chosen.peak(work) if chosen.peak else cost.peak)

    def candidates(self, work: Work, dtype: torch.dtype, device: torch.device) -> list[Backend]:
        """The backends the bare name may take for this case, best first, whether or not they run here."""
        automatic = [backend for backend in self.backends if backend.automatic]
        if self.rank is None:
            return automatic
        order = {name: place for place, name in enumerate(self.rank(work, dtype, device))}
        return sorted((b for b in automatic if b.name in order), key=lambda b: order[b.name])


def pick_named(name: str, among: Iterable[Any], *, what: str) -> Any:
    """The object whose `.name` is `name`; AttentionError with the valid and the nearest name otherwise."""
    table = {item.name: item for item in among}
    if name in table:
        return table[name]
    raise AttentionError(unknown(what, name, table))


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """One sentence: what was asked, the nearest valid name, and all valid names."""
    names = sorted(valid)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {name!r}{hint} valid: {', '.join(names) or '(none)'}"


def _truth(value: Any) -> bool:
    words, word = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}, str(value).lower()
    if word not in words:
        raise ValueError(value)
    return words[word]


def keys_of(
    heads: int, tokens: int, kv_heads: int | None, kv_tokens: int | None
) -> tuple[int | None, int | None]:  # fmt: skip
    """kv_heads and kv_tokens, None where they are the queries' own. Raises AttentionError for what cannot be."""
    for what, value in (("kv_heads", kv_heads), ("kv_tokens", kv_tokens)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise AttentionError(f"{what} must be a whole number of at least 1, not {value!r}")
    if kv_heads is not None and heads % kv_heads:
        raise AttentionError(f"kv_heads={kv_heads} must divide heads={heads}")
    return None if kv_heads == heads else kv_heads, None if kv_tokens == tokens else kv_tokens


def traffic(work: Work, *, inputs: int = 3, parameters: int = 0) -> int:
    """Least bytes of one phase: `inputs` token tensors and `parameters` elements read once, every result written once.

    inputs: 3 is q, k and v; 2 is k and v; 1 is v. Backward reads the inputs and the output's gradient and writes the
    inputs' gradients; train does both.
    """
    output, weights = work.tokens * work.d, parameters
    read = max(inputs - 2, 0) * output + min(inputs, 2) * work.keys * work.d
    elements = {
        "forward": read + output + weights,
        "backward": 2 * read + output + 2 * weights,
        "train": 2 * read + 2 * output + 2 * weights,
    }[work.phase]
    return elements * work.itemsize


def matmuls(work: Work, forward: int, *, backward: float = 2.0) -> int:
    """FLOPs of a phase from those of forward; a matrix product's backward is two products, more with recomputation."""
    return int(forward * {"forward": 1.0, "backward": backward, "train": 1.0 + backward}[work.phase])


def softmax_flops(work: Work, *, backward: float = 2.0) -> int:
    """FLOPs of exact softmax attention: two products over all pairs, of which causal attention counts half.

    Half of n², as the literature of fused attention counts, without the n / 2 pairs that the diagonal has beyond it.
    """
    pairs = work.tokens * work.key_tokens
    return matmuls(work, 4 * pairs * work.d // (2 if work.causal else 1), backward=backward)
