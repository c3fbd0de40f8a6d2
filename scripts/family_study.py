"""The family of anchor attention beside the others: one recipe a problem, several seeds, accuracy, parameters, FLOPs.

    python scripts/family_study.py --out results/cpu/family --plan               # what is missing; runs nothing
    python scripts/family_study.py --out results/cpu/family --jobs 2             # trains it; may be stopped
    python scripts/family_study.py --out results/cpu/family --problem recall-8 --member anchor transolver
    python scripts/family_study.py --out results/cpu/family --latency            # on a quiet machine: what a call takes
    python scripts/family_study.py --out results/cpu/family --table              # family.csv and the table again
    python scripts/family_study.py --out results/cpu/family_long --times 10 --problem recall-8 darcy --set self=excluded

Problems: recall at the hard load (56 of 96 shapes among 64 tokens, by the loop of harness/vision/recall.py) with m = 8,
4 and 16; Darcy flow and Poisson's equation (harness train operator) at 256 points; scikit-learn's digits; if asked for,
segmentation with a legend (the recipes of scripts/vision_study.py), Darcy flow at 256 points with m = 64 and at 1024
with m = 32, 64 and 256. Their order is the order of training: problem by problem, seed by seed, so that what there is
at any moment compares all members at as many seeds. Recall models that results/cpu/recall holds are the same models and
are not trained again.

Rows in the columns of measurements.csv are appended and synced a model at a time; family.csv has a line a problem and
member. Training is on one thread and deterministic, so a busy machine changes how long it takes and not what comes out.
Latency is another run, results/cpu/family_latency: of fresh weights, which cost what trained ones do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from family_members import MEMBERS, PROBLEMS, USUAL, Member  # noqa: E402
from family_table import latency_folder, recalled, summary, table  # noqa: E402
from recall_study import describe  # noqa: E402
from studying import as_trained  # noqa: E402
from vision_study import Quiet  # noqa: E402

import attentions  # noqa: E402
from harness.errors import Failure, UsageError  # noqa: E402
from harness.measuring.metrics import Settings, flops, latency  # noqa: E402
from harness.measuring.trained import Inference  # noqa: E402
from harness.store.record import Case, Reading, Row, alike  # noqa: E402
from harness.store.runs import MEASUREMENTS, Store, read  # noqa: E402
from harness.vision import recall, tasks  # noqa: E402
from harness.vision.data import identity, scenes  # noqa: E402
from harness.vision.evaluate import accuracies, parameters  # noqa: E402
from harness.vision.plan import Origin, Plan, case_of, shape_of  # noqa: E402
from harness.vision.recipe import Recipe  # noqa: E402
from harness.vision.train import train  # noqa: E402

SCENES = 2000


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model to train: a problem by its name, a member, the seed; work: where generated scenes are; times: how
    often the steps of the problem's recipe."""

    problem: str
    member: Member
    seed: int
    work: str = ""
    times: int = 1

    @property
    def plan(self) -> Plan:
        """As harness train would have it; of recall's recipe its quicker loop takes steps, batch and rate."""
        problem = PROBLEMS[self.problem]
        steps = self.times * problem.recipe["steps"]
        own = {} if problem.task == "recall" else {"evaluate": steps, "log": 50}
        return Plan(
            task=problem.task, options=problem.options, mechanism=self.member.on(problem),
            recipe=Recipe(**{**problem.recipe, **own, "steps": steps, "seed": self.seed}),
            data=str(Path(self.work) / problem.theme / problem.part) if problem.part else "",
        )  # fmt: skip

    @property
    def case(self) -> Case:
        """The case that its rows belong to."""
        plan, data = self.plan, _data(self.plan.task, tuple(sorted(self.plan.options.items())), self.plan.data)
        torch.manual_seed(0)
        network, task = plan.build(data["train"]).eval(), tasks.get(plan.task)
        batch = task.collate([data["val"][0]])
        shape = shape_of(network, lambda: task.predict(network, batch))
        origin = Origin(
            data=identity.digest_of(data["train"]), judged=identity.digest_of(data["val"]), step=plan.recipe.steps or 0
        )
        return case_of(plan, shape, device="cpu", origin=origin)


