"""A recommendation as plain data, as `harness recommend --json` prints it.

json.dumps(as_json(answer), allow_nan=False)
"""

from __future__ import annotations

from typing import Any

from harness.answers.candidates import Candidate, Ratio
from harness.answers.recommend import Answer


def as_json(answer: Answer) -> dict[str, Any]:
    """An answer as a JSON object: times in ms, memory in MiB, null for what is not known."""
    exact, beside = answer.exact, answer.beside
    return {
        "setting": dict(answer.setting),
        "by": answer.wish.by,
        "headline": answer.headline,
        "lines": [text for text, _ in answer.lines],
        "reasons": answer.reasons,
        "unknown": answer.unknown,
        "choice": _as_data(answer.choice),
        "best_exact": _as_data(answer.best_exact),
        "best_other": _as_data(answer.best_other),
        "best_exact_over_best_other": _ratio_as_data(beside[1] if beside else None),
        "kept": answer.kept,
        "known": [answer.known.as_data(one) for one in answer.reached],
        "runner_up": _as_data(answer.runner_up),
        "runner_up_over_choice": _ratio_as_data(answer.margin),
        "fastest_exact": _as_data(exact[0]) if exact else None,
        "fastest_exact_over_choice": _ratio_as_data(exact[1]) if exact else None,
        "ranking": [_as_data(candidate) for candidate in answer.ranking],
        "refused": [{**(_as_data(one.candidate) or {}), "reasons": list(one.reasons)} for one in answer.refused],
        "failed": [
            {"attention": one.attention, "m": one.m, "status": one.status, "note": one.note} for one in answer.failed
        ],
    }


def _as_data(one: Candidate | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "attention": one.attention, "backend": one.backend, "label": one.label, "m": one.m, "exact": one.exact,
        "different": one.different, "options": one.options,
        "latency_ms": one.time.ms, "ci_low_ms": one.time.low, "ci_high_ms": one.time.high, "samples": one.samples,
        "approximation_error": one.error, "peak_memory_mib": one.memory, "interpolated_between": one.between,
        "interpolation_misses_by": one.miss, "contended": one.contended, "run_id": one.run_id,
    }  # fmt: skip


def _ratio_as_data(of: Ratio | None) -> dict[str, float | None] | None:
    return None if of is None else {"ratio": of.value, "ci_low": of.low, "ci_high": of.high}
