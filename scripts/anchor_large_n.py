"""Forms of the anchor passes against `split`, paired, at n 1k to 64k: what each gains on the device at hand.

    python scripts/anchor_large_n.py --out results/h100/forms.csv --seconds 240 --jobs 12      # under five minutes
    python scripts/anchor_large_n.py --phase backward --out backward.csv
    python scripts/anchor_large_n.py --ahead results/compiler/forms_triton_3.9.0.csv           # needs no device

The forms are those of scripts/anchor_forms; b 8, h 12, d 64, m 64, bfloat16. In a round every form is timed once, in an
order of its own, by events behind a kernel that spins and with a clean L2 (scripts/anchor_schedules.py). A line holds
the median; `to_split`, `low`, `high`: median over the rounds of its time over split's, with its 95 % interval;
`of_copy`: the least bytes (K, V read, O written; backward K, V, G read, dK, dV written) over its time, as a share of
what a copy of 2 GiB moves; `error`: ‖x − split's‖ / ‖split's‖ of O, or the largest of dK, dV and dU; `repeats`: whether
five calls gave the same bits. A form that cannot run is a line with `note`. The forward pass comes first; in each pass
`skewed` and then `specialised`, whose programs wait for each other, come last.

--ahead compiles every form's kernels for sm_90 and writes what the compiler says, with the instructions counted that
the forms are about; exit code 1 if one spills or exceeds shared memory.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import triton  # noqa: E402
from anchor_forms.phases import PHASES, chosen  # noqa: E402
from anchor_schedules import Clock  # noqa: E402
from torch import Tensor  # noqa: E402

from attentions.kernels.anchor import devices, plan_forward  # noqa: E402
from attentions.kernels.anchor.plan import WORKSPACE, Plan, kept_places  # noqa: E402
from harness import stats  # noqa: E402
from harness.machine import parent  # noqa: E402

B, H, D, M, DTYPE = 8, 12, 64, 64, torch.bfloat16
TOKENS = (16384, 65536, 4096, 1024)  # in the order of their worth
ROUNDS, REPEATS, COPIED = 40, 5, 2**31
MOST_APART = 1e-2  # from split's, whose sums have another order: O some 2e-4, gradients some 3e-3
COLUMNS: tuple[str, ...] = (
    "device", "triton", "b", "h", "n", "d", "m", "dtype", "phase", "form", "launches", "programs", "splits",
    "registers", "spilled", "ms", "to_split", "low", "high", "of_copy", "error", "repeats", "note",
)  # fmt: skip
# Of the PTX: copies to shared memory, by a warp and by a tensor map, the two instructions of a dependent launch, …,
# waits for copies and for other roles, and changes of the registers that a role's warps have.
WATCHED = (
    "cp.async.cg", "cp.async.bulk.tensor", "griddepcontrol", "evict_first", "ld.global", "bar.sync",
    "mbarrier.try_wait", "setmaxnreg",
)  # fmt: skip
AHEAD: tuple[str, ...] = (
    "triton", "phase", "form", "n", "kernel", "tokens", "warps", "stages", "programs", "registers", "spilled_bytes",
    "shared_bytes", "resident", "warp_products", "warpgroup_products", *WATCHED,
)  # fmt: skip
WAITING = ("skewed", "specialised")
FAILURES = (ValueError, RuntimeError, triton.runtime.errors.TritonError, triton.compiler.errors.CompilationError)
Calls = Mapping[str, Callable[[], object]]


def plan_of(form: str, n: int, device: devices.Device, phase: str = "forward") -> Plan:
    """A form's plan for a size. Raises ValueError where the form does not take it."""
    k, anchors = torch.empty(B, H, n, D, dtype=DTYPE, device="meta"), torch.empty(M, D, device="meta")
    tokens = (k, k) if phase == "forward" else (k, k, k)
    return PHASES[phase].forms[form](*tokens, anchors, device)


def groups(forms: Iterable[str]) -> list[list[str]]:
    """Split with what cannot hang, then with each kind of launch whose programs wait for each other, so that one that
    hangs or breaks the device leaves the rows before it."""
    kinds: dict[str, list[str]] = {"": [], **{kind: [] for kind in WAITING}}
    for form in forms:
        if form != "split":
            kinds[next((kind for kind in WAITING if form.startswith(kind)), "")].append(form)
    return [["split", *group] for group in kinds.values() if group]


def paired(calls: Calls, once: Callable[[Callable[[], object]], float], rounds: int) -> dict[str, list[float]]:
    """Times of each call, one a round, each round in an order of its own."""
    order, source = list(calls), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        source.shuffle(order)
        for name in order:
            times[name].append(once(calls[name]))
    return times


