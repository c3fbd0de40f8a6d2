"""The two passes: their forms, and what those run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from anchor_forms import backward_forms, forms
from attentions.kernels.anchor import plan_backward, plan_forward
from attentions.kernels.anchor.plan import Plan


@dataclass(frozen=True)
class Phase:
    """A pass: its forms, what their plans run on, which of that they fill and is compared, and the least it moves, in
    tensors (b, h, n, d)."""

    forms: Mapping[str, Callable[..., Plan]]
    tensors: tuple[str, ...]
    results: tuple[str, ...]
    least: int


PHASES: dict[str, Phase] = {
    "forward": Phase(forms.FORMS, plan_forward.TENSORS, ("out",), 3),
    "backward": Phase(backward_forms.FORMS, plan_backward.TENSORS, ("grad_k", "grad_v", "grad_anchors"), 5),
}


def chosen(phase: str, names: str) -> dict[str, list[str]]:
    """Of each phase asked for (`both`: all), those of the forms named with commas between that it has; `` for all.

    Raises: ValueError for a form that no phase asked for has.
    """
    phases = {name: PHASES[name].forms for name in PHASES if phase in (name, "both")}
    valid = {form: None for forms in phases.values() for form in forms}
    asked = [form for form in names.split(",") if form] or list(valid)
    if unknown := [form for form in asked if form not in valid]:
        raise ValueError(f"no form {', '.join(unknown)}; valid: {', '.join(valid)}")
    return {name: [form for form in asked if form in forms] for name, forms in phases.items()}
