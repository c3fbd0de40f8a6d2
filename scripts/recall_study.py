"""How much can each attention recall? Accuracy against m, against the load and against FLOPs, beside the floor.

    python scripts/recall_study.py --out results/cpu/recall                 # all, or what is missing of it
    python scripts/recall_study.py --out results/cpu/recall --plan          # what is missing, and runs nothing
    python scripts/recall_study.py --out results/cpu/recall --minutes 30    # starts no model after that
    python scripts/recall_figures.py results/cpu/recall

One recipe for all (harness/vision/recall.py): width 64, 4 heads, depth 2, n=64, AdamW, one-cycle 3e-3, batch 64. Parts:
`hard`, `easy` and `middle`, every attention at that load with m=16; `anchors`, those with an m, at the hard load with
others; `capacity`, the hard load's shares (7/8 of the tokens are items) at n = 64 to 512 with m from n/16 to n/2; and
`queries`, many questions a sample, of the sizes of MQAR (docs/recall.md). The last two are run only if asked for. Each
part is run seed by seed, so that what there is at any moment is balanced.

Rows in the columns of measurements.csv are appended and synced a model at a time. A model is deterministic: it is
trained on one thread, whatever the number of jobs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from studying import as_trained

import attentions
from harness.errors import Failure, UsageError
from harness.machine import environment
from harness.store.record import SCHEMA, Case, Reading, Row, canonical_options, new_run_id
from harness.store.runs import ENVIRONMENT, MEASUREMENTS, Store, read, read_environment
from harness.vision.recall import Load, Trial, run

METRICS = ("top1", "loss", "params", "flops")
LOADS = {"easy": Load(shapes=24, items=12), "middle": Load(shapes=48, items=28), "hard": Load(shapes=96, items=56)}


@dataclass(frozen=True)
class Mechanism:
    """An attention with its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


BOTH = {"init": "orthogonal", "logits": "cosine", "self": "excluded"}
COUNTED = Mechanism("anchor", {**BOTH, "importance": True})
MECHANISMS = (
    Mechanism("none"),
    Mechanism("anchor", {"init": "paper"}),
    Mechanism("anchor", {"init": "sharp"}),
    Mechanism("anchor", {"init": "orthogonal", "logits": "cosine"}),
    COUNTED,
    Mechanism("full"),
    Mechanism("nystrom"),
    Mechanism("linformer"),
    Mechanism("flash"),
)