def main() -> None:
    """Train what the folder lacks, or measure what a call takes, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--beside", type=Path, default=Path("results/cpu/recall"), help="of scripts/recall_study.py")
    parser.add_argument("--work", type=Path, default=Path("runs/family"), help="generated scenes, of problem legend")
    parser.add_argument("--problem", nargs="+", choices=list(PROBLEMS), default=USUAL)
    parser.add_argument("--member", nargs="+", choices=sorted({x.attention for x in MEMBERS}), help="all by default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="only members with this option")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--times", type=int, default=1, help="steps, as a multiple of each recipe's")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1, help="models trained at a time, a process each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no model after so many")
    parser.add_argument("--plan", action="store_true", help="only list what is missing")
    parser.add_argument("--latency", action="store_true", help="only measure what a call takes")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of latency samples a model")
    parser.add_argument("--table", action="store_true", help="only write family.csv and print the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        wanted = [] if given.table else models(given)
        if given.plan:
            known = set(read(given.out)["case_id"]) if (given.out / MEASUREMENTS).exists() else set()
            missing = [f"{model.problem} {case}" for model in wanted if (case := model.case).case_id not in known]
            print(*missing, f"{len(missing)} of {len(wanted)} models are to be trained", sep="\n")
            return
        if given.latency:
            measure_latency(wanted, latency_folder(given.out), budget_s=given.budget)
        elif wanted:
            study(wanted, given.out, jobs=given.jobs, minutes=given.minutes)
        lines = summary(given.out, beside=given.beside if given.times == 1 else None)
    except (UsageError, Failure) as error:
        sys.exit(f"family_study: {error}")
    lines.to_csv(given.out / "family.csv", index=False)
    print(table(lines))


def models(given: argparse.Namespace) -> list[Model]:
    """Those asked for, seed by seed within a problem; attention that is exact and not `full` at one seed alone."""
    chosen = [member for member in MEMBERS if not given.member or member.attention in given.member]
    for text in given.set:
        key, _, value = text.partition("=")
        chosen = [member for member in chosen if key in member.options and alike(str(member.options[key]), value)]
    if not chosen:
        raise UsageError(f"no member has {' and '.join(given.set)}")
    for name in given.problem:
        problem = PROBLEMS[name]
        if problem.part and not (given.work / problem.theme).exists():
            scenes.write(
                given.work / problem.theme, images=SCENES, validation=200, size=64, seed=0, theme=problem.theme
            )
    known = recalled(given.beside if given.times == 1 else None)
    held = set(zip(known["attention"], known["options"], known["m"], known["seed"], strict=True))
    return [
        Model(problem=name, member=member, seed=seed, work=str(given.work), times=given.times)
        for name in given.problem
        for seed in range(given.seeds)
        for member in chosen
        if given.latency or _stands(member, name, seed, held)
    ]


def _stands(member: Member, name: str, seed: int, held: set[Any]) -> bool:
    """Not what is known already: `flash` is `full`, and recall and Darcy flow of what has no m are the same at every m;
    nor a grid where there is none."""
    bottleneck = attentions.spec(member.attention).bottleneck
    if (member.attention == "flash" and seed) or (member.grid and not PROBLEMS[name].columns):
        return False
    if PROBLEMS[name].again and not bottleneck:
        return False
    if PROBLEMS[name].task != "recall":
        return True
    if name != "recall-8" and not bottleneck and member.attention != "window":
        return False
    told = "".join(f" {key}={member.options[key]}" for key in sorted(member.options))
    return (member.attention, told, PROBLEMS[name].anchors if bottleneck else 0, seed) not in held


def study(wanted: Sequence[Model], out: Path, *, jobs: int = 1, minutes: float = float("inf")) -> None:
    """Train those whose rows are missing and append each as it is done. Raises StoreError as the store does."""
    resume = (out / MEASUREMENTS).exists()
    with Store.open(out, metrics=("params", "flops"), resume=resume) as store:
        stamp = describe(store, out)
        todo = [(model, case) for model in wanted if (case := model.case).case_id not in store.done]
        print(f"{len(wanted) - len(todo)} of {len(wanted)} models are there", flush=True)
        results = as_trained(todo, _trained, jobs=jobs, minutes=minutes)
        for done, ((model, case), (readings, seconds)) in enumerate(results, 1):
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            store.append([Row.of(case, reading, time_utc=now, **stamp) for reading in readings], {})
            print(f"[{done}/{len(todo)}] {seconds:.0f} s  {model.problem}  {readings[0].value:.4f}  {case}", flush=True)


def _trained(one: tuple[Model, Case]) -> tuple[list[Reading], float]:
    return trained(one[0])


def trained(model: Model) -> tuple[list[Reading], float]:
    """The readings of a model after its training, accuracy first, and the seconds it took; on one thread."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    readings = _recalled(model) if model.plan.task == "recall" else _judged(model.plan)
    seconds = time.perf_counter() - started
    return [replace(readings[0], note=f"trained in {seconds:.0f} s on one thread"), *readings[1:]], seconds


