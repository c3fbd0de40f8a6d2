"""The self-test's recording: fresh processes that each time every specimen, plain and with real extra work.

record(folder, processes=240)                # resumable: pool.csv, one line a specimen and process, fsynced
pool = load(folder)                          # process → (specimen, extra percent) → Timed: samples by turn and clock

A specimen with 10 % extra computes its result and then the same again for so many of the tokens that this is 10 % of
its work: real work, not a sleep. How much slower that makes it is measured over the whole pool.
Processes are in blocks of four that take turns, as in the gate. Since every process times everything, one recording
serves unchanged code (plain against plain of another process) and a slowdown (plain against extra) alike.
"""

from __future__ import annotations

import csv
import io
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.check import revisions
from harness.check.pairs import BLOCK, CANARY, Member, Rounds, measure
from harness.check.rules import Timed, Turns
from harness.errors import Failure, reason
from harness.store import opening
from harness.store.record import Case

POOL, PLUGIN = "pool.csv", "specimens.py"
COLUMNS = ("process", "specimen", "extra_percent", "wall_ms", "cpu_ms")  # samples by blanks, turns by a bar
EXTRAS = (0, 5, 10, 15, 20)
SPECIMENS: Mapping[str, tuple[str, int, int | None]] = {
    "full": ("full:reference", 512, None),
    "flash": ("flash:torch", 1024, None),
    "anchor": ("anchor:reference", 2048, 64),
}  # name → the built-in it is, n, m

Key = tuple[str, int]
Pool = list[dict[Key, Timed]]

SOURCE = '''"""Written by harness check --self-test: built-in variants that do a part of their work a second time."""

from dataclasses import replace

import attentions
from attentions.base import Backend


def _quadratic(compute, share):
    def both(q, k, v):
        out = compute(q, k, v)
        tokens = round(share**0.5 * q.shape[-2])
        if tokens:
            compute(*(t[..., :tokens, :] for t in (q, k, v)))
        return out

    return both


def _linear(compute, share):
    def both(k, v, anchors):
        out = compute(k, v, anchors)
        tokens = round(share * k.shape[-2])
        if tokens:
            compute(k[..., :tokens, :], v[..., :tokens, :], anchors)
        return out

    return both

'''


def timed(extras: Sequence[int] = EXTRAS) -> list[Key]:
    """What each process times, the canary as a specimen without extra work."""
    return [(CANARY, 0), *((name, extra) for name in SPECIMENS for extra in extras)]


def plugin() -> str:
    """The plugin file: each specimen with each amount of extra work as a variant `full_10`."""
    lines = [SOURCE]
    for name, (label, _, m) in SPECIMENS.items():
        variant, _, backend = label.partition(":")
        growth = "_quadratic" if m is None else "_linear"
        for extra in EXTRAS:
            compute = f"{growth}(attentions.spec({variant!r}).backend({backend!r}).compute, {extra / 100})"
            lines.append(
                f"{name.upper()}_{extra} = replace(attentions.spec({variant!r}), name='{name}_{extra}', rank=None, "
                f"model=None, backends=(Backend('reference', {compute}),))"
            )
    return "\n".join(lines) + "\n"


def case(key: Key, *, device: str) -> Case | None:
    """The case of a specimen; None for the canary."""
    name, extra = key
    if name == CANARY:
        return None
    _, n, m = SPECIMENS[name]
    return Case(
        attention=f"{name}_{extra}", backend="reference", scope="core", phase="forward", b=1, h=6, n=n, d=64, m=m,
        dtype="float32", device=device,
    )  # fmt: skip


