"""Tuning of the anchor kernels on the device at hand, on request, remembered on disk.

    ATTENTIONS_AUTOTUNE=1 harness run --attention anchor:triton      # tune each shape class at its first call
    from attentions.kernels.anchor.tuning import tune
    tune(k, v, anchors, phase="forward")                             # the same from Python; returns the Choice
    python -m attentions.kernels.anchor.tuning --b 8 --h 12 --n 16384,65536 --m 64 --seconds 60 --jobs 12

Without a request nothing is measured: a call takes the remembered choice of its shape class, or the heuristic
(choices.default_choice), so that the first call costs one compilation. A shape class is the device's name, phase,
d, padded m, bits of the dtype, and the powers of two nearest n and b·h.

The file is `anchor.json` in $ATTENTIONS_CACHE (default ~/.cache/attentions); delete it to forget. A file that cannot be
read or is of another version is ignored.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from time import time as clock
from typing import Any

import torch
import triton
from torch import Tensor

from attentions.kernels.anchor import choices, devices, plan
from attentions.kernels.anchor.choices import Choice, ShapeClass
from attentions.kernels.anchor.devices import Device
from attentions.kernels.anchor.plan_backward import TENSORS as BACKWARD
from attentions.kernels.anchor.plan_backward import backward
from attentions.kernels.anchor.plan_forward import TENSORS as FORWARD
from attentions.kernels.anchor.plan_forward import forward
from attentions.kernels.anchor.tiles import Tile

VERSION = 2
generation = 0  # grows with every choice remembered: plans made before it may be other ones now
SPLIT_FACTORS = (0.25, 0.5, 0.75, 1.5, 2.0, 4.0)
# Tokens, warps and stages of the tiles tried: 32 tokens are half of what Hopper's tensor cores take at once, and need
# twice the barriers.
SIZES = (
    (32, 4, 2), (32, 4, 3), (64, 4, 1), (64, 4, 2), (64, 4, 3), (64, 4, 4), (64, 8, 2), (64, 8, 3),
    (128, 4, 2), (128, 8, 2), (128, 8, 3),
)  # fmt: skip


def choose(k: Tensor, v: Tensor, anchors: Tensor, phase: str, schedule: str | None) -> Choice:
    """What to run: a named schedule by the heuristic; else what was tuned, tuning now if asked; else the heuristic."""
    kind = choices.shape_class(k, anchors, phase)
    device = devices.device_of(k.device)
    n, m, parts = k.shape[2], anchors.shape[-2], k.shape[0] * k.shape[1]
    if schedule is not None:
        return choices.default_choice(kind, n=n, m=m, parts=parts, device=device, schedule=schedule)
    if k.device.type == "cuda":
        known = remembered().get(key(kind, n=n, parts=parts, device=device))
        if known is not None and _fits(known, n):
            return known
        if _asked() and not torch.cuda.is_current_stream_capturing():
            return tune(k, v, anchors, phase=phase)
    return choices.default_choice(kind, n=n, m=m, parts=parts, device=device)


def postponed(device: torch.device) -> bool:
    """Whether tuning was asked for and has to wait: nothing can be timed while a CUDA graph is recorded."""
    return device.type == "cuda" and _asked() and torch.cuda.is_current_stream_capturing()


def _asked() -> bool:
    return os.environ.get("ATTENTIONS_AUTOTUNE") == "1"


def tune(
    k: Tensor, v: Tensor, anchors: Tensor, *,
    phase: str, measure: Callable[[Choice], float] | None = None, seconds: float = math.inf,
) -> Choice:  # fmt: skip
    """Measure candidates for these tensors' shape class, remember the fastest and return it.

    One quantity is varied at a time, starting from the heuristic: splits and chunks, which need no compilation; then
    the tiles, those that differ least first; for both schedules. measure: milliseconds of a choice; by default
    triton.testing.do_bench of the plan. A candidate that does not compile or fit loses. After `seconds`, shared evenly
    by the schedules, what is fastest so far wins.
    """
    if k.shape[-1] % choices.UNIT:
        raise ValueError(f"heads of {k.shape[-1]} run padded: tune d={choices.padded(k.shape[-1])}")
    kind = choices.shape_class(k, anchors, phase)
    device = devices.device_of(k.device)
    n, parts = k.shape[2], k.shape[0] * k.shape[1]
    time = measure or _stopwatch(k, v, anchors, phase)
    starts = _starts(k, anchors, phase)
    begun, winner = perf_counter(), (math.inf, starts[0])
    for turn, best in enumerate(starts, 1):
        fastest = _attempt(time, best)
        for vary in (_cuts, _tiles, _cuts):
            for candidate in list(vary(best, n)):
                if perf_counter() - begun > seconds * turn / len(starts):
                    break
                took = _attempt(time, candidate)
                if took < fastest:
                    best, fastest = candidate, took
        if fastest < winner[0]:  # remembered at once: a later schedule may be cut off
            winner = fastest, best
            remember(key(kind, n=n, parts=parts, device=device), best)
    return winner[1]


def compile_candidates(
    shape: tuple[int, int, int, int], m: int, dtype: str, phase: str, device: str, share: tuple[int, int],
    until: float = math.inf,
) -> int:  # fmt: skip
    """Run every candidate that has tiles of its own once, so that Triton's cache on disk holds its kernels.

    share: (i, of): only every of-th candidate from the i-th, for several processes that share the work; until: the
    time.time() after which none is begun. Returns how many ran.
    """
    k, v, anchors = _tensors(shape, m, getattr(torch, dtype), device)
    ran = 0
    candidates = [choice for start in _starts(k, anchors, phase) for choice in (start, *_tiles(start, shape[2]))]
    run = _runner(k, v, anchors, phase)
    for choice in candidates[share[0] :: share[1]]:
        if clock() > until:
            break
        ran += _attempt(lambda each: float(run(each) is not None), choice) < math.inf
    return ran


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
        document = json.loads(path().read_text(encoding="utf-8")) if path().is_file() else {}  # a pipe is waited for
        found = {name: _from_json(entry) for name, entry in document["choices"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError):
        return {}
    return {name: choice for name, choice in found.items() if choice} if document.get("version") == VERSION else {}


def remember(name: str, choice: Choice) -> None:
    """Add one choice to the file, replacing it whole, so that a reader sees the old or the new one."""
    global generation
    known = {**remembered(), name: choice}
    remembered.cache_clear()
    generation += 1
    document = {"version": VERSION, "choices": {each: _to_json(known[each]) for each in sorted(known)}}
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".json", delete=False) as file:
        json.dump(document, file, indent=1)
    os.replace(file.name, target)


def _fits(choice: Choice, n: int) -> bool:
    """Whether a choice made for a neighbour of the class is one here: `single` ends where no rule would take it."""
    return choice.schedule != "single" or n <= choices.MAX_SINGLE


def _starts(k: Tensor, anchors: Tensor, phase: str) -> list[Choice]:
    """The heuristic's choice for each schedule that the shape allows."""
    kind, device = choices.shape_class(k, anchors, phase), devices.device_of(k.device)
    (b, h, n, _), m = k.shape, anchors.shape[-2]
    found = [
        choices.default_choice(kind, n=n, m=m, parts=b * h, device=device, schedule=schedule)
        for schedule in choices.SCHEDULES
    ]
    return [choice for choice, schedule in zip(found, choices.SCHEDULES, strict=True) if choice.schedule == schedule]


