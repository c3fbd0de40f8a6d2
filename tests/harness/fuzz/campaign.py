"""Fuzzing by the hundred thousand: changed inputs for every reader, what fails kept as a file.

    make fuzz                                      # 100 000 inputs on two processes, another seed each time
    make fuzz FUZZ="--inputs 1000000 --jobs 2"     # over night
    make fuzz FUZZ="--reader sweep --seed 7"       # one reader, the same inputs again

An input fails where its reader raises anything but an error of harness' own, breaks what the reader promises, uses more
than SLOWEST_S seconds of processor time or more memory than MOST_BYTES beyond the start. It is written to
tests/harness/fuzz/seeds/READER-DIGEST, which the tests read ever after. A reader that ends its process (a crash in C)
is found again by the last input that its process began. Exit code 1 where anything failed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from mutation import mutated
from readers import READERS, Reader, quietly
from vision_readers import VISION_READERS

ALL: dict[str, Reader] = READERS | VISION_READERS
SEEDS = Path(__file__).parent / "seeds"
SLOWEST_S, MOST_BYTES, CHUNK, MINUTE = 5.0, 2 << 30, 200, 60.0


@dataclass
class Tally:
    """What became of inputs, by reader: all, those taken rather than refused, and (reader, why, input) of failures."""

    tried: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str, bytes]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another's."""
        self.tried.update(other.tried)
        self.taken.update(other.taken)
        self.failed += other.failed


def chunk(names: Sequence[str], seed: int, memo: Path) -> Tally:
    """CHUNK inputs that follow from the seed alone. memo: where the one in hand is kept, for when this process dies."""
    draw, tally = random.Random(seed), Tally()
    shares = [ALL[name].share for name in names]
    for _ in range(CHUNK):
        name = draw.choices(names, shares)[0]
        data = mutated(draw, ALL[name].seeds())
        memo.write_bytes(name.encode() + b"\n" + data)
        tally.tried[name] += 1
        why = fault(name, data)
        if why is None:
            tally.taken[name] += 1
        elif why:
            tally.failed.append((name, why, data))
    memo.unlink(missing_ok=True)
    return tally


def fault(name: str, data: bytes) -> str | None:
    """What is wrong with how a reader takes an input; "" for one that it refuses, None for one that it takes."""
    started = time.process_time()
    try:
        taken = quietly(ALL[name], data)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = next(
            (f for f in reversed(frames) if "/harness/" in f.filename or "/attentions/" in f.filename), frames[-1]
        )
        where = f"{Path(ours.filename).name}:{ours.lineno}"
        return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:160]}"
    spent = time.process_time() - started
    return f"took {spent:.1f} s" if spent > SLOWEST_S else None if taken else ""


def limited() -> None:
    """Let an input that takes all memory raise MemoryError here, and keep the terminal for what is found."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class Kept:
    """Of each kind of failure, by reader and why, its shortest input among the seeds, from when it is found on."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str], tuple[str, Path]] = {}

    def take(self, name: str, why: str, data: bytes) -> None:
        """Write the input unless a shorter one is there, and print a kind that is new; no name: before any input."""
        if not name:
            print(why, flush=True)
            return
        kind = (name, why.split(": ")[0])
        former = self.kinds.get(kind, (why, None))[1]
        if former is not None and former.stat().st_size <= len(data):
            return
        path = SEEDS / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        self.kinds[kind] = (why, path)
        if former is None:
            print(f"{name}: {why}\n    {path}", flush=True)
        elif former != path:
            former.unlink()


def campaign(names: Sequence[str], inputs: int, jobs: int, seed: int, kept: Kept) -> Tally:
    """Run chunks on `jobs` processes; a process that dies costs its chunk, and gives the input that killed it."""
    for name in names:
        ALL[name].seeds()  # made once, before the fork
    context, tally, waiting = get_context("fork"), Tally(), list(range(-(-inputs // CHUNK)))
    running: dict[int, tuple[object, object, Path]] = {}
    begun = told = time.monotonic()
    while waiting or running:
        while waiting and len(running) < jobs:
            number = waiting.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            memo = Path(tempfile.gettempdir(), f"fuzz-{os.getpid()}-{number}")
            process = context.Process(target=_serve, args=(names, seed * 1_000_003 + number, memo, theirs))
            process.start()
            theirs.close()
            running[number] = (process, ours, memo)
        for number, (process, ours, memo) in list(running.items()):
            found = _collected(process, ours)
            if found is None:
                continue
            del running[number]
            if not isinstance(found, Tally):
                name, _, data = memo.read_bytes().partition(b"\n") if memo.exists() else (b"", b"", b"")
                found = Tally(failed=[(name.decode(), f"the process ended with {found}", data)])
                memo.unlink(missing_ok=True)
            tally.add(found)
            for one in found.failed:
                kept.take(*one)
        done, now = sum(tally.tried.values()), time.monotonic()
        if done and now - told >= (0 if sys.stderr.isatty() else MINUTE):
            told, line = now, f"{done} inputs, {len(tally.failed)} failed, {done / (now - begun):.0f}/s"
            print(*(["\r", line] if sys.stderr.isatty() else [line, "\n"]), sep="", end="", file=sys.stderr, flush=True)
        time.sleep(0.02)
    return tally


def _serve(names: Sequence[str], seed: int, memo: Path, pipe: object) -> None:
    limited()
    pipe.send(chunk(names, seed, memo))  # type: ignore[attr-defined]


def _collected(process: object, pipe: object) -> Tally | int | None:
    """A chunk's tally, the exit code of a process that died, or None while it works."""
    if pipe.poll():  # type: ignore[attr-defined]
        try:
            tally = pipe.recv()  # type: ignore[attr-defined]
        except EOFError:
            tally = None
        process.join()  # type: ignore[attr-defined]
        return process.exitcode if tally is None else tally  # type: ignore[attr-defined]
    return None


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="how many (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="the same inputs again (default: by the clock)")
    parser.add_argument("--reader", action="append", choices=sorted(ALL), help="these alone; repeatable")
    given = parser.parse_args()
    seed = int(time.time()) if given.seed is None else given.seed
    names = given.reader or sorted(ALL)
    print(f"seed {seed}", flush=True)
    begun = time.monotonic()
    kept = Kept()
    tally = campaign(names, given.inputs, given.jobs, seed, kept)
    wrong = Counter(name for name, _, _ in tally.failed)
    for name in names:
        print(f"{name:14} {tally.tried[name]:8} inputs {tally.taken[name]:8} taken {wrong[name]:5} failed")
    for (name, _), (why, path) in kept.kinds.items():
        print(f"{name}: {why}\n    {path}")
    total, seconds = sum(tally.tried.values()), time.monotonic() - begun
    print(f"{total} inputs in {seconds:.0f} s, {len(tally.failed)} failed in {len(kept.kinds)} ways, seed {seed}")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
