"""Tiers 0 and 1: what is the same in every run of one code, compared between base and head. Pure comparison.

findings = compare("anchor …", base=Facts(...), head=Facts(...))

An increase of FLOPs, kernels or peak bytes is a regression to the last digit: they do not vary. A decrease is ok,
unless it is too large to believe. Peak bytes and kernels depend on PyTorch's build too: compared within one build only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.check.verdict import Finding, Verdict
from harness.store.record import UNITS, Reading

METRICS = ("numeric_error", "flops", "peak_memory", "kernels")
TOOLCHAIN_BOUND = ("peak_memory", "kernels")
ERROR_FACTOR = 2.0
ERROR_FLOOR = {"float64": 4.4e-16, "float32": 2.4e-7, "float16": 2e-3, "bfloat16": 1.6e-2}  # two roundings
DEFINITION_TOLERANCE = 1e-9
IMPLAUSIBLE_BELOW = 0.2


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One side of a case: its readings by metric, its definition, its toolchain; or why it has none."""

    status: str = "ok"
    note: str = ""
    dtype: str = "float32"
    readings: Mapping[str, Reading] = field(default_factory=dict)
    definition: Mapping[str, Any] | None = None
    toolchain: str = ""


def compare(case: str, *, base: Facts | None, head: Facts | None) -> list[Finding]:
    """One finding a check. base or head is None where the case does not exist on that side."""
    if head is None:
        return [_integrity(case, "failed", "head does not have this case, base does: a variant or backend is gone")]
    if base is None:
        own = _own_failure(case, head)
        return own or [_integrity(case, "new", "base does not have this case: nothing to compare")]
    standing = _statuses(case, base, head)
    if standing:
        return standing
    figures = [_metric(case, metric, base, head) for metric in METRICS]
    return [_definition(case, base, head), *figures, *_output(case, base, head)]


def alone(case: str, head: Facts | None) -> list[Finding]:
    """What can be said of head without a base: that it works, or why not."""
    if head is None:
        return [_integrity(case, "failed", "there is no such variant, backend or option")]
    return _own_failure(case, head) or [_integrity(case, "ok", "every check has a figure; there is no base yet")]


def _own_failure(case: str, head: Facts) -> list[Finding]:
    if head.status == "error":
        return [_integrity(case, "failed", f"fails at head: {head.note}")]
    if head.status != "ok":
        return [_integrity(case, "not comparable", f"{head.status} here: {head.note}")]
    return [
        _finding(case, 1, name, "failed", f"has no figure at head: {reading.note}")
        for name, reading in head.readings.items()
        if reading.status != "ok"
    ]


def _statuses(case: str, base: Facts, head: Facts) -> list[Finding]:
    """What the statuses alone decide; empty when both sides have figures."""
    if head.status == "ok" and base.status == "ok":
        return []
    if head.status == "ok":
        return [_integrity(case, "new", f"base has no figures to compare with ({base.status}: {base.note})")]
    if base.status == "ok":
        return [_integrity(case, "failed", f"{head.status} at head, ok at base: {head.note}")]
    if head.status == base.status and head.status != "error":
        return [_integrity(case, "not comparable", f"{head.status} on both sides: {head.note}")]
    return [_integrity(case, "failed", f"{head.status} at head and {base.status} at base: {head.note}")]


def _definition(case: str, base: Facts, head: Facts) -> Finding:
    one, two = base.definition, head.definition
    if one is None or two is None:
        return _finding(case, 0, "definition", "failed", f"no definition at {'base' if one is None else 'head'}")
    if one["fields"] != two["fields"]:
        reason = "the declared definition changed (name, exactness, options, parameters' shapes or exponents)"
        return _finding(case, 0, "definition", "regressed", f"{reason}; --accept it if that is meant")
    pairs = [(one["size"], two["size"]), *zip(one["projections"], two["projections"], strict=True)]
    scale = max(abs(one["size"]), 1e-30)
    furthest = max(abs(a - b) for a, b in pairs) / scale
    if not furthest <= DEFINITION_TOLERANCE:
        return _finding(
            case, 0, "definition", "regressed",
            f"the reference computes something else: its float64 output or gradients moved by {furthest:.2g}, over "
            f"{DEFINITION_TOLERANCE:g}; --accept it if that is meant",
        )  # fmt: skip
    return _finding(case, 0, "definition", "ok", "the same fields, and the reference's values agree to 1e-9")