def figures(
    times: Mapping[str, list[float]], n: int, copy_rate: float, phase: str = "forward"
) -> dict[str, dict[str, str]]:
    """ms, to_split with its interval, and of_copy, by name; copy_rate in bytes a ms."""
    least, found = PHASES[phase].least * B * H * n * D * DTYPE.itemsize, {}
    for name, own in times.items():
        ratios = [ours / theirs for ours, theirs in zip(own, times["split"], strict=True)]
        median, (low, high) = stats.summarise(own).median, stats.median_interval(ratios)
        found[name] = {
            "ms": f"{median:.4f}", "to_split": f"{stats.summarise(ratios).median:.3f}", "low": f"{low:.3f}",
            "high": f"{high:.3f}", "of_copy": f"{least / median / copy_rate:.3f}",
        }  # fmt: skip
    return found


def sound(row: Mapping[str, Any]) -> bool:
    """Whether a row's form gave split's values, the same each time; one that cannot run gave none."""
    return "error" not in row or (row["repeats"] and float(row["error"]) < MOST_APART)


def copied(clock: Clock) -> float:
    """Bytes a ms that a large copy reads and writes."""
    source, target = (torch.empty(COPIED, device="cuda", dtype=torch.int8) for _ in range(2))
    return 2 * COPIED / clock.ms(lambda: target.copy_(source))


class Problem:
    """Inputs and results of a size on the device; for the backward pass also what split's forward pass keeps."""

    def __init__(self, n: int, phase: str = "forward") -> None:
        source = torch.Generator("cuda").manual_seed(n)
        names = ("k", "v") if phase == "forward" else ("k", "v", "g")
        made = {name: torch.randn(B, H, n, D, device="cuda", dtype=DTYPE, generator=source) for name in names}
        made["anchors"] = F.normalize(torch.randn(M, D, device="cuda", generator=source), dim=-1) * 4 * math.sqrt(D)
        made["kept"] = torch.empty(kept_places(B * H, M, D)[2], device="cuda")
        made["out"] = torch.empty_like(made["k"])
        if phase == "backward":
            split = plan_of("split", n, devices.device_of(torch.device("cuda", 0)))
            split.run({name: made[name] for name in plan_forward.TENSORS})
            made |= {f"grad_{name}": torch.empty_like(made[name]) for name in ("k", "v", "anchors")}
        self.given = {name: made[name] for name in PHASES[phase].tensors}
        self.filled = PHASES[phase].results

    def results(self, plan: Plan) -> list[Tensor]:
        """What a call fills, in memory that held NaN."""
        for name in self.filled:
            self.given[name].fill_(float("nan"))
        plan.run(self.given)
        return [self.given[name].clone() for name in self.filled]


def measure(
    n: int, forms: list[str], clock: Clock, copy_rate: float, phase: str = "forward"
) -> Iterator[dict[str, Any]]:
    """The rows of a size: of every form that can run one with its times, of every other one that says why."""
    device, problem = devices.device_of(torch.device("cuda", 0)), Problem(n, phase)
    same = {"device": device.name, "triton": triton.__version__, "b": B, "h": H, "n": n, "d": D, "m": M,
            "dtype": str(DTYPE).removeprefix("torch."), "phase": phase}  # fmt: skip
    rows: dict[str, dict[str, Any]] = {}
    plans: dict[str, Plan] = {}
    split: list[Tensor] = []
    for form in forms:
        try:
            plan = plan_of(form, n, device, phase)
            widest = max(plan.run(problem.given), key=lambda ran: ran.n_regs)
            found = problem.results(plan)
            torch.cuda.synchronize()
        except FAILURES as error:
            yield {**same, "form": form, "note": " ".join(str(error).split())[:200]}
            continue
        split = split or found
        again = all(all(map(torch.equal, found, problem.results(plan))) for _ in range(REPEATS))
        plans[form] = plan
        rows[form] = {
            **same, "form": form, "launches": len(plan.launches), "splits": plan.choice.splits,
            "programs": max(launch.programs for launch in plan.launches), "registers": widest.n_regs,
            "spilled": widest.n_spills, "error": f"{apart(found, split):.1e}", "repeats": again,
        }  # fmt: skip
    calls = {form: (lambda plan=plan: plan.run(problem.given)) for form, plan in plans.items()}
    for form, found in figures(paired(calls, clock.once, ROUNDS), n, copy_rate, phase).items():
        yield rows[form] | found


def apart(found: list[Tensor], right: list[Tensor]) -> float:
    """The largest ‖x − y‖ / ‖y‖; NaN where NaN was found."""
    pairs = ((x.double(), y.double()) for x, y in zip(found, right, strict=True))
    return torch.stack([(x - y).norm() / y.norm() for x, y in pairs]).max().item()


