"""A sweep's description and the cases it stands for: axes from the command line and TOML, checked. No torch.

    sweep = Sweep.parse({"n": ["1k..64k"], "m": ["16,64"], "attention": ["full,flash,anchor:sdpa"]})
    cases = expand(sweep, catalogue, device="cpu")

Axes take lists and ranges: "1024,4096", "16k" (k = 1024, M = 1024²), "1k..64k" (doubling).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness.cases import foreign, layers, settings, shapes
from harness.cases.axes import LARGEST_BATCH, USUAL_M, adapted_m, rule, sizes, usual_m
from harness.cases.problems import asked_problems, problems_at, truth
from harness.cases.sharing import MOST_RANKS, chosen_metrics, sharable
from harness.errors import UsageError, brief, reason, unknown
from harness.store import opening, record
from harness.store.documents import MOST_TOML_BYTES, Damaged, parse_toml
from harness.store.record import PHASES, RANK_UNITS, SCOPES, UNITS, Case, canonical_options
from harness.vision.models import ANCHORS, ARCHITECTURES, AS_IS, PATCH, check_name, is_foreign

NUMBERS = {
    "seed": "a whole number from 0 to 2147483647", "budget": "seconds, more than 0 and at most 3600",
    "timeout": "seconds, more than 0 and at most 86400", "patience": "seconds, 0 or more and at most 86400",
    "sequence_parallel": f"a number of processes from 1 to {MOST_RANKS}",
}  # fmt: skip
MOST_CASES = 100_000
DEFAULTED = ("m", "kv_heads", "kv_tokens", "resolution")  # of the sizes: those of which an empty list means something


class Sweep(BaseModel):
    """The axes and settings of one sweep; the field names are the keys of sweep.toml and the command line's options.

    attention: empty means every variant; m concerns variants with a bottleneck only, empty means 64, or less where n is
    no larger; causal, kv_heads (a divisor of heads) and kv_tokens: which problem, empty means the queries' own; dtype
    "auto" is bfloat16 on a GPU and float32 on the CPU; set holds variant options, `{"anchor.init": "paper,sharp"}`;
    budget and timeout are seconds a case, patience those that a run may wait in all for a quiet machine (0: nothing is
    taken again). Scope model takes its n, heads and head_dim from model and resolution (the side of square images, in
    pixels; of a language model n, its tokens), and, where it is the only scope, m = 30 by default; compile and amp:
    by torch.compile, and under autocast to dtype with weights in float32. sequence_parallel: processes that share each
    case.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    attention: tuple[str, ...] = ()
    n: tuple[int, ...] = (4096,)
    m: tuple[int, ...] = ()
    batch: tuple[int, ...] = (1,)
    heads: tuple[int, ...] = (6,)
    head_dim: tuple[int, ...] = (64,)
    causal: tuple[bool, ...] = (False,)
    kv_heads: tuple[int, ...] = ()
    kv_tokens: tuple[int, ...] = ()
    dtype: tuple[str, ...] = ("auto",)
    phase: tuple[str, ...] = ("forward",)
    scope: tuple[str, ...] = ("core",)
    model: tuple[str, ...] = ("anchorformer_tiny",)
    resolution: tuple[int, ...] = (224,)
    compile: tuple[bool, ...] = (False,)
    amp: tuple[bool, ...] = (False,)
    device: str = "auto"
    set: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    sequence_parallel: int = Field(default=1, ge=1, le=MOST_RANKS)
    metrics: tuple[str, ...] = tuple(UNITS)
    plugin: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0, lt=1 << 31)
    budget: float = Field(default=2.0, gt=0, le=3600, allow_inf_nan=False)
    timeout: float = Field(default=120.0, gt=0, le=86400, allow_inf_nan=False)
    patience: float = Field(default=20.0, ge=0, le=86400, allow_inf_nan=False)

    @field_validator("seed", "budget", "timeout", "patience", "sequence_parallel", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, bool):  # true is 1 for pydantic
            raise ValueError(f"{value!r} is no number")
        return value

    @field_validator("n", "m", "batch", "heads", "head_dim", "resolution", "kv_heads", "kv_tokens", mode="before")
    @classmethod
    def _sizes(cls, value: Any, info: Any) -> tuple[int, ...]:
        found = _unique(size for text in _words(value) for size in sizes(text, axis=info.field_name))
        if not found and info.field_name not in DEFAULTED:
            raise ValueError(f"an empty list; {rule(info.field_name)}")
        ours = info.field_name == "resolution" and not all(map(is_foreign, info.data.get("model", ("",))))
        for size in found:
            if ours and size % PATCH:
                raise ValueError(f"{size} is no multiple of the {PATCH} pixels of a patch")
        return found

    @field_validator("attention", "metrics", "plugin", "dtype", "phase", "scope", "model", mode="before")
    @classmethod
    def _names(cls, value: Any, info: Any) -> tuple[str, ...]:
        found = _unique(word.strip() for text in _words(value) for word in str(text).split(",") if word.strip())
        found = _unique(map(record.dtype_named, found)) if info.field_name == "dtype" else found
        _encodable(found)
        valid = {"metrics": (*UNITS, *RANK_UNITS), "dtype": ("auto", *record.DTYPES), "phase": PHASES, "scope": SCOPES}
        for name in found:
            if info.field_name == "model":
                check_name(name)
            if info.field_name in valid and name not in valid[info.field_name]:
                raise ValueError(unknown(info.field_name.removesuffix("s"), name, valid[info.field_name]))
        valid["model"] = tuple(ARCHITECTURES)
        if not found and info.field_name in valid:
            raise ValueError(f"{info.field_name} is empty; valid: {', '.join(valid[info.field_name])}")
        if not found and value not in ((), []):  # such as a shell's variable that is not set
            raise ValueError(f"{brief(repr(value))} names nothing; leave {info.field_name} out for its default")
        return found

    @field_validator("causal", "compile", "amp", mode="before")
    @classmethod
    def _truths(cls, value: Any, info: Any) -> tuple[bool, ...]:
        found = _unique(truth(word, axis=info.field_name) for word in _words(value))
        if not found:
            raise ValueError(f"an empty list; {info.field_name} takes true, false or both")
        return found

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        kind, _, index = value.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (":" in value and not (kind == "cuda" and index.isdecimal())):
            raise ValueError(f"unknown device {brief(value)!r}; valid: auto, cpu, cuda, cuda:<index>")
        return value

    @field_validator("set", mode="before")
    @classmethod
    def _settings(cls, value: Any) -> dict[str, tuple[str, ...]]:
        found = settings.parsed(value)
        _encodable([text for key, several in found.items() for text in (key, *several)])
        return found

    @classmethod
    def parse(cls, given: Mapping[str, Any], *, source: str = "") -> Sweep:
        """Check a mapping of keys to values or texts. Raises UsageError in one sentence; `source` names a file."""
        place = f"{source}: " if source else ""
        for key in given:
            if key not in cls.model_fields:
                raise UsageError(place + unknown("key", str(key), cls.model_fields))
        try:
            sweep = cls.model_validate(given := foreign.named(given))
            changes: dict[str, Any] = {
                "metrics": chosen_metrics(sweep.metrics, ranks=sweep.sequence_parallel, named="metrics" in given)
            }
            if sweep.scope == ("model",) and not sweep.m:
                changes["m"] = (ANCHORS,)
            if sweep.scope == ("model",) and "n" in given and "resolution" not in given:
                changes["resolution"] = ()  # of models of others, which take token counts, too
            return sweep.model_copy(update=changes)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            if name in NUMBERS:
                raise UsageError(f"{place}{name} takes {NUMBERS[name]}, not {brief(repr(first['input']))}") from None
            why = brief(first["msg"].removeprefix("Value error, "), 400)
            got = "" if first["type"] == "value_error" else f", not {brief(repr(first['input']))}"
            raise UsageError(f"{place}{brief(name)}: {why[0].lower()}{why[1:]}{got}") from None

    def to_toml(self) -> str:
        """The sweep as TOML that `from_toml` reads back equal."""
        lines = []
        for name, value in self.model_dump(mode="json", exclude={"set"}).items():
            if name == "batch":
                value = ["max" if size == LARGEST_BATCH else size for size in value]
            if name != "resolution" or value:
                lines.append(f"{name} = {_toml(value)}")
        if self.set:
            lines.append("\n[set]")
            lines += [f"{_toml(key)} = {_toml(settings.typed(several))}" for key, several in self.set.items()]
        return "\n".join(lines) + "\n"

    def bottlenecks(self, n: int) -> tuple[int, ...]:
        """The m at n keys: those chosen; by default 64, or the largest power of two below n where that is less."""
        return self.m or (usual_m(n),)


