"""Which cases the gate looks at, and what each is on either side.

chosen = choose(given, base=session, head=session, resolve_base=…, resolve_head=…)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cases.catalogue import Resolution
from harness.cases.space import Sweep, expand
from harness.engines.local import Engine
from harness.errors import UsageError
from harness.store.record import Case

CASE_AXES = (
    "attention", "n", "m", "batch", "heads", "head_dim", "causal", "kv_heads", "kv_tokens", "dtype", "phase", "scope",
    "set",
)  # fmt: skip
COMMON: dict[str, Any] = {"n": ["1024"], "batch": ["1"], "heads": ["6"], "head_dim": ["64"]}
DEFAULTS: tuple[dict[str, Any], ...] = (
    {"attention": ["full"], "n": ["512"]},
    {"attention": ["flash", "linformer", "anchor"], "phase": ["forward", "train"]},
    {"attention": ["nystrom"]},
)  # eight small cases, a few milliseconds each on a CPU


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A case as asked for, its backend open, and what it is on either side: None where the variant is not there."""

    asked: Case
    base: Resolution | None
    head: Resolution | None

    @property
    def name(self) -> str:
        """How tables name it: with the backend that head takes, or base where head has none."""
        side = self.head or self.base
        return str(side.case if side else self.asked)


def sweeps(given: Mapping[str, Any], variants: Sequence[str]) -> list[Sweep]:
    """What the options ask for; by default the eight small cases, or the plugins' own `variants` at n = 1024.

    Raises UsageError for scope model: the complexity contract varies n, which a model takes from its resolution.
    """
    if variants and "attention" not in given:
        given = {**given, "attention": list(variants)}
    if "attention" in given:
        found = [Sweep.parse({**COMMON, **given})]
    else:
        found = [Sweep.parse({**COMMON, **entry, **given}) for entry in DEFAULTS]
    if any("model" in sweep.scope for sweep in found):
        raise UsageError(
            "the gate takes scope core and layer, not model; harness compare sets two runs of models apart"
        )
    return found


def plan(
    asked: Sequence[Sweep], head: tuple[Engine, Mapping[str, Any]], base: tuple[Engine, Mapping[str, Any]] | None
) -> tuple[list[Planned], list[str]]:
    """Every case once with its resolution on both sides (base None: head alone), and warnings."""
    catalogue = {**(base[1]["catalogue"] if base else {}), **head[1]["catalogue"]}
    cases: dict[str, Case] = {}
    warnings: list[str] = []
    for sweep in asked:
        found, said = expand(sweep, catalogue, device=head[1]["device"])
        cases |= {case.case_id: case for case in found}
        warnings += said
    planned = [
        Planned(asked=case, head=_resolve(case, *head), base=_resolve(case, *base) if base else None)
        for case in cases.values()
    ]
    return list({case.name: case for case in planned}.values()), list(dict.fromkeys(warnings))


def stored(cases: Sequence[Case], head: tuple[Engine, Mapping[str, Any]]) -> list[Planned]:
    """The cases of a baseline file, each on its stored backend, as head resolves them."""
    return [Planned(asked=case, base=None, head=_resolve(case, *head)) for case in cases]


def _resolve(case: Case, engine: Engine, session: Mapping[str, Any]) -> Resolution | None:
    """What the case is on this side; None where the variant, its backend or its option does not exist there."""
    entry = session["catalogue"].get(case.attention)
    if entry is None or (case.backend and case.backend not in entry["backends"]):
        return None
    try:
        return engine.resolve([case])[0]
    except UsageError:
        return None
