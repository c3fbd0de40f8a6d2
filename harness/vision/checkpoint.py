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
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.errors import Failure, UsageError, brief, reason
from harness.store import opening
from harness.store.documents import Damaged, misfit, parse_json
from harness.store.replacing import replacing

HEADER = "harness"  # the key of our JSON among the header's texts
SCHEMA = 1
SHAPE = {  # of the facts, as far as somebody reads them
    "schema": int, "plan": dict, "classes": [str], "step": int, "steps": int, "evaluated": int, "told": int,
    "window": {str: float}, "best": {"step": int, "metric": str, "value": float}, "values": {str: (float, None)},
    "scaler": {str: float}, "data": {str: str}, "start": str,
}  # fmt: skip


class Found(dict[str, Any]):
    """Parts or facts of a checkpoint: one that is asked for and not there is a UsageError."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __missing__(self, name: str) -> NoReturn:
        raise UsageError(f"checkpoint {self.path} is no whole one: it lacks {name}; use an earlier one")


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
        if not isinstance(error, OSError):  # safetensors tells the system's refusal as text alone
            error = OSError(errno.ENOSPC if "No space left" in str(error) else 0, str(error))
        raise Failure(f"cannot write checkpoint {path}: {reason(error)}; an earlier one is intact") from None


def load(path: Path, *, of_run: bool = False) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The parts and facts of a checkpoint, on the CPU. Raises UsageError naming the file and what is wrong with it.

    of_run: it is found in a run's folder, not named by the user, so no link is followed.
    """
    try:
        handle = opening.opened(path, links=not of_run)
    except FileNotFoundError:
        raise UsageError(f"checkpoint {path}: no such file") from None
    except OSError as error:
        raise UsageError(f"checkpoint {path}: {reason(error)}") from None
    parts: dict[str, dict[str, Tensor]] = Found(path)
    try:
        with safe_open(f"/dev/fd/{handle}", framework="pt") as file:  # the file looked at, whatever its name holds
            facts = _facts(path, file.metadata())
            for key in file.keys():  # noqa: SIM118 - no mapping
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError, TypeError, ValueError) as error:  # as its header is damaged one way or another
        if isinstance(error, UsageError):
            raise
        size = os.fstat(handle).st_size
        raise UsageError(
            f"checkpoint {path} is damaged or no safetensors file ({size} bytes): {brief(str(error), 200)}; "
            "use an earlier one"
        ) from None
    finally:
        os.close(handle)
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
                f"checkpoint {path} does not fit: its {brief(name)} is {shapes[0]} and that of the model is {shapes[1]}"
            )
    module.load_state_dict(dict(tensors))


def _facts(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    text = (metadata or {}).get(HEADER)
    if text is None:
        raise UsageError(f"{path} is a safetensors file but no checkpoint of harness train")
    try:
        document = parse_json(text.encode("utf-8", "replace"), halves=True)
    except Damaged as error:
        raise UsageError(
            f"checkpoint {path} is damaged: its header is not what harness train writes: {error}"
        ) from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = brief(document.get("schema")) if isinstance(document, dict) else "none"
        raise UsageError(f"checkpoint {path} has schema {found}; this version reads {SCHEMA}")
    wrong = misfit(document, SHAPE)
    if wrong:
        raise UsageError(f"checkpoint {path} is damaged: in its header {wrong}")
    facts = Found(path)
    facts.update(document)
    return facts
