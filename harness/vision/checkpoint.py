"""Checkpoints: one safetensors file, its tensors named by part, everything else as JSON in its header. No pickle.

save(Path("out/last.safetensors"), {"model": model.state_dict()}, {"step": 300})
parts, facts = load(Path("out/last.safetensors"))

A file is complete or absent: it is written beside its place, synced, and renamed into it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.errors import Failure, UsageError
from harness.store.replacing import replacing

HEADER = "harness"  # the key of our JSON among the header's texts
SCHEMA = 1


def save(path: Path, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Replace `path` by these tensors and facts (JSON). Raises Failure when it cannot; the old one then stays."""
    tensors = {
        f"{part}/{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    header = {HEADER: json.dumps({"schema": SCHEMA, **facts}, allow_nan=False)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            save_file(tensors, partial, metadata=header)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "no space left on the disk" if full else str(error)
        raise Failure(f"cannot write checkpoint {path}: {reason}; an earlier one is intact") from None


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The parts and facts of a checkpoint, on the CPU. Raises UsageError naming the file and what is wrong with it."""
    if not path.is_file():
        raise UsageError(f"checkpoint {path}: no such file")
    parts: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            facts = _facts(path, file.metadata())
            for key in file.keys():  # noqa: SIM118 - no mapping
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise UsageError(
            f"checkpoint {path} is damaged or no safetensors file ({size} bytes): {error}; use an earlier one"
        ) from None
    return parts, facts


def judged(parts: Mapping[str, Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """The weights that a checkpoint's model is judged by: the averaged ones where there are such."""
    return parts.get("ema") or parts.get("model", {})


def fill(module: torch.nn.Module, tensors: Mapping[str, Tensor], *, path: Path) -> None:
    """Load all of a module's state. Raises UsageError naming the first tensor that is absent, extra or misshapen."""
    own = module.state_dict()
    for name in sorted({*own, *tensors}):
        shapes = [tuple(state[name].shape) if name in state else "absent" for state in (tensors, own)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"checkpoint {path} does not fit: its {name} is {shapes[0]} and that of the model is {shapes[1]}"
            )
    module.load_state_dict(dict(tensors))


def _facts(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        facts = json.loads((metadata or {})[HEADER])
    except (KeyError, ValueError):
        raise UsageError(f"{path} is a safetensors file but no checkpoint of harness train") from None
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise UsageError(f"checkpoint {path} has schema {facts.get('schema')!r}; this version reads {SCHEMA}")
    return facts
