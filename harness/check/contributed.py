"""What a run of somebody else must pass: it is what it says, its figures agree, nothing in it cannot be. No torch.

for fault in faults(Path("results/cpu/sweep")): print(fault)      # "throughput: … of anchor n=4096 …"

Nothing is measured again: a figure is held against its raw samples, against the other figures of its case and against
the ceilings that the run measured. A run that passes may still be wrong; one that does not is.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import stats
from harness.check.judged import EXACTLY, Judged, case_of, numbers, of, same
from harness.machine.quiet import CANARY_BAD
from harness.store import runs as store
from harness.store.ceilings import ABOVE_COPY, NARROW, TOLERATED
from harness.store.contention import TIMED, reason, suspects
from harness.store.documents import part
from harness.store.record import unit_of
from harness.store.rows import LEFT_OUT, RowsLeftOut, is_there

ABOUT = 1.5  # a resumed or merged run has measured its ceilings more than once
# From a slow board to the fastest processor and accelerator of this time, each with room for several generations.
COPY_GB_PER_S = {"cpu": (0.05, 5e3), "cuda": (5.0, 5e4)}
MATMUL_TFLOPS = {"cpu": (1e-5, 1e3), "cuda": (1e-2, 5e4)}
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?Z")
SAMPLED = ("latency", "host")
FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that fails, and how many figures do so; told: of the first of them."""

    check: str
    told: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.check}: {self.told}" + (f" (and {self.count - 1} more)" if self.count > 1 else "")


