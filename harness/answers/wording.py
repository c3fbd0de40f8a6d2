"""How the figures and the doubts of a recommendation are put into words.

told(candidate)            # "8.00 ms (7.93 to 8.07)"
doubts(candidate)          # what its figures do not say: that it approximates, was interpolated, rests on little
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.answers.candidates import Candidate, Failed, Ratio
from harness.store import problem

FEW_SAMPLES, WIDE_INTERVAL = 10, 0.1


def told(candidate: Candidate) -> str:
    """`8.00 ms (7.93 to 8.07)`."""
    time = candidate.time
    interval = f" ({figure(time.low)} to {figure(time.high)})" if time.low is not None else ""
    return f"{figure(time.ms)} ms{interval}"


def times(of: Ratio) -> str:
    """`1.69× the time (1.63 to 1.75)`."""
    interval = f" ({figure(of.low)} to {figure(of.high)})" if of.low is not None else ""
    return f"{figure(of.value)}× the time{interval}"


def figure(value: float | None) -> str:
    """Three digits or more, never with an exponent between 0.001 and a million: 0.0123, 8.00, 3807."""
    if value is None or not math.isfinite(value):
        return "?"
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def error_of(candidate: Candidate) -> str:
    """Its approximation error, or unknown."""
    return "unknown" if candidate.error is None else figure(candidate.error)


def reason_of(failed: Failed) -> str:
    """`timeout: no result after 60 s`."""
    note = failed.note.split(";")[0]
    return f"{failed.status}: {note[:80]}" if note else failed.status


def doubts(choice: Candidate) -> list[str]:
    """What the figures of a choice leave open, the most important first."""
    return [*_approximates(choice), *_interpolated(choice), *_thin(choice)]


def holds_for(setting: Mapping[str, Any]) -> str:
    """The machine and the kind of case that an answer holds for."""
    shape = f"b={setting['b']} h={setting['h']} d={setting['d']}"
    asked = setting.get("problem", problem.DEFAULT)
    kind = "without causality or masks" if asked == problem.DEFAULT else f"{asked}, without other masks"
    errors = (
        " Errors are of the forward pass of the core."
        if setting["phase"] != "forward" or setting["scope"] != "core"
        else ""
    )
    return (
        f"It holds for {setting['machine']} ({setting['device']}), {setting['phase']}, {setting['dtype']}, {shape}, "
        f"{kind}; other machines may rank otherwise.{errors}"
    )


def _approximates(choice: Candidate) -> list[str]:
    if choice.exact:
        return []
    size = (
        "how far its output is from softmax attention was not measured"
        if choice.error is None
        else f"on random inputs its output differs from softmax attention's by {figure(choice.error)} of the norm"
    )
    judged = (
        "; it is no estimate of that, so the figure judges nothing"
        if choice.different and choice.error is not None
        else ""
    )
    return [
        f"{choice.name} computes something else: {size}{judged}. What that costs on your task is not known from this."
    ]


def _interpolated(choice: Candidate) -> list[str]:
    if choice.between is None:
        return []
    check = (
        "there is no third point to check that against"
        if choice.miss is None
        else f"that misses its own measured points by up to {100 * (choice.miss - 1):.0f} %, which the interval holds"
    )
    low, high = choice.between
    return [f"Its time is interpolated between n = {low} and {high} by a power law, not measured; {check}."]


def _thin(choice: Candidate) -> list[str]:
    half, count = choice.time.half_width, choice.samples
    if choice.between is None and half is not None and half > WIDE_INTERVAL:
        taken = f", from {count} samples" if count is not None else ""
        return [f"Its interval is wide: ±{100 * half:.0f} %{taken}."]
    if choice.between is None and count is not None and count < FEW_SAMPLES:
        return [f"It rests on {count} sample{'s' if count > 1 else ''} of its latency."]
    return []