def _metric(case: str, name: str, base: Facts, head: Facts) -> Finding:
    one, two = base.readings.get(name), head.readings.get(name)
    for side, reading in (("head", two), ("base", one)):
        if reading is None or reading.status != "ok" or reading.value is None:
            note = reading.note if reading else "it was not measured"
            other = one if side == "head" else two
            verdict: Verdict = "failed" if side == "head" and other is not None and other.status == "ok" else "new"
            if one is not None and two is not None and one.status == two.status != "ok":
                verdict = "not comparable"
            return _finding(case, 1, name, verdict, f"no figure at {side}: {note}")
    assert one is not None
    assert two is not None
    before, after = float(one.value or 0), float(two.value or 0)
    if not math.isfinite(before) or not math.isfinite(after):
        return _finding(case, 0, name, "failed", f"not a finite number: {before} at base, {after} at head")
    if name in TOOLCHAIN_BOUND and base.toolchain != head.toolchain:
        reason = f"measured with another toolchain ({base.toolchain}; here {head.toolchain})"
        return _finding(case, 1, name, "not comparable", reason, before, after)
    verdict, reason = _error(before, after, head.dtype) if name == "numeric_error" else _amount(before, after)
    if name == "kernels" and verdict == "ok" and _noted(one, "sequence") != _noted(two, "sequence"):
        verdict, reason = (
            "changed",
            f"{reason}, but other ones or in another order; the other checks tell what it costs",
        )
    return _finding(case, 0 if verdict == "implausible" else 1, name, verdict, reason, before, after)


def _error(before: float, after: float, dtype: str) -> tuple[Verdict, str]:
    floor = ERROR_FLOOR[dtype]
    limit = max(ERROR_FACTOR * before, floor)
    if after > limit:
        return (
            "regressed",
            f"{after:.3g}, over the limit {limit:.3g}: twice base's {before:.3g}, or {dtype}'s {floor:g}",
        )
    return "ok", f"{after:.3g}, within the limit {limit:.3g}"


def _amount(before: float, after: float) -> tuple[Verdict, str]:
    if before > 0 and after < IMPLAUSIBLE_BELOW * before:
        reason = f"fell to {100 * after / before:.2g} % of base: no improvement to believe unseen; is it still counted?"
        return "implausible", reason
    if after > before:
        return "regressed", f"{after:g} at head, {before:g} at base: {_percent(before, after)} more"
    if after < before:
        return "ok", f"{_percent(after, before)} less than base's {before:g}" if after else "less than base"
    return "ok", f"{after:g} on both sides"


def _output(case: str, base: Facts, head: Facts) -> list[Finding]:
    """The output's shape and dtype, as the kernels reading noted them."""
    readings = [facts.readings.get("kernels") for facts in (base, head)]
    if not all(reading and reading.status == "ok" for reading in readings):
        return []  # the finding about kernels tells why
    sides = [_noted(reading, "output") for reading in readings if reading]
    if not all(sides):
        where = "base" if not sides[0] else "head"
        return [_finding(case, 0, "output", "failed", f"nothing is noted of the output's shape and dtype at {where}")]
    verdict: Verdict = "ok" if sides[0] == sides[1] else "regressed"
    reason = f"{sides[1]} on both sides" if verdict == "ok" else f"{sides[1]} at head, {sides[0]} at base"
    return [_finding(case, 1, "output", verdict, reason)]


def _noted(reading: Reading, key: str) -> str:
    found = re.search(rf"(?:^|; ){key}=([^;]*)", reading.note)
    return found.group(1).strip() if found else ""


def _percent(less: float, more: float) -> str:
    return f"{100 * (more / less - 1):.3g} %" if less else "from zero"


def _integrity(case: str, verdict: Verdict, reason: str) -> Finding:
    return _finding(case, 0, "presence", verdict, reason)


def _finding(
    case: str, tier: int, check: str, verdict: Verdict, reason: str, base: float | None = None,
    head: float | None = None,
) -> Finding:  # fmt: skip
    ratio = head / base if head is not None and base else None
    return Finding(
        case=case, tier=tier, check=check, verdict=verdict, reason=reason, base=base, head=head, ratio=ratio,
        unit=UNITS.get(check, ""), variant=case.split(" ", 1)[0].split(":", 1)[0],
    )  # fmt: skip