def compile_on_device(task: tuple[int, str, str]) -> str:
    """Compile a form's kernels into Triton's cache on disk; what went wrong, or an empty text."""
    n, phase, form = task
    try:
        plan = plan_of(form, n, devices.device_of(torch.device("cuda", 0)), phase)
        tensors = {name: torch.empty(64, device="cuda", dtype=_dtype(name)) for name in (*plan.tensors, WORKSPACE)}
        for launch in plan.launches:
            launch.compiled(tensors)
    except FAILURES as error:
        return f"{phase} {form} at n={n}: {error}"
    return ""


def _dtype(name: str) -> torch.dtype:
    return DTYPE if name in ("k", "v", "g", "out", "grad_k", "grad_v") else torch.float32


def ahead(path: Path, asked: Mapping[str, list[str]]) -> int:
    """Write what the compiler says of the forms' kernels, needing no device; how many spill or do not fit."""
    from attentions.kernels import ahead as compiler

    broken, seen = 0, set()
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, AHEAD, extrasaction="ignore")
        table.writeheader()
        for phase, form, n in ((x, form, n) for x in asked for form in asked[x] for n in (*TOKENS, 1000)):
            try:
                launches = plan_of(form, n, devices.H100, phase).launches
            except ValueError:
                continue
            for launch in launches:
                key = (launch.kernel.__name__, launch.warps, launch.stages, *launch.constants.items())
                if key in seen or "BLOCK_N" not in launch.constants:
                    continue
                seen.add(key)
                found = compiler.compile_launch(launch, capability=90)
                code = compiler.compiled(launch, capability=90).asm["ptx"]
                row = dataclasses.asdict(found) | {name: code.count(name) for name in WATCHED} | {
                    "triton": triton.__version__, "phase": phase, "form": form, "n": n,
                    "tokens": launch.constants["BLOCK_N"], "warps": launch.warps, "stages": launch.stages,
                    "programs": launch.programs, "resident": found.resident,
                }  # fmt: skip
                table.writerow(row)
                file.flush()
                fits = not found.spilled_bytes and found.shared_bytes <= compiler.SHARED_LIMIT[90]
                broken += not fits
                print(*(row.get(name, "") for name in AHEAD), "" if fits else "<-- does not fit", flush=True)
    return broken


def main() -> int:
    """Measure the sizes in order while there is time, writing each row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("forms.csv"))
    parser.add_argument("--seconds", type=float, default=240.0, help="no size is begun later")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile beforehand")
    parser.add_argument("--phase", choices=[*PHASES, "both"], default="both", help="default: both, forward first")
    parser.add_argument("--forms", default="", help="with commas between; default: all")
    parser.add_argument("--ahead", type=Path, help="compile only, for sm_90, and write the report here")
    given = parser.parse_args()
    try:
        asked = chosen(given.phase, given.forms)
    except ValueError as error:
        print(f"anchor_large_n: {error}", file=sys.stderr)
        return 2
    if given.ahead:
        return 1 if ahead(given.ahead, asked) else 0
    if not torch.cuda.is_available():
        print("anchor_large_n: PyTorch sees no CUDA device here; --ahead needs none", file=sys.stderr)
        return 2
    begun = time.perf_counter()
    triton.set_allocator(lambda size, alignment, stream: torch.empty(size, device="cuda", dtype=torch.int8))
    if given.jobs > 1:
        with ProcessPoolExecutor(given.jobs, get_context("spawn"), initializer=parent.die_with) as pool:
            tasks = [(n, phase, form) for n in TOKENS for phase in asked for form in asked[phase]]
            for said in pool.map(compile_on_device, tasks):
                print(said, end="\n" if said else "", flush=True)
        print(f"compiled in {time.perf_counter() - begun:.0f} s", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    clock, failed = Clock(), 0
    copy_rate = copied(clock)
    print(f"a copy moves {copy_rate / 1e6:.0f} GB/s; columns: {' '.join(COLUMNS[4:])}", flush=True)
    with given.out.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for phase, group, n in ((x, group, n) for x in asked for group in groups(asked[x]) for n in TOKENS):
            if time.perf_counter() - begun > given.seconds:
                failed += 1
                print(f"no time for {phase} {', '.join(group[1:])} at n={n}")
                continue
            for row in measure(n, group, clock, copy_rate, phase):
                failed += not sound(row)
                table.writerow(row)
                file.flush()
                print(*(row.get(name, "") for name in COLUMNS[4:]), flush=True)
            torch.cuda.empty_cache()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