DEFAULTS = {name: field.default for name, field in Sweep.model_fields.items()}


def read_toml(path: Path, *, of_run: bool = False) -> dict[str, Any]:
    """The keys of a sweep file. Raises UsageError naming the file and the line. `[set]` may nest: anchor.init = ...

    of_run: it is found in a run's folder, not named by the user, so no link or pipe is followed.
    """
    try:
        document = parse_toml(opening.read(path, most=MOST_TOML_BYTES, links=not of_run, pipes=not of_run))
    except FileNotFoundError:
        raise UsageError(f"sweep file {path}: no such file") from None
    except OSError as error:
        raise UsageError(f"sweep file {path} cannot be read: {reason(error)}") from None
    except Damaged as error:
        raise UsageError(f"sweep file {path} is not valid TOML: {error}") from None
    for key in document:
        if key not in Sweep.model_fields:
            raise UsageError(f"sweep file {path}: {unknown('key', key, Sweep.model_fields)}")
    if isinstance(document.get("set"), dict):
        nested = document["set"]
        document["set"] = {
            (f"{key}.{inner}" if inner else key): text
            for key, value in nested.items()
            for inner, text in (value.items() if isinstance(value, dict) else [("", value)])
        }
    return document


def expand(sweep: Sweep, catalogue: Mapping[str, Any], *, device: str) -> tuple[list[Case], list[str]]:
    """The cases of a sweep, backends still open, and warnings. Raises UsageError for names that do not exist.

    A sweep that names no variants takes all but the floor. Exact variants have one case per n. Whether a bottleneck
    m ≥ n can be is for the variant to say, as whether it can do a problem; the default m stays below n.
    """
    shapes.check_axes(sweep)
    dtypes = _unique(("float32" if device == "cpu" else "bfloat16") if d == "auto" else d for d in sweep.dtype)
    asked, catalogue = foreign.attention(sweep, catalogue)
    if sweep.sequence_parallel > 1:
        asked = sharable(sweep.attention, catalogue, ranks=sweep.sequence_parallel, scope=sweep.scope, n=sweep.n)
    for name in asked:
        variant, _, backend = name.partition(":")
        if variant not in catalogue:
            raise UsageError(unknown("attention", variant, catalogue))
        if backend not in ("", *catalogue[variant]["backends"]) or name.endswith(":"):
            raise UsageError(unknown(f"backend of {variant}", backend, catalogue[variant]["backends"]))
    asked = layers.each(asked, catalogue)
    options = settings.chosen(sweep.set, catalogue, asked, scope=sweep.scope, most=MOST_CASES)
    sized = {scope: shapes.of(sweep, scope, DEFAULTS) for scope in sweep.scope}
    axes = (sweep.m, sweep.phase, dtypes, sweep.batch, sweep.causal, sweep.kv_heads, sweep.kv_tokens)
    several = sum(len(options[name.partition(":")[0]]) for name in asked)
    count = several * math.prod(len(axis) or 1 for axis in axes) * sum(map(len, sized.values()))
    if count > MOST_CASES:
        raise UsageError(f"the axes multiply to {count} cases; at most {MOST_CASES}: give fewer values")
    found, warnings = problems_at([(h, n) for own in sized.values() for h, _, n, _ in own], asked_problems(sweep))
    cases: list[Case] = []
    adapted: set[tuple[int, int]] = set()
    for name in asked:
        variant, _, backend = name.partition(":")
        bottlenecked = layers.has_bottleneck(catalogue[variant], backend)
        for scope, phase, dtype, b in product(sweep.scope, sweep.phase, dtypes, sweep.batch):
            for (h, d, n, told), own in product(sized[scope], options[variant]):
                if variant == AS_IS and not is_foreign(told["model"]):
                    continue
                for problem in found[h, n]:
                    keys = min(n, problem.kv_tokens or n)
                    ms = sweep.bottlenecks(keys) if bottlenecked else (None,)
                    adapted |= {(keys, m) for m in ms if m is not None and not sweep.m and m != USUAL_M}
                    cases += [
                        Case(
                            attention=variant, backend=backend, scope=scope, phase=phase, b=b, h=h, n=n, d=d, m=m,
                            dtype=shapes.precision(dtype, told, sweep), device=device, seed=sweep.seed,
                            options=canonical_options({**own, **told, **problem.options}),
                        )
                        for m in ms
                    ]  # fmt: skip
    return list(dict.fromkeys(cases)), [*warnings, *adapted_m(adapted)]


def _encodable(texts: Iterable[str]) -> None:
    for text in texts:
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # how Python takes in bytes that are no UTF-8
            raise ValueError(f"{brief(repr(text))} is not valid UTF-8")


def _toml(value: Any) -> str:
    """JSON is TOML but for two things: letters stand for themselves, and DEL is escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _words(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _unique(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))
