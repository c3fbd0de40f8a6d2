"""The case and the row: what is measured, and one measured figure. No torch here.

    case = Case(attention="anchor", backend="sdpa", scope="core", phase="forward", b=1, h=6, n=4096, d=64, m=64, ...)
    row = Row.of(case, metric="latency", value=1.7, ...)      # one line of measurements.csv

The columns of measurements.csv are the fields of Row, in order.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from harness.store.problem import PROBLEM_KEYS, Problem

SCHEMA = 1
PHASES = ("forward", "backward", "train", "step")
SCOPES = ("core", "layer", "model")
MODEL_KEYS = ("model", "resolution")  # what `options` holds in scope model beside the variant's own
SWITCHES = ("compile", "amp")  # and these, where they are on
DTYPES = ("float32", "bfloat16", "float16", "float64")
DTYPE_WORDS = {  # what people call them
    "fp32": "float32", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp64": "float64",
    "double": "float64",
}  # fmt: skip
STATUSES = ("ok", "oom", "timeout", "unsupported", "unavailable", "error")

UNITS = {
    "latency": "ms",
    "host": "ms",
    "first_call": "ms",
    "throughput": "tokens/s",
    "flops": "FLOP",
    "flops_rate": "TFLOP/s",
    "peak_memory": "MiB",
    "bytes_moved": "MiB",
    "roofline_fraction": "1",
    "kernels": "1",
    "energy": "J",
    "numeric_error": "1",
    "approximation_error": "1",
    "params": "1",
}
# Of cases that several processes share (harness.cases.sharing); no other sweep asks for them.
RANK_UNITS = {"bytes_sent": "MiB", "scaling_efficiency": "1"}
# Of trained models (harness.vision), so no sweep asks for them: shares in 0 … 1, and errors, from 0.
# map_small … large: COCO's areas.
TASK_UNITS = dict.fromkeys(
    ("top1", "top5", "map", "map50", "map75", "map_small", "map_medium", "map_large", "miou", "relative_l2", "loss"),
    "1",
)
LESS_IS_BETTER = ("relative_l2", "loss")  # of those

TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One point of a sweep: a variant's backend at one size, in one phase, on one device.

    backend is empty while it has not been resolved; m is None for variants without one; options is canonical text.
    """

    attention: str
    backend: str
    scope: str
    phase: str
    b: int
    h: int
    n: int
    d: int
    m: int | None
    dtype: str
    device: str
    options: str = ""
    seed: int = 0

    @property
    def case_id(self) -> str:
        """Twelve hexadecimal digits that name this case in every run: a hash of its fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def variant_options(self) -> dict[str, str]:
        """The variant's own options, as text."""
        given = parse_options(self.options)
        taken = (*PROBLEM_KEYS, *((*MODEL_KEYS, *SWITCHES) if self.scope == "model" else ()))
        return {k: v for k, v in given.items() if k not in taken}

    @property
    def model_options(self) -> dict[str, str]:
        """The model and resolution of a case of scope model, and what is switched on; empty for the others."""
        given = parse_options(self.options)
        return {k: v for k, v in given.items() if self.scope == "model" and k in (*MODEL_KEYS, *SWITCHES)}

    @property
    def core_phase(self) -> str:
        """The phase that an attention core of the case is in: a step of training is forward and backward for it."""
        return "train" if self.phase == "step" else self.phase

    @property
    def is_of_tokens(self) -> bool:
        """Whether it takes tokens, as cores, layers and language models do, and no images."""
        if self.scope != "model":
            return True
        given = self.model_options
        return "model" in given and "resolution" not in given

    def is_on(self, switch: str) -> bool:
        """Whether a model is measured with one of SWITCHES."""
        return self.model_options.get(switch) == "true"

    @property
    def problem(self) -> Problem:
        """Causal, grouped or cross attention, or none of them."""
        return Problem.of(parse_options(self.options), h=self.h, n=self.n)

    @property
    def key_heads(self) -> int:
        """Heads of k and v."""
        return self.problem.kv_heads or self.h

    @property
    def key_tokens(self) -> int:
        """Tokens of k and v."""
        return self.problem.kv_tokens or self.n

    @property
    def label(self) -> str:
        """`anchor:sdpa`, or `anchor` while the backend is open."""
        return f"{self.attention}:{self.backend}" if self.backend else self.attention

    def __str__(self) -> str:
        m = f" m={self.m}" if self.m is not None else ""
        options = f" {self.options}" if self.options else ""
        shape = f"n={self.n}{m} b={self.b} h={self.h} d={self.d}"
        return f"{self.label} {shape} {self.dtype} {self.phase} {self.scope} {self.device}{options}"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One metric of one case as measured: a value with its interval and spread, or a status that says why not."""

    metric: str
    value: float | int | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p20: float | None = None
    p80: float | None = None
    samples: int | None = None
    status: str = "ok"
    note: str = ""

    def per(self, amount: float, *, metric: str, note: str = "") -> Reading:
        """`amount` divided by this reading, as a rate: the ends of its interval and spread change places."""

        def over(figure: float | None) -> float | None:
            return amount / figure if figure else None

        return Reading(
            metric=metric, value=over(self.value), ci_low=over(self.ci_high), ci_high=over(self.ci_low),
            p20=over(self.p80), p80=over(self.p20), samples=self.samples, note=note,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of measurements.csv: one metric of one case. None is written as an empty cell: not applicable."""

    run_id: str
    case_id: str
    time_utc: str
    machine: str
    commit: str
    attention: str
    backend: str
    scope: str
    phase: str
    b: int
    h: int
    n: int
    d: int
    m: int | None
    dtype: str
    device: str
    options: str
    seed: int
    metric: str
    unit: str
    value: float | int | None
    ci_low: float | None
    ci_high: float | None
    p20: float | None
    p80: float | None
    samples: int | None
    status: str
    note: str

    @classmethod
    def of(
        cls, case: Case, reading: Reading, *, run_id: str, machine: str, commit: str, time_utc: str
    ) -> Row:  # fmt: skip
        """The row of one reading of one case."""
        return cls(
            run_id=run_id, case_id=case.case_id, time_utc=time_utc, machine=machine, commit=commit,
            unit=unit_of(reading.metric, images=not case.is_of_tokens), **asdict(case), **asdict(reading),
        )  # fmt: skip

    def cells(self) -> list[str]:
        """The row as CSV cells: full precision, empty for None, text that a spreadsheet would run made inert."""
        return [cell(getattr(self, name)) for name in COLUMNS]


