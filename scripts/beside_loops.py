"""What a neighbour does to what is measured here, and whether the figures say so: beside 0, 1 and 2 busy loops.

    python scripts/beside_loops.py sweep --out results/cpu/beside_loops            # rows near the truth, or marked
    python scripts/beside_loops.py sweep --out … --config scripts/cpu_sweep.toml   # the README's whole sweep: hours
    python scripts/beside_loops.py crossover --out results/cpu/beside_loops        # ten answers beside one loop
    python scripts/beside_loops.py threads --out results/cpu/beside_loops          # wait policies, one thread fewer

Each needs a machine that is quiet but for the loops, and takes under ten minutes as it stands. CSV files with a line a
row, an answer or a time, and a README with the tables.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.store import runs as store
from harness.store.contention import reason

NEAR, FAR = 0.15, 0.30
SMALL = ["--attention", "full,flash,anchor", "--n", "256,1024", "--m", "64", "--budget", "0.2"]
CROSSING = ["anchor", "flash", "--low", "128", "--high", "4096", "--budget", "0.2"]
WAYS: Mapping[str, Mapping[str, str]] = {
    "as it is": {}, "passive wait": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread fewer": {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1))},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Line:
    """One latency of one run: over the undisturbed median of its case, and whether its row is marked."""

    loops: int
    run: int
    case: str
    ms: float
    over_quiet: float
    marked: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of `harness crossover`; n is 0 where it has none."""

    loops: int
    run: int
    kind: str
    n: int
    over_quiet: float
    answer: str


@dataclass(frozen=True, kw_only=True)
class Way:
    """One latency by a way of using threads: over the quiet median of that way, and of all threads as they are."""

    way: str
    loops: int
    run: int
    case: str
    ms: float
    over_quiet: float
    over_usual: float


@contextmanager
def loops(count: int) -> Iterator[None]:
    """So many processes that burn a core each meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measured(arguments: Sequence[str], *, environ: Mapping[str, str] | None = None) -> list[tuple[str, float, bool]]:
    """The latencies of one `harness run`: (case, ms, marked)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        fixed = ["--metrics", "latency", "--out", str(out), "--quiet"]
        command = [sys.executable, "-m", "harness", "run", *arguments, *fixed]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **(environ or {})})
        rows: Any = store.read(out).itertuples()
        return [
            (f"{row.attention} n={row.n}{_m(row.m)} {row.phase} {row.dtype}", row.value, bool(reason(row.note)))
            for row in rows
            if row.metric == "latency" and row.status == "ok"
        ]


def sweep(arguments: Sequence[str], *, runs: int) -> list[Line]:
    """The sweep beside 0, 1 and 2 loops, `runs` times each, in turns."""
    found = []
    for run in range(runs):
        for count in (0, 1, 2):
            with loops(count):
                found += [(count, run, *row) for row in measured(arguments)]
            print(f"run {run + 1} of {runs} beside {count} loops", file=sys.stderr)
    quiet = _medians((case, ms) for count, _, case, ms, _ in found if not count)
    return [
        Line(loops=count, run=run, case=case, ms=ms, over_quiet=ms / quiet[case], marked=marked)
        for count, run, case, ms, marked in found if case in quiet
    ]  # fmt: skip


def crossover(arguments: Sequence[str], *, runs: int) -> list[Answer]:
    """Three answers of a quiet machine, then `runs` beside one loop."""
    told = []
    for count, run in [*((0, at) for at in range(3)), *((1, at) for at in range(runs))]:
        with loops(count):
            command = [sys.executable, "-m", "harness", "crossover", *arguments, "--json", "--quiet"]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            raise SystemExit(done.stderr)
        told.append((count, run, json.loads(done.stdout)))
        print(f"beside {count} loops: {told[-1][2]['answer']}", file=sys.stderr)
    sizes = [document["n"] for count, _, document in told if not count and document["n"]]
    quiet = statistics.median(sizes) if sizes else 0
    return [
        Answer(
            loops=count, run=run, kind=document["kind"], n=document["n"] or 0, answer=document["answer"],
            over_quiet=document["n"] / quiet if document["n"] and quiet else 0.0,
        )
        for count, run, document in told
    ]  # fmt: skip


def threads(arguments: Sequence[str], *, runs: int) -> list[Way]:
    """Every way of using threads on a quiet machine and beside one loop; nothing is taken again."""
    found = []
    for run in range(runs):
        for way, environ in WAYS.items():
            for count in (0, 1):
                with loops(count):
                    rows = measured([*arguments, "--patience", "0"], environ=environ)
                found += [(way, count, run, case, ms) for case, ms, _ in rows]
        print(f"run {run + 1} of {runs}", file=sys.stderr)
    quiet = _medians(((way, case), ms) for way, count, _, case, ms in found if not count)
    return [
        Way(
            way=way, loops=count, run=run, case=case, ms=ms, over_quiet=ms / quiet[way, case],
            over_usual=ms / quiet["as it is", case],
        )
        for way, count, run, case, ms in found
    ]  # fmt: skip


