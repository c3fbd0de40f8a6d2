"""The sizes that a scope of a sweep has, and which axes mean something there. No torch.

check_axes(sweep, DEFAULTS)                 # UsageError for an axis that was set and that no scope has
of(sweep, "core", DEFAULTS)                 # [(6, 64, 4096, {})]: heads, head dimension, tokens, and what options hold
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from harness.cases import foreign
from harness.errors import UsageError
from harness.store.record import MODEL_KEYS
from harness.vision.models import architecture, is_foreign


def check_axes(sweep: Any, defaults: Mapping[str, Any]) -> None:
    """Raise UsageError for an axis that was set and that no scope of the sweep has."""
    lacking, instead = ("model", "resolution", "compile", "amp"), "add --scope model"
    if sweep.scope == ("model",):
        tokens = any(is_foreign(name) and not name.startswith("timm:") for name in sweep.model)
        lacking = ("heads", "head_dim") if tokens else ("n", "heads", "head_dim")
        instead = "give --model and --resolution instead"
    elif "model" in sweep.scope:
        lacking = ()
    for name in lacking:
        if getattr(sweep, name) != defaults[name]:
            option = f"--{name.replace('_', '-')} {_list(getattr(sweep, name))}".removesuffix(" True")
            raise UsageError(f"{option} means nothing in scope {', '.join(sweep.scope)}; {instead}")
    if "step" in sweep.phase and sweep.scope != ("model",):
        raise UsageError(
            "--phase step is a training step of a whole model, its optimizer included: give --scope model alone; "
            "--phase train is forward and backward of a core or layer"
        )


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


def _list(values: Any, most: int = 6) -> str:
    texts = [str(value) for value in values]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
