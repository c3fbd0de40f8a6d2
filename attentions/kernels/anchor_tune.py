"""Tuning of the anchor kernels on the device at hand, on request, remembered on disk.

    ATTENTIONS_AUTOTUNE=1 harness run --attention anchor:triton      # tune each shape class at its first call
    from attentions.kernels.anchor_tune import tune
    tune(k, v, anchors, phase="forward")                             # the same from Python; returns the Choice

Without a request nothing is measured: a call takes the remembered choice of its shape class, or the heuristic
(anchor_plan.default_choice), so that the first call costs one compilation. A shape class is the device's name, phase,
d, padded m, bits of the dtype, and the powers of two nearest n and b·h.

The file is `anchor.json` in $ATTENTIONS_CACHE (default ~/.cache/attentions); delete it to forget. A file that cannot be
read or is of another version is ignored.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from attentions.kernels import anchor_plan
from attentions.kernels.anchor_plan import Choice, Device, ShapeClass
from attentions.kernels.anchor_tiles import Tile

VERSION = 1
SPLIT_FACTORS = (0.25, 0.5, 2.0, 4.0)


def choose(k: Tensor, v: Tensor, anchors: Tensor, phase: str, schedule: str | None) -> Choice:
    """What to run: a named schedule by the heuristic; else what was tuned, tuning now if asked; else the heuristic."""
    kind = anchor_plan.shape_class(k, anchors, phase)
    device = anchor_plan.device_of(k.device)
    n, m, parts = k.shape[2], anchors.shape[0], k.shape[0] * k.shape[1]
    if schedule is not None:
        return anchor_plan.default_choice(kind, n=n, m=m, parts=parts, device=device, schedule=schedule)
    if k.device.type == "cuda":
        known = remembered().get(key(kind, n=n, parts=parts, device=device))
        if known is not None and _fits(known, kind, n=n, parts=parts):
            return known
        if os.environ.get("ATTENTIONS_AUTOTUNE") == "1" and not torch.cuda.is_current_stream_capturing():
            return tune(k, v, anchors, phase=phase)
    return anchor_plan.default_choice(kind, n=n, m=m, parts=parts, device=device)


def tune(
    k: Tensor, v: Tensor, anchors: Tensor, *, phase: str, measure: Callable[[Choice], float] | None = None
) -> Choice:  # fmt: skip
    """Measure candidates for these tensors' shape class, remember the fastest and return it.

    One quantity is varied at a time, starting from the heuristic: tile of the first stage, of the second, splits,
    chunks; then the persistent schedule, its tile and its group. measure: milliseconds of a choice; by default
    triton.testing.do_bench of the plan. A candidate that does not compile or fit loses.
    """
    kind = anchor_plan.shape_class(k, anchors, phase)
    device = anchor_plan.device_of(k.device)
    n, m, parts = k.shape[2], anchors.shape[0], k.shape[0] * k.shape[1]
    time = measure or _stopwatch(k, v, anchors, phase)
    winners = []
    for schedule in anchor_plan.SCHEDULES:
        best = anchor_plan.default_choice(kind, n=n, m=m, parts=parts, device=device, schedule=schedule)
        if best.schedule != schedule:
            continue
        fastest = _attempt(time, best)
        for vary in (_tiles, _cuts, _groups):
            for candidate in list(vary(best, kind, n)):
                took = _attempt(time, candidate)
                if took < fastest:
                    best, fastest = candidate, took
        winners.append((fastest, best))
    best = min(winners, key=lambda pair: pair[0])[1]
    remember(key(kind, n=n, parts=parts, device=device), best)
    return best


def key(kind: ShapeClass, *, n: int, parts: int, device: Device) -> str:
    """The shape class as a text: `NVIDIA H100 80GB HBM3|forward|d64|m64|16 bits|n16384|heads128`."""
    near_n, near_parts = 2 ** round(math.log2(n)), 2 ** round(math.log2(max(1, parts)))
    return f"{device.name}|{kind.phase}|d{kind.d}|m{kind.m_pad}|{kind.bits} bits|n{near_n}|heads{near_parts}"


def path() -> Path:
    """The file of remembered choices."""
    return Path(os.environ.get("ATTENTIONS_CACHE", Path.home() / ".cache" / "attentions")) / "anchor.json"


@cache
def remembered() -> dict[str, Choice]:
    """Everything tuned so far, read once a process."""
    try:
        document = json.loads(path().read_text())
        if document["version"] != VERSION:
            return {}
        return {name: _from_json(entry) for name, entry in document["choices"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def remember(name: str, choice: Choice) -> None:
    """Add one choice to the file, replacing it whole, so that a reader sees the old or the new one."""
    known = {**remembered(), name: choice}
    remembered.cache_clear()
    document = {"version": VERSION, "choices": {each: _to_json(known[each]) for each in sorted(known)}}
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".json", delete=False) as file:
        json.dump(document, file, indent=1)
    os.replace(file.name, target)


def _fits(choice: Choice, kind: ShapeClass, *, n: int, parts: int) -> bool:
    """Whether a choice made for a neighbour of the class may run here: a persistent group must not exceed b·h."""
    return choice.schedule != "persistent" or (choice.group <= parts and choice.splits <= n)


def _tiles(choice: Choice, kind: ShapeClass, n: int) -> Iterator[Choice]:
    for role, tile in choice.tiles.items():
        for tokens in (32, 64, 128):
            for warps in (4, 8):
                for stages in (1, 2, 3, 4):
                    other = Tile(tokens, tile.anchors, warps, stages, tile.resident)
                    if other != tile:
                        yield replace(choice, tiles={**choice.tiles, role: other})


def _cuts(choice: Choice, kind: ShapeClass, n: int) -> Iterator[Choice]:
    for name in ("splits", "chunks"):
        for factor in SPLIT_FACTORS:
            count = round(getattr(choice, name) * factor)
            if 1 <= count <= n and not (choice.schedule == "persistent" and name == "chunks"):
                yield replace(choice, **{name: count})


def _groups(choice: Choice, kind: ShapeClass, n: int) -> Iterator[Choice]:
    if choice.schedule == "persistent":
        for factor in (0.5, 2.0):
            if round(choice.group * factor) >= 1:
                yield replace(choice, group=round(choice.group * factor))
        for factor in (0.5, 1.5, 2.0):
            yield replace(choice, programs=max(1, round(choice.programs * factor)))


def _attempt(time: Callable[[Choice], float], choice: Choice) -> float:
    try:
        return time(choice)
    except (triton.runtime.errors.OutOfResources, triton.compiler.errors.CompilationError, RuntimeError):
        return math.inf


def _stopwatch(k: Tensor, v: Tensor, anchors: Tensor, phase: str) -> Callable[[Choice], float]:
    out, means, degree = anchor_plan.forward(k, v, anchors).run()

    def once(choice: Choice) -> None:
        if phase == "forward":
            anchor_plan.forward(k, v, anchors, choice=choice).run()
        else:
            anchor_plan.backward(out, k, v, anchors, means, degree, choice=choice).run()

    def time(choice: Choice) -> float:
        median: Any = triton.testing.do_bench(lambda: once(choice), return_mode="median")
        return float(median)

    return time


def _to_json(choice: Choice) -> dict[str, object]:
    return {**vars(choice), "tiles": {role: list(tile) for role, tile in choice.tiles.items()}}


def _from_json(entry: dict[str, object]) -> Choice:
    tiles = {role: Tile(*values) for role, values in entry["tiles"].items()}  # type: ignore[union-attr]
    return Choice(**{**entry, "tiles": tiles})  # type: ignore[arg-type]