def main() -> None:
    """Train what the folder lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", action="append", choices=PARTS, help=f"may be repeated; default: {' '.join(USUAL)}")
    parser.add_argument(
        "--attention", action="append", choices=sorted({x.name for x in MECHANISMS + WIDELY}), help="too"
    )
    parser.add_argument("--tokens", type=int, action="append", help="only sequences of this length; may be repeated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Trial().steps)
    parser.add_argument("--jobs", type=int, default=1, help="models trained at a time, a process each")
    parser.add_argument("--threads", type=int, default=1, help="of each process; other than 1 is not deterministic")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no model after so many")
    parser.add_argument("--plan", action="store_true")
    given = parser.parse_args()
    wanted = [trial for part in given.part or USUAL for trial in trials(part, given.seeds, given.steps)]
    wanted = [trial for trial in wanted if not given.attention or trial.attention in given.attention]
    wanted = [trial for trial in wanted if not given.tokens or trial.load.tokens in given.tokens]
    try:
        if given.plan:
            known = set(read(given.out)["case_id"]) if (given.out / MEASUREMENTS).exists() else set()
            missing = [case for case in map(case_of, wanted) if case.case_id not in known]
            print(*missing, f"{len(missing)} of {len(wanted)} models are to be trained", sep="\n")
        else:
            study(wanted, given.out, jobs=given.jobs, threads=given.threads, minutes=given.minutes)
    except (UsageError, Failure) as error:
        sys.exit(f"recall_study: {error}")


def trials(part: str, seeds: int, steps: int) -> Iterator[Trial]:
    """The models of a part, seed by seed."""
    for seed in range(seeds):
        for load, mechanism, m in PARTS[part]:
            yield Trial(
                load=load, attention=mechanism.name, options=mechanism.options, anchors=m, seed=seed, steps=steps
            )


def _points(load: str, *sizes: int) -> list[tuple[Load, Mechanism, int]]:
    """Every attention with m=16; for other m those that have one."""
    chosen = [x for x in MECHANISMS if sizes == (16,) or attentions.spec(x.name).bottleneck]
    return [(LOADS[load], mechanism, m) for mechanism in chosen for m in sizes]


def _capacity(tokens: int, mechanisms: tuple[Mechanism, ...]) -> Iterator[tuple[Load, Mechanism, int]]:
    """Those with an m at n/16, n/8, n/4 and n/2, the others once; most of the tokens are items."""
    load = Load(shapes=3 * tokens // 2, items=7 * tokens // 8, tokens=tokens)
    for mechanism in mechanisms:
        sizes = (16, 8, 4, 2) if attentions.spec(mechanism.name).bottleneck else (16,)
        yield from ((load, mechanism, tokens // share) for share in sizes)


def _queries(tokens: int, pairs: int, mechanisms: tuple[Mechanism, ...]) -> Iterator[tuple[Load, Mechanism, int]]:
    """As many questions as items, and MQAR's vocabulary: half of 8192 symbols for keys, half for values; m is the pairs
    and four times that."""
    load = Load(shapes=4096, colours=4096, items=pairs, tokens=tokens, questions=pairs)
    for mechanism in mechanisms:
        sizes = (pairs, 4 * pairs) if attentions.spec(mechanism.name).bottleneck else (pairs,)
        yield from ((load, mechanism, m) for m in sizes)


WIDELY = tuple(Mechanism(*each) for each in (
    ("none",), ("full",), ("anchor", {"init": "sharp"}), ("linear",), ("performer",), ("nystrom",), ("linformer",),
    ("agent",),
))  # fmt: skip
ALONE = (  # of the family: the own share excluded, by which a question's token outweighs a few items; cosine; both
    Mechanism("anchor", {"self": "excluded"}),
    Mechanism("anchor", {"init": "orthogonal", "logits": "cosine"}),
    Mechanism("anchor", BOTH),
    COUNTED,
)
PARTS = {
    "hard": _points("hard", 16),
    "easy": _points("easy", 16),
    "anchors": _points("hard", 4, 8, 32),
    "middle": _points("middle", 16),
    "capacity": [point for tokens in (64, 128, 256, 512) for point in _capacity(tokens, (*WIDELY, COUNTED))],
    "queries": [
        point
        for tokens, pairs in ((64, 4), (128, 8), (256, 16), (512, 64))
        for point in _queries(tokens, pairs, WIDELY + ALONE)
    ],
}
USUAL = ("hard", "easy", "anchors", "middle")


def study(wanted: list[Trial], out: Path, *, jobs: int = 1, threads: int = 1, minutes: float = float("inf")) -> None:
    """Train those whose rows are missing and append each as it is done. Raises StoreError as the store does."""
    resume = (out / MEASUREMENTS).exists()
    torch.set_num_threads(threads)  # before the machine is described, whose name it is part of
    with Store.open(out, metrics=METRICS, resume=resume) as store:
        stamp = describe(store, out)
        todo = [trial for trial in wanted if case_of(trial).case_id not in store.done]
        print(f"{len(wanted) - len(todo)} of {len(wanted)} models are there", flush=True)
        results = as_trained(todo, partial(_train, threads=threads), jobs=jobs, minutes=minutes)
        for done, (trial, (readings, seconds)) in enumerate(results, 1):
            case, now = case_of(trial), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            store.append([Row.of(case, reading, time_utc=now, **stamp) for reading in readings], {})
            print(f"[{done}/{len(todo)}] {seconds:.0f} s  {readings[0].value:.3f}  {case}", flush=True)


def case_of(trial: Trial) -> Case:
    """The case that a trial's rows belong to: scope `model`, the shape of its attention for one sample."""
    spec = attentions.spec(trial.attention)
    shape = {"b": 1, "h": trial.heads, "n": trial.load.tokens, "d": trial.width // trial.heads}
    m = trial.anchors if spec.bottleneck else None
    work = attentions.Work(**shape, m=m, options=spec.parse_options(trial.options))
    backend = attentions.resolve(trial.attention, device="cpu", dtype=torch.float32, work=work).name
    described = {
        **trial.options, "task": "recall", "shapes": trial.load.shapes, "items": trial.load.items,
        "colours": trial.load.colours, "steps": trial.steps,
        **({"questions": trial.load.questions} if trial.load.questions > 1 else {}),
    }  # fmt: skip
    return Case(
        attention=spec.name, backend=backend, scope="model", phase="forward", **shape, m=m, dtype="float32",
        device="cpu", options=canonical_options(described), seed=trial.seed,
    )  # fmt: skip


def _train(trial: Trial, threads: int) -> tuple[list[Reading], float]:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    readings = list(run(trial))
    seconds = time.perf_counter() - started
    return [replace(readings[0], note=f"trained in {seconds:.0f} s on {threads} thread(s)"), *readings[1:]], seconds


def describe(store: Store, out: Path) -> dict[str, str]:
    """Write environment.json; the columns that all rows share."""
    document, earlier = environment.collect("cpu"), read_environment(out)
    stamp = {
        "run_id": earlier.get("run_id") or new_run_id(),
        "machine": environment.machine(document),
        "commit": environment.commit(),
    }
    for text in store.warnings:
        print(text, file=sys.stderr)
    store.write_json(ENVIRONMENT, {"schema": SCHEMA, "device": "cpu", "environment": document, **stamp})
    return stamp


if __name__ == "__main__":
    main()
