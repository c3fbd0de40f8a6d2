"""Takes, among implementations that compute the same, the one that was measured to be fastest for the shape at hand.

    policy = attentions.Policy("policy.json")          # of harness recommend RUN --emit policy.json
    core = policy.build("flash", heads=6, head_dim=64, tokens=4096)      # called as attentions.build's
    out = core(q, k, v)                                # any exact variant, since they compute one function
    print(attentions.policy.says(core))                # ["b=1 h=6 n=4096 d=64 float32 forward on cpu: flash:torch, …"]

Equals are the exact variants without parameters, and the backends of one variant with its m and options; nothing else
is ever exchanged, so a policy changes rounding and time, never the function. A shape takes the nearest measured class
of its device, precision and phase, up to a factor of 4 away in all; beyond it, and where nothing of the class can run,
what the bare name takes. The file may be anybody's: it is read within limits, and names in it choose among equals only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attentions import building, registry
from attentions.base import AttentionError, Backend, Core, Spec, Work

FORMAT, SCHEMA = "attention-policy", 1
EXACT = "exact"
MOST_BYTES, MOST_CLASSES, MOST_LETTERS, LARGEST = 1 << 20, 10_000, 200, 1 << 53
FARTHEST = 2.0  # of the sizes' logarithms to the base 2, added up
NAME = re.compile(r"[a-z_][a-z0-9_]*(:[a-z_][a-z0-9_]*)?")
TEXTS = ("among", "options", "device", "dtype", "phase", "choice", "fallback")
NUMBERS = ("b", "h", "n", "d")


@dataclass(frozen=True, kw_only=True)
class Class:
    """One measured size: who is fastest among equals there, by which margin over whom.

    among: `exact`, or a variant whose backends they are, with its m and options; margin: the fallback's time over the
    choice's.
    """

    among: str
    m: int | None
    options: str
    device: str
    dtype: str
    phase: str
    b: int
    h: int
    n: int
    d: int
    choice: str
    fallback: str
    margin: float

    def distance(self, work: Work) -> float:
        """How far a problem's sizes are: factors to the base 2, of n, of b·h and of d, added up."""
        pairs = ((self.n, work.n), (self.b * self.h, work.b * work.h), (self.d, work.d))
        return sum(abs(math.log2(mine / other)) for mine, other in pairs) if work.tokens * work.d else math.inf


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is taken for a problem, `flash:torch`, and why."""

    name: str
    why: str


@dataclass(frozen=True, init=False)
class Policy:
    """A file of `harness recommend --emit`. Raises AttentionError, in one sentence, for any other and a damaged one."""

    path: str
    classes: tuple[Class, ...]

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", str(path))
        object.__setattr__(self, "classes", _read(Path(path)))

    def build(
        self, name: str, /, *, heads: int, head_dim: int, tokens: int, anchors: int | None = None, **options: Any
    ) -> nn.Module:  # fmt: skip
        """As `attentions.build`, for a variant without a backend: its equals are chosen among at every call.

        The module, its parameters and their names are the variant's own. Raises as `attentions.build`.
        """
        if ":" in name:
            raise AttentionError(f"{name!r} names a backend, which a policy chooses: write {name.partition(':')[0]!r}")
        registry.spec(name).parse_options(options)  # nothing else changes what a variant computes here
        core = building.build(name, heads=heads, head_dim=head_dim, tokens=tokens, anchors=anchors, **options)
        for attribute, value in vars(core).items():
            if isinstance(value, building.Automatic):
                setattr(core, attribute, _Guided(self.classes, value))
                return core
        raise AttentionError(f"{name} computes by itself and leaves nothing to choose")


def nearest(
    classes: Sequence[Class], among: str, work: Work, *, options: str, device: str, dtype: str
) -> Class | None:  # fmt: skip
    """The nearest class for a problem, or None where all are too far."""
    m = None if among == EXACT else work.m
    asked = (among, m, options, device, dtype, work.phase)
    own = [one for one in classes if (one.among, one.m, one.options, one.device, one.dtype, one.phase) == asked]
    best = min(own, key=lambda one: one.distance(work), default=None)
    return best if best is not None and best.distance(work) <= FARTHEST else None


def says(core: nn.Module) -> list[str]:
    """What a core of `Policy.build` has taken for each kind of input so far, and why."""
    guided = next((value for value in vars(core).values() if isinstance(value, _Guided)), None)
    if guided is None:
        raise AttentionError(f"{type(core).__name__} was not built by a policy")
    return [f"{problem}: {choice.name}, {choice.why}" for problem, choice in guided.told.items()]


class _Guided(building.Automatic):
    """Calls what a policy takes for the tensors at hand; remembers it for each kind of input."""

    def __init__(self, classes: tuple[Class, ...], usual: building.Automatic) -> None:
        super().__init__(usual.definition, usual.size, usual.options)
        self.classes, self.usual = classes, usual
        self.among = EXACT if _interchangeable(self.definition) else self.definition.name
        self.backends = _equals(self.definition)
        self.told: dict[str, Choice] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """As a core of `build`, by name; what was taken here need not be what runs where the module is loaded."""
        return _Guided, (self.classes, self.usual)

    def _name(self, work: Work, dtype: torch.dtype, device: torch.device) -> str:
        choice = self.choose(work, device=device, dtype=dtype)
        problem = f"b={work.b} h={work.h} n={work.n} d={work.d} {_named(dtype)} {work.phase} on {device}"
        self.told[problem] = choice
        return choice.name

    def choose(self, work: Work, *, device: torch.device, dtype: torch.dtype) -> Choice:
        """The class's choice, else its fallback, else what the bare name takes, and why."""
        stated = {k: v for k, v in self.options.items() if v != self.definition.defaults[k]}
        found = nearest(
            self.classes, self.among, work, options=";".join(f"{k}={stated[k]}" for k in sorted(stated)),
            device=device.type, dtype=_named(dtype),
        )  # fmt: skip
        missing = []
        if found is not None:
            where = f"measured at b={found.b} h={found.h} n={found.n} d={found.d}"
            over = f"{found.margin:.3g}× as fast as {found.fallback}, {where}"
            for name, why in ((found.choice, over), (found.fallback, f"the next best, {where}")):
                reason = self._refusal(name, work, device=device, dtype=dtype)
                if reason is None:
                    return Choice(name=name, why="; ".join([why, *missing]))
                missing.append(f"{name} {reason}")
        backend = building.resolve(self.definition.name, device=device, dtype=dtype, work=work)
        lacking = "; ".join(missing) or "no class of its device, precision, phase and size"
        return Choice(name=f"{self.definition.name}:{backend.name}", why=f"what the bare name takes: {lacking}")

    def _refusal(self, name: str, work: Work, *, device: torch.device, dtype: torch.dtype) -> str | None:
        if name not in self.backends:
            return f"does not compute the same as {self.definition.name} here"
        return building.why_unavailable(name, device=device, dtype=dtype, work=work)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _interchangeable(definition: Spec) -> bool:
    """Whether another exact variant's backend computes the same from the same call."""
    return definition.exact and definition.module is Core and not definition.options