def sweep_table(lines: Sequence[Line]) -> Iterator[str]:
    """Shares of rows near the truth, marked, and far from it without a mark."""
    yield f"| busy loops | rows | within {100 * NEAR:.0f} % | marked | unmarked beyond {100 * FAR:.0f} % | worst |"
    yield "|---|---|---|---|---|---|"
    for count in sorted({line.loops for line in lines}):
        own = [line for line in lines if line.loops == count]
        off = [max(line.over_quiet, 1 / line.over_quiet) - 1 for line in own]
        near, marked = sum(by <= NEAR for by in off), sum(line.marked for line in own)
        far = sum(by > FAR and not line.marked for by, line in zip(off, own, strict=True))
        yield (
            f"| {count} | {len(own)} | {100 * near / len(own):.0f} % | {100 * marked / len(own):.0f} % | {far} | "
            f"×{max(off) + 1:.2f} |"
        )


def crossover_table(answers: Sequence[Answer]) -> Iterator[str]:
    """How many answers lie near the quiet one, were refused, or are wrong."""
    yield "| busy loops | answers | within a factor 1.5 | refused | neither |"
    yield "|---|---|---|---|---|"
    for count in sorted({answer.loops for answer in answers}):
        own = [answer for answer in answers if answer.loops == count]
        near = sum(1 / 1.5 <= answer.over_quiet <= 1.5 for answer in own)
        refused = sum(answer.kind == "refused" for answer in own)
        yield f"| {count} | {len(own)} | {near} | {refused} | {len(own) - near - refused} |"


def threads_table(ways: Sequence[Way]) -> Iterator[str]:
    """How far a neighbour moves each way of using threads, and what the way itself costs."""
    yield "| threads | busy loops | median over its own quiet time | worst | median over the usual quiet time |"
    yield "|---|---|---|---|---|"
    for way, count in dict.fromkeys((one.way, one.loops) for one in ways):
        own = [one for one in ways if (one.way, one.loops) == (way, count)]
        moved = [one.over_quiet for one in own]
        usual = statistics.median(one.over_usual for one in own)
        yield f"| {way} | {count} | ×{statistics.median(moved):.2f} | ×{max(moved):.2f} | ×{usual:.2f} |"


def _m(value: Any) -> str:
    return f" m={value}" if isinstance(value, int) else ""


def _medians(pairs: Iterator[tuple[Any, float]]) -> dict[Any, float]:
    held: dict[Any, list[float]] = {}
    for key, value in pairs:
        held.setdefault(key, []).append(value)
    return {key: statistics.median(values) for key, values in held.items()}


def stored(path: Path, kind: type[Any]) -> list[Any]:
    """The lines, answers or ways of a CSV file that was written here."""
    told = {"int": int, "float": float, "bool": lambda text: text == "True", "str": str}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            kind(**{field.name: told[str(field.type)](row[field.name]) for field in fields(kind)})
            for row in csv.DictReader(file)
        ]


def _write(out: Path, part: str, rows: Sequence[Any], table: Iterator[str]) -> None:
    """The part's CSV and table; the README holds the tables of every part that was written."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    (out / f"{part}.md").write_text("\n".join([*table, ""]), encoding="utf-8")
    print((out / f"{part}.md").read_text(encoding="utf-8"), end="")


def main() -> None:
    """Measure one part and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("sweep", "crossover", "threads"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, help="default: 5 of the sweep, 10 of crossover, 3 of threads")
    parser.add_argument("--patience", default="5", help="seconds, as of harness run; the command's own default is 20")
    parser.add_argument("--config", help="a sweep file instead of the small sweep")
    given = parser.parse_args()
    small = ["--config", given.config] if given.config else SMALL
    if given.part == "sweep":
        lines = sweep([*small, "--patience", given.patience], runs=given.runs or 5)
        _write(given.out, "sweep", lines, sweep_table(lines))
    elif given.part == "crossover":
        answers = crossover([*CROSSING, "--patience", given.patience], runs=given.runs or 10)
        _write(given.out, "crossover", answers, crossover_table(answers))
    else:
        ways = threads(small, runs=given.runs or 3)
        _write(given.out, "threads", ways, threads_table(ways))


if __name__ == "__main__":
    main()
