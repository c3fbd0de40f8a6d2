r"""Accuracy beside cost: every attention in the same model, by the same recipe, on small vision tasks, several seeds.

    python scripts/vision_study.py --out results/cpu/vision --work runs/vision --threads 1
    python scripts/vision_study.py --out results/cpu/vision --work runs/vision --study digits --seeds 3
    python scripts/vision_study.py --out results/cpu/vision --work runs/vision --seeds 0      # only table and figures
    python scripts/vision_study.py --out results/cpu/legend --work runs/vision --study legend-segmentation \
        legend-detection

Resumes: what --work holds trained is not trained again, what --out holds judged is not judged again; a model that was
stopped goes on at its last checkpoint. Rows are harness eval's, one case a model; harness plot draws them as `pareto`.
`none` is attention removed: the floor under every accuracy. Seeds are the outer loop, so an unfinished study compares
all attentions at fewer seeds.

Problems: digits (scikit-learn's, real); generated scenes (harness.vision.data.scenes): the class of each pixel
(segmentation), boxes (detection), and the colour of the marked shape's twin (relation); and segmentation and detection
where each answer stands in a legend elsewhere in the picture (legend-…), which needs attention.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's library writes to stderr on every start otherwise

import torch

from harness import figures
from harness.measuring import judge
from harness.store import runs as store
from harness.store.curves import CURVES
from harness.store.record import parse_options
from harness.store.trained_for import own_options
from harness.vision.data import scenes
from harness.vision.plan import Plan
from harness.vision.recipe import Recipe
from harness.vision.runfolder import LAST, RunFolder
from harness.vision.task import Mechanism
from harness.vision.train import train

ATTENTIONS: list[tuple[str, dict[str, Any]]] = [
    ("none", {}),
    ("full", {}),
    ("flash", {}),
    ("linformer", {}),
    ("nystrom", {}),
    ("anchor", {"init": "paper"}),
    ("anchor", {"init": "sharp"}),
    ("anchor", {"init": "orthogonal", "logits": "cosine"}),
]
SMALL = {"width": 64, "depth": 4, "heads": 4, "position": 0.2}


@dataclass(frozen=True, kw_only=True)
class Study:
    """One problem: its task, the scenes' theme and the part of them it reads (digits need none), model, m, recipe; and
    the problem whose trained model of the same attention and seed its transformer starts from, if not fresh."""

    task: str
    part: str = ""
    theme: str = "shapes"
    options: dict[str, Any] = field(default_factory=dict)
    anchors: int = 16
    recipe: dict[str, Any] = field(default_factory=dict)
    start: str = ""


DENSE = {**SMALL, "size": 64, "patch": 8, "pyramid": 32, "smallest": 0.75, "largest": 1.5}
NARROW = {"width": 64, "depth": 2, "heads": 4, "position": 0.02, "weight_init": "jax", "size": 64, "patch": 8}
SIGNS = {**NARROW, "pyramid": 16, "smallest": 1.0, "largest": 1.0}
STUDIES = {
    "digits": Study(
        task="classification",
        options={**SMALL, "size": 16, "patch": 2},
        recipe={"steps": 400, "batch": 64, "lr": 2e-3},
    ),
    "segmentation": Study(
        task="segmentation", part="ade20k", options=DENSE, recipe={"steps": 300, "batch": 16, "lr": 3e-3}
    ),
    "detection": Study(
        task="detection",
        part="coco",
        options={**DENSE, "finest": 3, "prior": 2.0},
        recipe={"steps": 300, "batch": 16, "lr": 3e-3},
    ),
    "relation": Study(
        task="classification",
        part="classes",
        options={**SMALL, "size": 64, "patch": 8, "flip": True},
        recipe={"steps": 3000, "batch": 64, "lr": 2e-3},
    ),
    "legend-segmentation": Study(
        task="segmentation",
        part="ade20k",
        theme="legend",
        options=SIGNS,
        recipe={"steps": 500, "batch": 32, "lr": 3e-3},
    ),
    "legend-detection": Study(
        task="detection",
        part="coco",
        theme="legend",
        options={**SIGNS, "finest": 3, "prior": 1.0},
        recipe={"steps": 250, "batch": 32, "lr": 3e-3, "layer_decay": 0.3, "clip": 5.0},
        start="legend-segmentation",
    ),
}


class Quiet:
    """A listener that says nothing; the script prints a line a model."""

    def begin(self, description: str, step: int, steps: int) -> None:
        """Nothing."""

    def trained(self, step: int, losses: Any, lr: float, images: int) -> None:
        """Nothing."""

    def evaluated(self, step: int, values: Any) -> None:
        """Nothing."""


def main() -> None:
    """Train and judge what is missing, then draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="run folder for the rows")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and generated scenes")
    parser.add_argument("--study", nargs="+", choices=list(STUDIES), default=["digits", "segmentation", "detection"])
    parser.add_argument("--attention", nargs="+", choices=sorted({name for name, _ in ATTENTIONS}), default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=None, help="instead of each study's own")
    parser.add_argument("--images", type=int, default=2000, help="generated scenes to train on")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    for theme in {STUDIES[name].theme for name in given.study if STUDIES[name].part and given.seeds}:
        if not (given.work / theme).exists():
            scenes.write(given.work / theme, images=given.images, validation=200, size=64, seed=0, theme=theme)
    resume = (given.out / store.MEASUREMENTS).exists()
    with RunFolder.open(given.out, metrics=judge.COSTS, resume=resume, write=True, curves=False) as folder:
        folder.describe(given.device, {"studies": given.study, "seeds": given.seeds})
        for name, label, plan in plans(given):
            started = time.monotonic()
            trained = run(plan, given.work / name / label, given.device)
            exam = judge.prepare(judge.load(trained), device=given.device, batch=1)
            if folder.store is not None and exam.case.case_id in folder.store.done:
                continue
            found = judge.judge(exam)
            folder.rows(found.case, found.readings, found.samples)
            first = found.readings[0]
            print(f"{name} {label}: {first.metric} {first.value:.4f}, {time.monotonic() - started:.0f} s", flush=True)
    print(table(given.out))
    outcome = figures.write(repeated(figures.load(given.out)), ["pareto"], given.out / "figures", formats=["png"])
    print(*outcome.figures.get("pareto", []), *outcome.skipped.values(), sep="\n")


