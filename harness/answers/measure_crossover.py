"""Measures a crossover: gives harness.answers.crossover the A/B ratio at each n it asks for. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from harness.answers.crossover import Crossover, Probe, compare, find, one_sided
from harness.cases.sharing import one_process
from harness.cases.space import Sweep, expand, sizes
from harness.engines.local import Engine, WorkerLost
from harness.engines.watch import Watch
from harness.errors import Failure, UsageError
from harness.measuring.requests import PairFailure
from harness.store.record import Case
from harness.sweep.conduct import check_names, memory_refusal

SINGLE = ("m", "batch", "heads", "head_dim", "causal", "kv_heads", "kv_tokens", "dtype", "phase", "scope")


def measure(
    given: Mapping[str, Any], a: str, b: str, *, low: str, high: str, say: Callable[[str], None] = lambda line: None
) -> tuple[Crossover, str]:
    """The crossover of A against B and the device it holds for. `given` fixes all but n; say: told each probe."""
    for name in ("attention", "n"):
        if name in given:
            raise UsageError(f"crossover chooses {name} itself; leave --{name} out and use A, B, --low and --high")
    first, last = (_size(name, text) for name, text in (("low", low), ("high", high)))
    if first >= last:
        raise UsageError(f"--low {low} must be below --high {high}")
    if a == b or any("," in name or not name.strip() for name in (a, b)):
        raise UsageError(f"crossover compares two different variants, such as anchor flash, not {a!r} and {b!r}")
    sweep = Sweep.parse({**given, "attention": [a, b], "n": [last]})  # which the default m is below
    one_process(sweep.sequence_parallel, "harness crossover")
    for name in SINGLE:
        if len(getattr(sweep, name)) > 1:
            raise UsageError(f"crossover compares one size at a time: give one --{name.replace('_', '-')}")
    for key, values in sweep.set.items():
        if len(values) > 1:
            raise UsageError(f"crossover compares one size at a time: give one --set {key}")
    if any(sweep.causal) and sweep.kv_tokens:
        raise UsageError("--causal with --kv-tokens leaves open which token sees which; ask for one of them")
    if sweep.scope == ("model",):
        raise UsageError("crossover varies n, which a model takes from its resolution: give --scope core or layer")
    check_names(sweep)
    with Engine(plugins=sweep.plugin, device=sweep.device) as engine:
        session = engine.open()
        cases, warnings = expand(sweep, session["catalogue"], device=session["device"])
        for text in warnings:
            say(f"warning: {text}")
        pair = [next(case for case in cases if _names(case, name)) for name in (a, b)]
        for case in pair:  # who cannot do what is asked at any n has not lost
            if case.problem.keywords and not _able(case, session["catalogue"]):
                raise UsageError(f"{case.label} cannot be compared so: {engine.resolve([case])[0].note}")
        watch = Watch.of(engine, session, patience_s=sweep.patience)
        answer = find(lambda n: _probe(engine, sweep, pair, n, watch, say), low=first, high=last)
        return answer, session["device"]


def _able(case: Case, catalogue: Mapping[str, Any]) -> bool:
    return {*case.problem.keywords} <= {*catalogue[case.attention]["problems"]}


def _size(name: str, text: str) -> int:
    try:
        found = sizes(text, axis="n")
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from None
    if len(found) > 1:
        raise UsageError(f"--{name} takes one n, not {text!r}")
    return found[0]


def _names(case: Case, name: str) -> bool:
    variant, _, backend = name.strip().partition(":")
    return (case.attention, case.backend) == (variant, backend)


def _probe(engine: Engine, sweep: Sweep, pair: list[Case], n: int, watch: Watch, say: Callable[[str], None]) -> Probe:
    """Both at n in turns, again where the machine was not quiet."""
    resolutions = engine.resolve([replace(case, n=n) for case in pair])
    free = engine.free_bytes()
    reasons = [r.note if r.status != "ok" else memory_refusal(r, free) for r in resolutions]
    if any(reasons):
        notes = "; ".join(f"{r.case.label}: {why}" for r, why in zip(resolutions, reasons, strict=True) if why)
        for resolution in resolutions:
            if resolution.status == "unavailable":
                raise Failure(f"{resolution.case.label} cannot run here: {resolution.note}")
        return one_sided(n, a_runs=not reasons[0], b_runs=not reasons[1], note=notes)
    try:
        a, b = (r.case for r in resolutions)
        taken = watch.quietly(
            lambda: engine.pair((a, b), budget_s=sweep.budget, timeout_s=sweep.timeout),
            well=lambda answer: not isinstance(answer, PairFailure),
        )
        answer, verdict = taken.result, taken.verdict
    except WorkerLost as lost:
        raise Failure(f"at n = {n}: {lost.note}; a smaller --high may do") from None
    if isinstance(answer, PairFailure):
        which = answer.which
        note = f"{pair[which].label}: {answer.note}" if which is not None else answer.note
        if answer.status in ("oom", "unsupported") and which is not None:
            return one_sided(n, a_runs=which == 1, b_runs=which == 0, note=note)
        raise Failure(f"at n = {n}: {note}")
    reason, factor = (verdict.reason, verdict.factor) if verdict else ("", 1.0)
    probe = compare(answer.a, answer.b, n=n, contended=reason, factor=factor)
    beside = f"; contended: {reason}" if reason else ""
    say(f"n={n}: {probe.ratio:.3f} ({probe.low:.3f} to {probe.high:.3f}), {probe.winner}{beside}")
    return probe
