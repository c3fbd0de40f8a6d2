"""The sizes that a scope of a sweep has, and which axes mean something there. No torch.

check_axes(sweep)                           # UsageError for an axis that was given and that no scope has
of(sweep, "core", DEFAULTS)                 # [(6, 64, 4096, {})]: heads, head dimension, tokens, and what options hold
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import product
from typing import Any

from harness.cases import foreign
from harness.errors import UsageError
from harness.store.record import MODEL_KEYS
from harness.vision.models import architecture, is_foreign


def check_axes(sweep: Any) -> None:
    """Raise UsageError for an axis that was given, be it at its default, and that no scope of the sweep has."""
    for name in lacking(sweep.scope, sweep.model):
        values = getattr(sweep, name)
        if name in sweep.model_fields_set and values != (False,):  # what is switched off asks for nothing
            option = f"--{name.replace('_', '-')} {_list(values)}".removesuffix(" True")
            instead = "give --model and --resolution instead" if sweep.scope == ("model",) else "add --scope model"
            raise UsageError(f"{option} means nothing in scope {', '.join(sweep.scope)}; {instead}")
    if "step" in sweep.phase and sweep.scope != ("model",):
        raise UsageError(
            "--phase step is a training step of a whole model, its optimizer included: give --scope model alone; "
            "--phase train is forward and backward of a core or layer"
        )


def lacking(scope: Sequence[str], model: Sequence[str]) -> tuple[str, ...]:
    """The axes that no scope of a sweep has."""
    if "model" not in scope:
        return ("model", "resolution", "compile", "amp")
    if tuple(scope) != ("model",):
        return ()
    tokens = any(is_foreign(name) and not name.startswith("timm:") for name in model)
    return ("heads", "head_dim") if tokens else ("n", "heads", "head_dim")


def stated(
    document: Mapping[str, Any], defaults: Mapping[str, Any], *, given: Container[str] = ()
) -> dict[str, Any]:  # fmt: skip
    """The keys of a sweep file without the axes at their defaults that no scope has, `given` aside.

    A run writes down every axis, and a file does not tell which of them somebody gave.
    """
    scope, model = (_words(document.get(name, defaults[name])) for name in ("scope", "model"))
    idle = [name for name in lacking(scope, model) if name not in given]
    return {
        name: value
        for name, value in document.items()
        if name not in idle or (tuple(value) if isinstance(value, list) else (value,)) != defaults[name]
    }


def of(sweep: Any, scope: str, defaults: Mapping[str, Any]) -> list[tuple[int, int, int, dict[str, Any]]]:
    """(h, d, n, what options hold beside the variant's) of every size of a scope."""
    if scope != "model":
        return [(h, d, n, {}) for h, d, n in product(sweep.heads, sweep.head_dim, sweep.n)]
    found: list[tuple[int, int, int, dict[str, Any]]] = []
    for name in sweep.model:
        if is_foreign(name):
            found += foreign.sizes(sweep, name, usual=defaults["resolution"])
            continue
        model = architecture(name)
        for side in sweep.resolution or defaults["resolution"]:
            told: dict[str, Any] = dict(zip(MODEL_KEYS, (model.name, side), strict=True))
            found.append((model.heads, model.head_dim, model.tokens(side), told))
    switched = [{"compile": c, "amp": a} for c, a in product(sweep.compile, sweep.amp)]
    return [
        (h, d, n, {**told, **{name: "true" for name, on in switches.items() if on}})
        for h, d, n, told in found
        for switches in switched
    ]


def precision(dtype: str, told: Mapping[str, Any], sweep: Any) -> str:
    """The dtype of a case: under AMP the one that autocast computes in. Raises UsageError where that is none for it."""
    if "amp" not in told or dtype in ("bfloat16", "float16"):
        return dtype
    if "auto" in sweep.dtype:
        return "bfloat16"
    raise UsageError(f"--amp computes in half precision with weights in float32: give --dtype bfloat16, not {dtype}")


def _words(value: Any) -> list[str]:
    texts = value if isinstance(value, list | tuple) else [value]
    return list(dict.fromkeys(word.strip() for text in texts for word in str(text).split(",")))


def _list(values: Any, most: int = 6) -> str:
    texts = [str(value) for value in values]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