def repeated(run: figures.Run) -> figures.Run:
    """The run without problems of one seed, which rank nothing: how far seeds stray is not known of them."""
    seeds = run.frame.groupby("scope")["seed"].transform("nunique")
    return replace(run, frame=run.frame[seeds > 1])


def table(out: Path) -> str:
    """Markdown: a line for each problem and attention with its accuracy over the seeds and what one image costs."""
    frame = figures.load(out).frame
    frame["variant"] = frame["attention"] + frame["options"].map(parse_options).map(own_options)
    wide = frame.pivot_table(index=["scope", "variant", "seed"], columns="metric", values="value", sort=False)
    lines = ["| problem | attention | seeds | | mean | lowest | highest | GMAC | ms |", "|" + "---|" * 9]
    for (problem, attention), group in wide.groupby(level=[0, 1], sort=False):
        metric = next(name for name in ("top1", "map", "miou") if name in group and group[name].notna().any())
        judged = group[metric]
        lines.append(
            f"| {problem.removeprefix('model ')} | {attention} | {len(group)} | {metric} | {judged.mean():.3f} | "
            f"{judged.min():.3f} | {judged.max():.3f} | {group['flops'].iloc[0] / 2e9:.4f} | "
            f"{group['latency'].median():.2f} |"
        )
    return "\n".join(lines)


def plans(given: argparse.Namespace) -> Iterator[tuple[str, str, Plan]]:
    """(study, folder, plan) of every model, seeds outermost."""
    for seed in range(given.seeds):
        for name in given.study:
            study = STUDIES[name]
            steps = given.steps or study.recipe["steps"]
            every = {"log": 20, "evaluate": steps, "save": max(1, steps // 5)}
            recipe = Recipe(**{**study.recipe, **every, "steps": steps, "seed": seed})
            data = given.work / study.theme / study.part if study.part else ""
            for attention, options in ATTENTIONS:
                if given.attention and attention not in given.attention:
                    continue
                mechanism = Mechanism(attention=attention, anchors=study.anchors, options=options)
                label = "-".join([attention, *map(str, options.values()), f"seed{seed}"])
                start = {"weights": str(given.work / study.start / label / LAST)} if study.start else {}
                yield (
                    name,
                    label,
                    Plan(
                        task=study.task,
                        options={**study.options, **start},
                        mechanism=mechanism,
                        recipe=recipe,
                        data=str(data),
                    ),
                )


def run(plan: Plan, folder: Path, device: str) -> Path:
    """The folder of the trained model; trains it, or the rest of it, where that is missing."""
    started = (folder / LAST).exists()
    if started and not store.read(folder).empty:
        return folder
    if not started and (folder / CURVES).exists():  # stopped before its first checkpoint
        for path in folder.iterdir():
            path.unlink()
    train(plan, folder, listener=Quiet(), device=device, resume=started)
    return folder


if __name__ == "__main__":
    main()