def _tiles(choice: Choice, n: int) -> Iterator[Choice]:
    for role, tile in choice.tiles.items():
        others = [Tile(tokens, tile.anchors, warps, stages, tile.resident) for tokens, warps, stages in SIZES]
        others.sort(key=lambda other: sum(a != b for a, b in zip(other, tile, strict=True)))
        for other in others:
            if other != tile:
                yield replace(choice, tiles={**choice.tiles, role: other})


def _cuts(choice: Choice, n: int) -> Iterator[Choice]:
    if choice.schedule == "single":  # one split and one chunk by definition
        return
    for name in ("splits", "chunks"):
        for factor in SPLIT_FACTORS:
            count = int(getattr(choice, name) * factor)
            if 1 <= count <= n:
                yield replace(choice, **{name: count})


def _attempt(time: Callable[[Choice], float], choice: Choice) -> float:
    try:
        return time(choice)
    except (triton.runtime.errors.TritonError, triton.compiler.errors.CompilationError, RuntimeError):
        return math.inf  # TritonError: out of resources, refused by ptxas


def _runner(k: Tensor, v: Tensor, anchors: Tensor, phase: str) -> Callable[[Choice], object]:
    """Runs a choice on these tensors and fills results that are made once."""
    size = plan.kept_places(k.shape[0] * k.shape[1], *anchors.shape[-2:])[2]
    kept = plan.allocate((size,), (1,), dtype=torch.float32, device=k.device)
    out, grad_k, grad_v, grad_anchors = (plan.output_like(k), *(torch.empty_like(x) for x in (k, v, anchors)))
    first = dict(zip(FORWARD, (k, v, anchors, out, kept), strict=True))
    forward(k, v, anchors).run(first)
    second = dict(zip(BACKWARD, (out, k, v, anchors, kept, grad_k, grad_v, grad_anchors), strict=True))

    def once(choice: Choice) -> object:
        if phase == "forward":
            return forward(k, v, anchors, choice=choice).run(first)
        return backward(
            out, k, v, anchors, grad_k=plan.strides_of(grad_k), grad_v=plan.strides_of(grad_v), choice=choice
        ).run(second)

    return once


