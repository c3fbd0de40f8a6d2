"""Attention variants behind one contract: `attentions.build(name, ...)(q, k, v)`. See registry and building."""

from attentions.base import (
    AttentionError,
    Backend,
    Compute,
    Core,
    Cost,
    Exponents,
    Option,
    Size,
    Spec,
    Unavailable,
    Work,
    matmuls,
    traffic,
)
from attentions.building import build, devices, resolve, why_unavailable
from attentions.layer import MultiHeadAttention
from attentions.policy import Policy
from attentions.registry import load_plugin, names, spec, split
from attentions.swap import swap

__all__ = [
    "AttentionError",
    "Backend",
    "Compute",
    "Core",
    "Cost",
    "Exponents",
    "MultiHeadAttention",
    "Option",
    "Policy",
    "Size",
    "Spec",
    "Unavailable",
    "Work",
    "build",
    "devices",
    "load_plugin",
    "matmuls",
    "names",
    "resolve",
    "spec",
    "split",
    "swap",
    "traffic",
    "why_unavailable",
]