def faults(folder: Path) -> list[Fault]:
    """Everything that fails, in the order of CHECKS; nothing for a run that passes. Raises StoreError for no run.

    A run that cannot be read at all fails as a whole.
    """
    if not is_there(folder / store.MEASUREMENTS) and not folder.is_file():
        raise store.StoreError(f"{folder} is not a run: it has no {store.MEASUREMENTS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RowsLeftOut)  # they are faults
            return _faults(Judged.of(folder))
    except store.StoreError as error:
        return [Fault(check="schema", told=str(error))]


def _faults(run: Judged) -> list[Fault]:
    found = []
    for name, check in CHECKS.items():
        told = list(check(run))
        if told and name in BY_FIGURE:
            found.append(Fault(check=name, told=told[0], count=len(told)))
        else:
            found += [Fault(check=name, told=text) for text in told]
    return found


def schema(run: Judged) -> Iterator[str]:
    """The files are those of a run, every row can be read, and says which run, when and where."""
    if run.frame.empty:
        yield "it holds no rows"
    for text in run.frame.attrs.get(LEFT_OUT, ()):
        yield f"a row cannot be read: {text}"
    for text in run.kept.attrs.get(LEFT_OUT, ()):
        yield f"a sample cannot be read: {text}"
    for name in ("schema", "run_id", "machine", "commit", "environment"):
        if not run.environment.get(name):
            yield f"{store.ENVIRONMENT} does not tell {name}"
    for name in ("run_id", "machine", "commit"):
        if (run.frame[name] == "").any():
            yield f"{int((run.frame[name] == '').sum())} rows do not tell {name}"
    wrong = [text for text in run.frame["time_utc"] if not UTC.fullmatch(text)]
    if wrong:
        yield f"{len(wrong)} rows have no time in UTC, such as {wrong[0]!r}"
    known = {run.environment.get("machine"), *part(run.environment, "machines")}
    for machine in sorted({row.machine for row in run.ok(TIMED)} - known):
        yield f"{store.ENVIRONMENT} says nothing of the machine {machine}, on which times were taken"


def identity(run: Judged) -> Iterator[str]:
    """A case's id is the hash of its fields, and a metric stands once in a case."""
    seen = set()
    for row in run.frame.itertuples(index=False):
        if (key := (row.machine, row.case_id, row.metric)) in seen:
            yield f"{row.metric} of {of(row)} stands there twice"
        seen.add(key)
    for case in run.cases:
        row = next(iter(case.values()))
        if (meant := case_of(row).case_id) != row.case_id:
            yield f"{of(row)} is called {row.case_id}, and its fields say {meant}"


def units(run: Judged) -> Iterator[str]:
    """Each metric in its unit, and finite where it is ok."""
    for row in run.frame.itertuples(index=False):
        if row.unit != (meant := unit_of(row.metric, images=not case_of(row).is_of_tokens)):
            yield f"{row.metric} of {of(row)} is in {row.unit!r}, not {meant!r}"
        if row.status == "ok" and not math.isfinite(row.value):
            yield f"{row.metric} of {of(row)} is ok and has no finite value"
        if row.status != "ok" and not row.note:
            yield f"{row.metric} of {of(row)} is {row.status} and does not say why"
        if row.status == "ok" and row.metric in (*TIMED, "flops", "bytes_moved") and not row.value > 0:
            yield f"{row.metric} of {of(row)} is {row.value}"


def samples(run: Judged) -> Iterator[str]:
    """A time is the median of its raw samples with the interval of their order statistics; a contended one holds it."""
    cases = {row.case_id for case in run.cases for row in case.values()}
    for case_id in sorted({case_id for case_id, _ in run.samples} - cases):
        yield f"there are raw samples of a case {case_id} that has no row"
    for row in run.ok(SAMPLED):
        raw = run.samples.get((row.case_id, row.metric), np.empty(0))
        count = run.count(row)
        if len(raw) != count:
            yield f"{row.metric} of {of(row)} is of {count} samples; {store.SAMPLES} holds {len(raw)}"
        elif not (np.isfinite(raw).all() and (raw > 0).all()):
            yield f"{row.metric} of {of(row)} has samples that are no times"
        else:
            told = stats.summarise(raw)
            if not same(row.value, told.median):
                yield f"{row.metric} of {of(row)} is {row.value:.6g}; the median of its samples is {told.median:.6g}"
            widened = bool(reason(row.note))
            ends = (row.ci_low, told.ci_low), (row.ci_high, told.ci_high)
            held = row.ci_low <= told.ci_low * (1 + EXACTLY) and row.ci_high >= told.ci_high * (1 - EXACTLY)
            if not (held if widened else all(same(*pair) for pair in ends)):
                yield (
                    f"{row.metric} of {of(row)} goes from {row.ci_low:.6g} to {row.ci_high:.6g}; the 95 % interval of "
                    f"its samples from {told.ci_low:.6g} to {told.ci_high:.6g}"
                )


def agreement(run: Judged) -> Iterator[str]:
    """Throughput, FLOP rate and roofline fraction are what FLOPs, bytes, ceilings and the latency make of them."""
    for case in run.cases:
        held = run.figures(case)
        row = next(iter(case.values()))
        if "latency" not in held:
            continue
        latency = held["latency"]
        items = row.b * (row.n if case_of(row).is_of_tokens else 1)
        if "throughput" in held and not same(held["throughput"] * latency / 1e3, items):
            yield f"throughput of {of(row)} is {held['throughput']:.6g}, not {items} a call of {latency:.6g} ms"
        useful = held["flops_rate"] * latency * 1e9 if "flops_rate" in held else math.inf
        if useful < math.inf and "flops" in held:  # of the definition: its backend may execute more
            whole = abs(useful - round(useful)) <= max(0.5, EXACTLY * useful)
            if not whole or useful > held["flops"] * (1 + EXACTLY):
                yield f"flops_rate of {of(row)} means {useful:.6g} FLOP a call; flops says {held['flops']:.6g}"
        copy, rate = run.rates(row)
        if useful < math.inf and {"roofline_fraction", "bytes_moved"} <= held.keys() and copy and rate:
            least = max(held["bytes_moved"] * 2**20 / copy / 1e6, useful / rate / 1e9)
            found = held["roofline_fraction"] * latency
            if not 1 / ABOUT <= found / least <= ABOUT:
                yield f"roofline_fraction of {of(row)} means a least of {found:.4g} ms; the ceilings give {least:.4g}"


def one_definition(run: Judged) -> Iterator[str]:
    """Backends of one variant do the same FLOPs for the definition and move the same bytes at the least."""
    found: dict[tuple[Any, ...], tuple[float, float, Any]] = {}
    for case in run.cases:
        held = run.figures(case)
        row = next(iter(case.values()))
        if not {"flops_rate", "latency", "bytes_moved"} <= held.keys():
            continue
        key = (row.attention, row.scope, row.phase, row.b, row.h, row.n, row.d, str(row.m), row.dtype, row.options)
        told = (held["flops_rate"] * held["latency"] * 1e9, held["bytes_moved"], row)
        first = found.setdefault(key, told)
        if not (same(first[0], told[0]) and same(first[1], told[1])):
            yield f"{of(row)} and {of(first[2])} are one definition; their FLOPs or least bytes differ"


def ceilings(run: Judged) -> Iterator[str]:
    """The ceilings are such as a device can have, and there where a figure is read against them."""
    held = [(machine, {"ceilings": own}) for one in run.sessions for machine, own in part(one, "ceilings").items()]
    for name, place in [("", run.environment), *part(run.environment, "places").items(), *held]:
        where = f" of {name}" if name else ""
        for device, own in part(place, "ceilings").items():
            kind = device.partition(":")[0]
            (slow, fast), (low, high) = (limits.get(kind, (0.0, math.inf)) for limits in (COPY_GB_PER_S, MATMUL_TFLOPS))
            for copy in numbers([own.get("copy_gb_per_s")]):
                if not slow <= copy <= fast:
                    yield f"a copy on {device}{where} of {copy:.4g} GB/s is none that a device has"
            for dtype, rate in part(own, "matmul_tflops").items():
                if not low <= rate <= high:
                    yield f"a product in {dtype} on {device}{where} of {rate:.4g} TFLOP/s is none that a device has"
    rows = run.ok(("roofline_fraction",))
    without = {(row.device, row.dtype) for row in rows if run.rates(row)[1] is None}
    for device, dtype in sorted(without):
        yield f"there are roofline fractions in {dtype} on {device} and no ceilings"


def possible(run: Judged) -> Iterator[str]:
    """No call is quicker than its FLOPs and the bytes beyond the cache allow."""
    for case in run.cases:
        held = run.figures(case)
        row = next(iter(case.values()))
        copy, rate = run.rates(row)
        if not {"latency", "flops_rate", "bytes_moved"} <= held.keys() or not copy or not rate:
            continue
        latency, moved, kind = held["latency"], held["bytes_moved"] * 2**20, row.device.partition(":")[0]
        useful = held["flops_rate"] * latency * 1e9
        beyond = max(0.0, moved - run.cache_bytes(row)) / (copy * ABOVE_COPY.get(kind, 1.0)) / 1e6
        if kind == "cpu" and row.dtype in NARROW:
            rate = max(rate, run.rates(row, dtype="float32")[1] or 0.0)
        tensor_float = kind == "cuda" and row.dtype == "float32"  # may pass through TF32, whose ceiling is not stored
        least = max(beyond, 0.0 if tensor_float else useful / rate / 1e9)
        if least > TOLERATED * latency:
            yield f"{of(row)} took {latency:.4g} ms, and its device needs {least:.4g} ms at least"


def quiet(run: Judged) -> Iterator[str]:
    """Every case that its session calls contended is marked, and no canary was slow beside nothing."""
    named: set[str] = set(suspects(run.environment))
    for session in run.sessions:
        contended = session.get("contended_cases")
        named |= set(part(session, "contended_cases"))
        looks = run.canaries(session)
        if len(looks) < FEWEST:
            continue
        if isinstance(contended, dict):
            slow = max(looks[:-1]) / min(looks)  # the last is after the last case
            again = session.get("cases_taken_again") or part(session, "seconds").get("again")  # or the ceilings were
            told = contended or session.get("suspect_cases") or again
            if slow > CANARY_BAD and not told:
                yield f"the canary took {slow:.3g}× its best, and no case is marked or was taken again"
        elif (slow := float(np.median(looks)) / min(looks)) > CANARY_BAD:  # from before cases were judged one by one
            yield f"half of its canaries took {slow:.3g}× the best or more, and no case is marked"
    marked = {row.case_id for row in run.frame.itertuples(index=False) if reason(row.note)}
    for case_id in sorted((named & {row.case_id for row in run.ok(TIMED)}) - marked):
        yield f"case {case_id} was disturbed, and its rows are not marked contended"


CHECKS: dict[str, Callable[[Judged], Iterator[str]]] = {
    "schema": schema, "identity": identity, "units": units, "samples": samples, "agreement": agreement,
    "one definition": one_definition, "ceilings": ceilings, "possible": possible, "quiet": quiet,
}  # fmt: skip
BY_FIGURE = ("identity", "units", "samples", "agreement", "one definition", "possible", "quiet")  # told once, counted
