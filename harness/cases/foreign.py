"""Models of others in a sweep: their names, the cases they stand for, and what a worker finds out of each.

named({"model": "nets/my.py:tiny"})      # {"model": ["my:tiny"], "plugin": ["nets/my.py"]}: code, like any plugin
sizes(sweep, "hf:gpt2")                  # [(0, 0, 512, {"model": "hf:gpt2"})]: heads and width are found in the worker
settled(case)                            # the case as its rows have it, a status and a note
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from harness.errors import UsageError, brief
from harness.store.record import Case, canonical_options, off_default
from harness.vision.models import AS_IS, OWN, is_foreign

ENTRY: dict[str, Any] = {"bottleneck": "", "options": {}, "floor": True, "backends": {OWN: {}}}  # of AS_IS
ALONE = "give it a sweep of its own, with --scope model alone"


class Asked(Protocol):
    """The axes of a sweep that are read here."""

    @property
    def attention(self) -> tuple[str, ...]: ...
    @property
    def model(self) -> tuple[str, ...]: ...
    @property
    def scope(self) -> tuple[str, ...]: ...
    @property
    def n(self) -> tuple[int, ...]: ...
    @property
    def resolution(self) -> tuple[int, ...]: ...


def named(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a sweep, each `PATH.py:FUNCTION` of `model` as the plugin PATH.py and the model `PATH:FUNCTION`."""
    if "model" not in given:
        return dict(given)
    words = [word.strip() for text in _words(given["model"]) for word in str(text).split(",")]
    files = [path for path, colon, _ in (word.rpartition(":") for word in words) if colon and path.endswith(".py")]
    if not files:
        return dict(given)
    models = [_by_stem(word) if word.rpartition(":")[0] in files else word for word in words]
    plugins = [*_words(given.get("plugin", [])), *files]
    return {**given, "model": models, "plugin": list(dict.fromkeys(plugins))}


def attention(sweep: Asked, catalogue: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The variants that a sweep asks for, by default all but the floor, and the catalogue that has them all.

    Models of others have theirs, AS_IS, too. Raises UsageError where it means nothing.
    """
    foreign = any(map(is_foreign, sweep.model)) and "model" in sweep.scope
    if foreign and sweep.scope != ("model",):
        raise UsageError(f"--model {next(filter(is_foreign, sweep.model))} takes its sizes by itself; {ALONE}")
    if not foreign and AS_IS in sweep.attention:
        raise UsageError(
            f"--attention {AS_IS} is of a model of others; add --scope model and --model timm:…, hf:… or FILE.py:…"
        )
    every = tuple(name for name, entry in catalogue.items() if not entry.get("floor"))
    asked = sweep.attention or ((AS_IS, *every) if foreign else every)
    return asked, {**catalogue, AS_IS: ENTRY} if foreign else dict(catalogue)


def sizes(sweep: Asked, name: str, *, usual: tuple[int, ...]) -> list[tuple[int, int, int, dict[str, Any]]]:
    """(h, d, n, what options hold) of every size of a foreign model, 0 for what only the worker finds out.

    Where n was given and resolution was not, which then is empty, models take token counts; timm's know images alone,
    and have the usual side.
    """
    if sweep.resolution or name.startswith("timm:"):
        return [(0, 0, 0, {"model": name, "resolution": side}) for side in sweep.resolution or usual]
    return [(0, 0, n, {"model": name}) for n in sweep.n]


def settled(case: Case) -> tuple[Case, str, str]:
    """The case with its backend, tokens, heads and head dimension, a status, and why it cannot run or a remark.

    Raises UsageError for a model that cannot be made at that size, AttentionError for names and options.
    """
    import torch

    import attentions

    found = _facts(case, AS_IS, {})
    case = replace(case, n=found.n, h=found.h, d=found.d)
    if case.attention == AS_IS:
        return replace(case, backend=OWN), "ok", ""
    spec = attentions.spec(case.attention)
    options = spec.parse_options(case.variant_options)
    case = replace(case, options=canonical_options({**off_default(options, spec.defaults), **case.model_options}))
    if reason := attentions.why_unavailable(case.label, device=case.device):
        return case, "unavailable", reason
    work = attentions.Work(
        b=case.b, h=case.h, n=case.n, d=case.d, m=case.m, phase=case.core_phase, options=options,
        itemsize=getattr(torch, case.dtype).itemsize, device=case.device.partition(":")[0],
    )  # fmt: skip
    try:
        backend = attentions.resolve(case.label, device=case.device, dtype=getattr(torch, case.dtype), work=work)
        case = replace(case, backend=backend.name)
        return case, "ok", _facts(case, case.label, options).note
    except (attentions.AttentionError, attentions.Unavailable) as reason:
        return case, "unsupported", str(reason)


def _facts(case: Case, attention: str, options: Mapping[str, Any]) -> Any:
    """What the model is with that attention. Raises UsageError where nothing is known of it, which no row can hold."""
    import attentions
    from harness.vision import sources
    from harness.vision.foreign import Asked as Model
    from harness.vision.foreign import facts

    model = case.model_options["model"]
    if missing := sources.missing(model):
        raise UsageError(missing)
    try:
        found = facts(Model.of(case, attention, options))
    except (UsageError, attentions.AttentionError, attentions.Unavailable):
        raise
    except Exception as error:  # whatever another library, or the user's function, raises as it makes or calls a model
        said = str(error).strip().splitlines() or ["no message"]
        raise UsageError(
            f"model {model} cannot be made or called: {type(error).__name__}: {brief(said[0], 300)}"
        ) from None
    if min(found.n, found.h, found.d) < 1:
        raise UsageError(f"model {model}: no attention is recognised in it, whose tokens and heads its rows would tell")
    return found


def _by_stem(word: str) -> str:
    """`nets/my.py:tiny` as `my:tiny`: what a plugin's models are called by (attentions.plugins.stem)."""
    path, _, name = word.rpartition(":")
    stem = re.sub(r"\W", "_", Path(path).name.removesuffix(".py")).lower()
    return f"{stem}:{name}"


def _words(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]