def record(
    folder: Path,
    *,
    processes: int,
    seconds: float,
    threads: int,
    device: str,
    progress: Callable[[int, int, str], None],
    extras: Sequence[int] = EXTRAS,
) -> None:
    """Measure what the folder lacks of `processes` processes. extras: of EXTRAS, 0 among them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLUGIN).write_text(plugin(), encoding="utf-8")
    held = load(folder, repair=True)
    if held and extras_of(held) != tuple(sorted(extras)):
        raise Failure(f"{folder / POOL} holds other amounts of extra work; record into another folder")
    done = len(held)
    with revisions.here(plugins=[str(folder / PLUGIN)]) as side, (folder / POOL).open("ab", buffering=0) as file:
        if not done:
            _append(file.fileno(), [COLUMNS])
        how = Rounds(base=side, head=side, device=device, seconds=seconds, threads=threads)
        for start in range(done, processes, BLOCK):
            draw = random.Random(start // BLOCK)
            groups = [[(name, extra) for extra in extras] for name in SPECIMENS]
            for group in [*groups, groups]:
                draw.shuffle(group)
            order = [[(CANARY, 0)], *groups]
            forms = {_key(key): case(key, device=device) for group in order for key in group}
            members = [Member(side, "head", start + place, forms) for place in range(BLOCK)]
            for process in measure(members, [[_key(key) for key in group] for group in order], how):
                if process.failures:
                    raise Failure(f"specimen {next(iter(process.failures.items()))} of process {process.slot}")
                rows = [
                    (process.slot, *key, _text(process.samples[_key(key)]), _text(process.cpu.get(_key(key), ())))
                    for group in order
                    for key in group
                ]
                _append(file.fileno(), rows)
            progress(start + BLOCK, processes, "recording the pool")


def extras_of(pool: Pool) -> tuple[int, ...]:
    """The amounts of extra work that a pool holds."""
    return tuple(sorted({extra for process in pool for _, extra in process}))


def _text(turns: Turns) -> str:
    return "|".join(" ".join(f"{value:.6g}" for value in turn) for turn in turns)


def _turns(text: str) -> Turns:
    return tuple(tuple(float(word) for word in turn.split()) for turn in text.split("|")) if text else ()


def _key(key: Key) -> str:
    return f"{key[0]} {key[1]}"


def load(folder: Path, *, repair: bool = False) -> Pool:
    """The processes of complete blocks in order. What follows is left out, and with `repair` cut off the file."""
    path = folder / POOL
    if not path.is_file():
        return []
    try:
        whole = opening.read(path)
        lines = whole[: whole.rfind(b"\n") + 1].decode("utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is no text"
        raise Failure(f"{path} cannot be read: {why}") from None
    if not lines:
        return []
    if lines[0].strip() != ",".join(COLUMNS):
        raise Failure(f"{path} has other columns than {', '.join(COLUMNS)}; it was left untouched")
    wanted, found = timed(_extras(path, lines[1:])), []
    size = len(wanted)
    complete = (len(lines) - 1) // size // BLOCK * BLOCK
    for number in range(complete):
        process = _process(number, lines[1 + number * size : 1 + (number + 1) * size], wanted)
        if process is None:
            raise Failure(f"{path}: process {number} is damaged; remove its lines and those after it")
        found.append(process)
    for process in found:
        for timed_ in process.values():
            if any(not math.isfinite(v) or v <= 0 for turn in (*timed_.wall, *timed_.cpu) for v in turn):
                raise Failure(f"{path} holds a sample that is not a positive number")
    if repair:
        kept = "".join(lines[: 1 + complete * size]).encode("utf-8")
        if len(kept) < len(whole):
            os.truncate(path, len(kept))
    return found


def _extras(path: Path, lines: Sequence[str]) -> list[int]:
    """The amounts of extra work that the first process holds. Raises Failure where its lines are damaged."""
    try:
        first = {int(row[2]) for row in csv.reader(lines) if row[:1] == ["0"] and len(row) == len(COLUMNS)}
    except (ValueError, csv.Error):
        first = {-1}
    if not first <= set(EXTRAS):
        raise Failure(f"{path}: process 0 is damaged; remove its lines and those after it")
    return sorted(first)


def _process(number: int, lines: Sequence[str], wanted: Sequence[Key]) -> dict[Key, Timed] | None:
    """What a process measured by specimen; None where its lines are not the ones that were written."""
    try:
        rows = [
            (row[0], (row[1], int(row[2])), Timed(wall=_turns(row[3]), cpu=_turns(row[4]))) for row in csv.reader(lines)
        ]
    except (ValueError, IndexError, csv.Error):
        return None
    whole = {slot for slot, _, _ in rows} == {str(number)} and {key for _, key, _ in rows} == set(wanted)
    full = all(each.wall and all((*each.wall, *each.cpu)) for _, _, each in rows)
    return {key: each for _, key, each in rows} if whole and full else None


@contextmanager
def neighbour(*, busy: bool) -> Iterator[None]:
    """Another process that burns one core meanwhile, when asked for."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _append(handle: int, rows: Sequence[Sequence[object]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    data = buffer.getvalue().encode("utf-8")
    if os.write(handle, data) != len(data):
        raise Failure("the disk is full; the next call goes on from the last whole process")
    os.fsync(handle)