def _equals(definition: Spec) -> dict[str, Backend]:
    """What may be taken in a variant's place, by `name:backend`."""
    specs = [definition]
    if _interchangeable(definition):
        specs += [one for one in map(registry.spec, registry.names()) if _interchangeable(one)]
    return {f"{one.name}:{backend.name}": backend for one in specs for backend in one.backends}


def _read(path: Path) -> tuple[Class, ...]:
    """The classes of a file. Raises AttentionError."""
    try:
        if not path.is_file():
            raise AttentionError(f"policy {path}: no such file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise AttentionError(f"policy {path} cannot be read: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise AttentionError(f"policy {path} has more than {MOST_BYTES} bytes, which no policy has")
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = "it nests too deep" if isinstance(error, RecursionError) else str(error)[:160]
        raise AttentionError(f"policy {path} is not valid JSON: {why}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise AttentionError(f"{path} is no policy: harness recommend RUN --emit {path.name} writes one")
    if document.get("schema") != SCHEMA:
        raise AttentionError(
            f"policy {path} has schema {str(document.get('schema'))[:40]!r}; this version reads {SCHEMA}"
        )
    held = document.get("classes")
    if not isinstance(held, list) or not 1 <= len(held) <= MOST_CLASSES:
        raise AttentionError(f"policy {path}: classes is no list of 1 to {MOST_CLASSES}")
    return tuple(_class(one, where=f"policy {path}: classes[{at}]") for at, one in enumerate(held))


def _class(given: Any, *, where: str) -> Class:
    """One class, every field checked. Raises AttentionError naming the first that is wrong."""
    if not isinstance(given, Mapping):
        raise AttentionError(f"{where} is no object")
    fields: dict[str, Any] = {name: given.get(name) for name in (*TEXTS, *NUMBERS, "m", "margin")}

    def check(good: bool, name: str, rule: str) -> None:
        if not good:
            raise AttentionError(f"{where}.{name} is {str(fields[name])[:60]!r}, not {rule}")

    for name in TEXTS:
        check(isinstance(fields[name], str) and len(fields[name]) <= MOST_LETTERS, name, "a short text")
    for name in ("among", "choice", "fallback"):
        check(NAME.fullmatch(fields[name]) is not None, name, "the name of a variant or variant:backend")
    for name in (*NUMBERS, *(["m"] if fields["m"] is not None else [])):
        whole = isinstance(fields[name], int) and not isinstance(fields[name], bool)
        check(whole and 1 <= fields[name] <= LARGEST, name, "a whole number from 1 to 2^53")
    real = isinstance(fields["margin"], int | float) and not isinstance(fields["margin"], bool)
    check(real and 0 < fields["margin"] <= LARGEST, "margin", "a number more than 0")
    return Class(**fields)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