def _stopwatch(k: Tensor, v: Tensor, anchors: Tensor, phase: str) -> Callable[[Choice], float]:
    once = _runner(k, v, anchors, phase)

    def time(choice: Choice) -> float:
        median: Any = triton.testing.do_bench(lambda: once(choice), warmup=5, rep=40, return_mode="median")
        return float(median)

    return time


def _tensors(shape: tuple[int, int, int, int], m: int, dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    k, v = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    return k, v, torch.randn(m, shape[3], device=device)


def _to_json(choice: Choice) -> dict[str, object]:
    return {**vars(choice), "tiles": {role: list(tile) for role, tile in choice.tiles.items()}}


def _from_json(entry: Any) -> Choice | None:
    """The choice that `_to_json` wrote; None for any other, of which a kernel could not be made."""
    try:
        tiles = {str(role): Tile(*values) for role, values in entry["tiles"].items()}
        choice = Choice(**{**entry, "tiles": tiles})
    except (KeyError, TypeError, AttributeError):
        return None
    numbers = [choice.splits, choice.chunks, *(number for tile in tiles.values() for number in tile)]
    if not tiles or any(type(number) is not int or not 0 <= number < 1 << 31 for number in numbers):
        return None
    sane = choice.schedule in choices.SCHEDULES and min(choice.splits, choice.chunks) > 0
    powers = all(x.tokens.bit_count() == x.warps.bit_count() == 1 and x.anchors.bit_count() < 2 for x in tiles.values())
    small = all(
        x.tokens <= 1024 and x.anchors <= 1024 and x.warps <= 32 and 1 <= x.stages <= 16 for x in tiles.values()
    )
    return choice if sane and powers and small else None


def main() -> None:
    """Tune the shape classes asked for and print the fastest choice and the heuristic's, with their times."""
    parser = argparse.ArgumentParser(description="Tune the anchor kernels on this device; see the module's docstring.")
    for name, default in (("b", "8"), ("h", "12"), ("n", "16384"), ("d", "64"), ("m", "64")):
        parser.add_argument(f"--{name}", default=default, help=f"sizes with commas between; default {default}")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--phase", default="forward,backward")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=math.inf, help="for all of it, compilation included")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile candidates beforehand")
    given = parser.parse_args()
    begun = perf_counter()
    sizes = itertools.product(*([int(x) for x in getattr(given, name).split(",")] for name in "dmbhn"))
    problems = [(phase, *size) for phase, size in itertools.product(given.phase.split(","), sizes)]
    if given.jobs > 1:
        with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
            unlike = {(phase, d, m): (b, h, n, d) for phase, d, m, b, h, n in problems}  # n alike share kernels
            until = clock() + given.seconds / 2  # the rest is for measuring
            tasks = [
                pool.submit(compile_candidates, shape, m, given.dtype, phase, given.device, (i, given.jobs), until)
                for (phase, _, m), shape in unlike.items() for i in range(given.jobs)
            ]  # fmt: skip
            ran = sum(
                t.result() if t.exception() is None else 0 for t in tasks
            )  # a compiler that crashes ends the pool
            print(f"{ran} candidates compiled in {perf_counter() - begun:.0f} s", flush=True)
    for place, (phase, d, m, b, h, n) in enumerate(problems):
        k, v, anchors = _tensors((b, h, n, d), m, getattr(torch, given.dtype), given.device)
        left = (given.seconds - (perf_counter() - begun)) / (len(problems) - place)
        best = tune(k, v, anchors, phase=phase, seconds=max(0.0, left))
        time = _stopwatch(k, v, anchors, phase)
        print(f"{phase} b={b} h={h} n={n} d={d} m={m} {given.dtype}")
        for what, choice in (("fastest", best), *((f"untuned {x.schedule}", x) for x in _starts(k, anchors, phase))):
            print(f"  {what:<20}{_attempt(time, choice):.4f} ms  {_to_json(choice)}", flush=True)
    print(f"written to {path()} after {perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
