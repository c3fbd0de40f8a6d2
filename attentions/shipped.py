"""Kernels that others ship: which package is installed, and what its kernel can do, found by running it.

FA2 = Package("flash-attn", "flash_attn", install="pip install flash-attn --no-build-isolation")
FA2.is_installed()                                   # without importing it
trial(compute, device, torch.bfloat16)               # why a small forward pass fails, or None
cannot(compute, work, dtype, device)                 # the same for the phase and precision of one case
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from attentions.base import Work


@dataclass(frozen=True)
class Package:
    """A package by the name that pip knows, the module to import, how to get it, and a remark for who has it not."""

    name: str
    module: str
    install: str
    remark: str = ""

    def is_installed(self) -> bool:
        """Whether the module's files are there. Nothing is imported: that may take seconds, load CUDA, or fail.

        A folder without an `__init__` is no module of its own: flash-attn-4 alone leaves such a `flash_attn`.
        """
        top, _, rest = self.module.partition(".")
        found = importlib.util.find_spec(top)
        if found is None:
            return False
        if not rest:
            return found.origin is not None
        inside = [Path(folder, *rest.split(".")) for folder in found.submodule_search_locations or ()]
        return any(path.is_dir() or path.with_suffix(".py").is_file() for path in inside)

    def __str__(self) -> str:
        """How to get it: `flash-attn-4: pip install flash-attn-4`."""
        return f"{self.name}{f' ({self.remark})' if self.remark else ''}: {self.install}"


@cache
def trial(
    compute: Callable[..., Tensor], device: torch.device, dtype: torch.dtype, *, backward: bool = False,
    causal: bool = False, grouped: bool = False, cross: bool = False,
) -> str | None:  # fmt: skip
    """Run a tiny case of exact attention, forward or both ways; why it failed, or None.

    An installed package may not load, or hold nothing for this device, precision, pass or problem.
    """
    passes = "forward and backward" if backward else "forward"
    problems = {"causal": causal, "with grouped heads": grouped, "with other keys": cross}
    where = f"{passes} in {str(dtype).removeprefix('torch.')} on {device}"
    where = " ".join([where, *(words for words, asked in problems.items() if asked)])
    with torch.inference_mode(False), torch.set_grad_enabled(backward), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            source = torch.Generator(device).manual_seed(0)  # the caller's random numbers stay what they are
            shapes = (1, 4 if grouped else 2, 128, 64), (1, 2, 192 if cross else 128, 64)
            q, k = (torch.randn(shape, dtype=dtype, device=device, generator=source) for shape in shapes)
            v = torch.ones_like(k)
            if causal:
                v[..., 1:, :] = 0  # the first token sees itself alone
            for tensor in (q, k):
                tensor.requires_grad_(backward)
            out = compute(q, k, v, causal=True) if causal else compute(q, k, v)
            if backward:
                out.sum().backward()
            known = out[..., :1, :] if causal else out
            wrong = (known - 1).abs().max().item()  # weights that sum to one leave ones as they are
        except Exception as error:  # whatever a third-party kernel raises, it is not usable here
            lines = [str(error), *(str(warning.message) for warning in heard)]
            why = "; ".join(line.splitlines()[0] for line in lines if line)
            return f"is installed and fails {where}: {type(error).__name__}: {why}"
    return None if wrong < 0.02 else f"is installed and gives wrong results {where}"


def cannot(compute: Callable[..., Tensor], work: Work, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why a kernel does not do this case's phase and problem in this precision, or None; untold without the device."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return None
    asked = {"causal": work.causal, "grouped": work.kv_heads is not None, "cross": work.kv_tokens is not None}
    problem = {name: True for name, is_asked in asked.items() if is_asked}
    return trial(compute, device, dtype, backward=work.phase != "forward", **problem)