def _recalled(model: Model) -> list[Reading]:
    plan = model.plan
    options, mechanism, recipe = tasks.get("recall").parse(plan.options), plan.mechanism, plan.recipe
    trial = recall.Trial(
        load=options.load, attention=mechanism.attention, anchors=mechanism.anchors, options=mechanism.options,
        seed=recipe.seed, steps=recipe.steps or 0, batch=recipe.batch, learning_rate=recipe.lr, width=options.width,
        heads=options.heads, depth=options.depth,
    )  # fmt: skip
    return list(recall.run(trial))


def _judged(plan: Plan) -> list[Reading]:
    """Accuracy after the last step, parameters, FLOPs of one sample. The run's folder is not kept."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(plan, Path(folder) / "run", listener=Quiet(), device="cpu")
    data = plan.load("val")
    inference = _inference(plan, data)
    counted = Reading(metric="flops", value=flops.count(inference), samples=1, note="counted by dispatch")
    return [*accuracies(outcome.values, samples=len(data), note=""), parameters(inference.network), counted]


def _inference(plan: Plan, data: Any, case: Case | None = None) -> Any:
    """One call of a network with fresh weights on one sample; no case is asked for where only FLOPs are counted."""
    torch.manual_seed(plan.recipe.seed)
    task = tasks.get(plan.task)
    named: Any = case or argparse.Namespace(device="cpu")
    return Inference(plan.build(data).eval(), task, task.collate([data[0]]), named)


def measure_latency(wanted: Sequence[Model], out: Path, *, budget_s: float) -> None:
    """latency of one call a problem and member, of fresh weights, by the metric of harness run."""
    resume = (out / MEASUREMENTS).exists()
    with Store.open(out, metrics=("latency",), resume=resume) as store:
        stamp = describe(store, out)
        for model in wanted:
            if model.seed or (case := model.case).case_id in store.done:
                continue
            samples: dict[str, list[float]] = {}
            inference = _inference(model.plan, model.plan.load("val"), case)
            reading = next(iter(latency.measure(inference, {}, Settings(budget_s=budget_s, samples=samples))))
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            store.append([Row.of(case, reading, time_utc=now, **stamp)], {"latency": samples["latency"]})
            print(f"{model.problem}  {reading.value:.3f} ms  {case}", flush=True)


@cache
def _data(task: str, options: tuple[tuple[str, Any], ...], folder: str) -> dict[str, Any]:
    plan = Plan(task=task, options=dict(options), data=folder)
    return {split: plan.load(split) for split in ("train", "val")}


if __name__ == "__main__":
    main()
