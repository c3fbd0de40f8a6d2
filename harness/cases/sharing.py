"""Cases that P processes share, a part of the tokens each: which they are, and what their rows are called. No torch.

sharable(sweep.attention, catalogue, ranks=4, scope=("core",), n=(4096,))      # the variants that have such a form
shared(case, 4), alone(case)            # with sequence_parallel=4 in its options, and as one process has it
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.errors import UsageError
from harness.store.record import RANK_UNITS, Case, canonical_options, parse_options

OPTION = "sequence_parallel"
BACKEND = "parallel"
METRICS = ("latency", "throughput", *RANK_UNITS, "numeric_error")
MOST_RANKS = 1 << 14


def torchrun() -> tuple[int, int] | None:
    """(rank, ranks) where torchrun started this process, else None."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def is_follower() -> bool:
    """Whether this process of torchrun serves the one that runs the sweep."""
    found = torchrun()
    return found is not None and found[0] > 0


def started() -> int:
    """How many processes torchrun started; 1 without it."""
    found = torchrun()
    return found[1] if found else 1


def shared(case: Case, ranks: int) -> Case:
    """The case as rows of several ranks name it."""
    return replace(
        case, backend=BACKEND, options=canonical_options({**parse_options(case.options), OPTION: str(ranks)})
    )  # fmt: skip


def alone(case: Case, backend: str = "") -> Case:
    """The same case in one process."""
    given = {key: value for key, value in parse_options(case.options).items() if key != OPTION}
    return replace(case, backend=backend, options=canonical_options(given))


def chosen_metrics(metrics: tuple[str, ...], *, ranks: int, named: bool) -> tuple[str, ...]:
    """Those of a sweep over so many ranks, by default of its kind. Raises UsageError for one of the other kind."""
    if ranks == 1:
        wrong = [name for name in metrics if name in RANK_UNITS]
        if wrong:
            raise UsageError(f"metrics: {wrong[0]} is of several processes; add --sequence-parallel P")
        return metrics
    wrong = [name for name in metrics if name not in METRICS]
    if named and wrong:
        raise UsageError(
            f"metrics: {wrong[0]} is not measured with --sequence-parallel {ranks}; valid: {', '.join(METRICS)}"
        )
    return metrics if named else METRICS


def one_process(ranks: int, command: str) -> None:
    """Raise UsageError for a sweep over several ranks, which only `harness run` measures."""
    if ranks > 1:
        raise UsageError(f"{command} is of one process; leave {OPTION} = {ranks} out of the sweep file")


def sharable(
    attention: tuple[str, ...], catalogue: Mapping[str, Any], *, ranks: int, scope: Sequence[str], n: Sequence[int]
) -> tuple[str, ...]:  # fmt: skip
    """The variants asked for, or every one that has a sequence-parallel form. Raises UsageError for what cannot be."""
    asked = f"--{OPTION.replace('_', '-')} {ranks}"
    if "model" in scope:
        raise UsageError(f"{asked} shares the tokens of an attention core or layer; --scope model is not one of them")
    if min(n) < ranks:
        raise UsageError(f"{asked} gives each rank a part of the tokens and n={min(n)} has fewer than {ranks}")
    for name in attention:
        variant, _, backend = name.partition(":")
        reason = catalogue.get(variant, {}).get("not_parallel")
        if reason:
            raise UsageError(f"{asked}: {reason}")
        if backend:
            raise UsageError(f"{asked}: its form is one for all backends; ask for {variant}, not {name}")
    every = tuple(name for name, entry in catalogue.items() if not entry["not_parallel"] and not entry.get("floor"))
    return attention or every