COLUMNS = tuple(field.name for field in fields(Row))
SAMPLE_COLUMNS = ("case_id", "metric", "index", "value")


def new_run_id() -> str:
    """`20260131T120000Z-6c3b6e`: the UTC second and six random digits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def unit_of(metric: str, *, images: bool) -> str:
    """The unit of a metric: UNITS', but the throughput of a model of images is in those."""
    return "img/s" if images and metric == "throughput" else (UNITS | RANK_UNITS | TASK_UNITS).get(metric, "1")


def merit(metric: str, value: float) -> float:
    """A trained model's figure so that more is better: negated where less is."""
    return -value if metric in LESS_IS_BETTER else value


def cell(value: Any) -> str:
    """One CSV cell: repr for floats (shortest text that reads back equal), '' for None, formulas quoted by a '.

    Line breaks and other control characters become spaces, so that a row is a line for every reader.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(float(value))
    text = CONTROLS.sub(" ", str(value)).encode("utf-8", "replace").decode()
    return f"'{text}" if isinstance(value, str) and text.lstrip().startswith(FORMULA_STARTS) else text


def dtype_named(word: str) -> str:
    """`float16` of fp16 or half; another word as it is."""
    return DTYPE_WORDS.get(word.lower(), word)


def canonical_options(options: Mapping[str, Any]) -> str:
    """Options as sorted `key=value;key=value`, True and False in lower case: equal options give equal text."""
    told = {key: str(value).lower() if isinstance(value, bool) else value for key, value in options.items()}
    return ";".join(f"{key}={told[key]}" for key in sorted(told))


def off_default(parsed: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Parsed options that are not at their defaults: named or left out, such an option is the same case.

    Here and no method of a Spec: the gate measures older attentions by this harness, which may ask of theirs only what
    every Spec has had.
    """
    return {name: value for name, value in parsed.items() if value != defaults[name]}


def stated(options: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Options as rows write them without those at their defaults: named or left out, they are the same case."""
    return {key: value for key, value in options.items() if key not in defaults or not alike(value, defaults[key])}


def alike(one: str, other: str) -> bool:
    """Whether two texts are one value of an option: 1 and 1.0, True and yes."""
    low = one.lower(), other.lower()
    if one == other or {"true", "false"}.isdisjoint(low):
        return one == other or _same_number(one, other)
    return low[0] in TRUTHS and TRUTHS[low[0]] == TRUTHS.get(low[1])


def _same_number(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def parse_options(text: str) -> dict[str, str]:
    """The inverse of canonical_options, values as text; one may hold a ;. Raises ValueError for no key=value."""
    found: dict[str, str] = {}
    name = ""
    for part in text.split(";") if text else ():
        key, equals, value = part.partition("=")
        if equals:
            name, found[key] = key, value
        elif name:
            found[name] += f";{part}"
        else:
            raise ValueError(f"{part!r} is no key=value")
    return found
