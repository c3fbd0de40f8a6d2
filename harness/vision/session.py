"""What one process holds while it trains: data, network, optimiser, averaged weights, place; saved and restored.

session = Session.open(plan, "auto")
session.save(Path("out/last.safetensors")); session.restore(Path("out/last.safetensors"))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from harness.errors import UsageError, brief
from harness.vision import checkpoint, tasks
from harness.vision.data import identity
from harness.vision.plan import Origin, Plan, differences
from harness.vision.processes import join
from harness.vision.recipe import build_optimizer, seed_everything
from harness.vision.task import SPLITS, Data, Task

STARTS = ("weights", "teacher")  # options that name a file
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of one parameter


@dataclass(kw_only=True)
class Session:
    """A training in memory. model: what is called, wrapped for many processes; network: the same weights, bare.

    step: those done; evaluated, told: the steps of the last evaluation and of the last line of losses; window: the sums
    of losses since then; saved: whether a checkpoint of this training exists; identities, start: digests of the data of
    each split, and of the files started from.
    """

    plan: Plan
    task: Task
    options: Any
    accelerator: Accelerator
    data: dict[str, Data]
    model: nn.Module
    network: nn.Module
    optimizer: Any
    ema: ModelEmaV3 | None
    steps: int
    step: int = 0
    evaluated: int = 0
    told: int = 0
    saved: bool = False
    window: dict[str, float] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    start: str = ""
    best: dict[str, Any] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, plan: Plan, device: str) -> Session:
        """Load the data, build everything with the plan's seed. Raises UsageError for what does not exist or fit."""
        task, recipe = tasks.get(plan.task), plan.recipe
        options = task.parse(plan.options)
        data = {split: task.data(options, plan.folder, split) for split in SPLITS}
        accelerator = join(device, precision=recipe.precision)
        if recipe.batch % accelerator.num_processes:
            raise UsageError(f"batch={recipe.batch} cannot be split over {accelerator.num_processes} processes evenly")
        seed_everything(recipe.seed, 0)
        network = task.model(options, plan.mechanism, data["train"]).to(accelerator.device)
        optimizer = build_optimizer(network, recipe)
        ema = ModelEmaV3(network, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        model, prepared = accelerator.prepare(network, optimizer)
        return cls(
            plan=plan, task=task, options=options, accelerator=accelerator, data=data, model=model, network=network,
            optimizer=prepared, ema=ema, steps=recipe.length(len(data["train"])),
            identities={split: identity.digest_of(data[split]) for split in SPLITS}, start=_start(options),
        )  # fmt: skip

    @property
    def place(self) -> str:
        """The device as rows name it: cpu or cuda:<index>."""
        device = self.accelerator.device
        if device.type == "cpu":
            return "cpu"
        return f"{device.type}:{torch.cuda.current_device() if device.index is None else device.index}"

    @property
    def origin(self) -> Origin:
        """What tells this training's result apart: what went in. The weights that came out differ by machine."""
        ids = self.identities
        return Origin(start=self.start, data=ids["train"], step=self.step, judged=ids["val"])

    @property
    def judged(self) -> nn.Module:
        """The weights that are evaluated: the averaged ones where there are such."""
        return self.ema.module if self.ema else self.network

    def describe(self) -> str:
        """One line: what is trained, on how much, where."""
        size = sum(p.numel() for p in self.network.parameters()) / 1e6
        attention = self.plan.mechanism.attention
        images = " and ".join(f"{len(self.data[split])} {split}" for split in SPLITS)
        processes = self.accelerator.num_processes
        where = f"{processes} × {self.accelerator.device.type}" if processes > 1 else self.place
        model = f"{self.task.name} with {attention}: {size:.2f} M parameters"
        return f"{model}, {images} images, {self.steps} steps on {where}"

    def save(self, path: Path) -> None:
        """Write all that resuming needs. Only the main process writes."""
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            parts = {"model": self.network.state_dict(), "optimizer": self._moments()}
            parts |= {"ema": self.ema.module.state_dict()} if self.ema else {}
            state = dict(scaler.state_dict()) if scaler is not None else {}
            checkpoint.save(path, parts, {**self._facts(), "steps": self.steps, "scaler": state})
        self.saved = True

    def save_weights(self, path: Path) -> None:
        """Write the judged weights alone. Only the main process writes."""
        if self.accelerator.is_main_process:
            checkpoint.save(path, {"model": self.judged.state_dict()}, self._facts())

    def restore(self, path: Path) -> None:
        """Take up a checkpoint's weights, moments and place. Raises UsageError naming what does not fit."""
        parts, facts = checkpoint.load(path, of_run=True)
        if "optimizer" not in parts:
            raise UsageError(f"checkpoint {path} holds weights only and cannot be resumed from; use last.safetensors")
        self._expect(facts, path)
        checkpoint.fill(self.network, parts["model"], path=path)
        if self.ema is not None:
            checkpoint.fill(self.ema.module, parts["ema"], path=path)
        own = dict(self.network.named_parameters())
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        for key, tensor in parts["optimizer"].items():
            moment, _, name = key.partition("/")
            if moment not in MOMENTS or name not in own or (moment != "step" and tensor.shape != own[name].shape):
                raise UsageError(f"checkpoint {path} does not fit: its optimizer's {brief(key)} is none of the model's")
            where = "cpu" if moment == "step" else own[name].device
            optimizer.state[own[name]][moment] = tensor.to(where)
        for name, parameter in own.items():
            if lacking := set(MOMENTS) - set(optimizer.state.get(parameter, MOMENTS)):
                raise UsageError(f"checkpoint {path} is no whole one: its optimizer lacks {min(lacking)}/{name}")
        if self.accelerator.scaler is not None and facts["scaler"]:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.step, self.evaluated, self.told = (facts[name] for name in ("step", "evaluated", "told"))
        self.saved, self.window = True, facts["window"]
        self.best, self.start = facts["best"], facts.get("start", "")
        self.values = {name: math.nan if value is None else value for name, value in facts["values"].items()}

    def _expect(self, facts: Mapping[str, Any], path: Path) -> None:
        """Raise UsageError for a checkpoint of other settings or data, or whose numbers cannot be."""
        changed = differences(Plan.of(facts["plan"]), self.plan)
        if changed:
            raise UsageError(f"cannot resume from {path} with other settings: {'; '.join(changed)}; leave them out")
        if facts["classes"] != list(self.data["train"].classes) or facts["steps"] != self.steps:
            raise UsageError(f"cannot resume from {path}: the data set has changed since (its classes or its size)")
        known: dict[str, str] = facts.get("data", self.identities)
        if changed := [split for split in SPLITS if known.get(split) != self.identities[split]]:
            images = " and ".join(f"{len(self.data[split])} {split} images" for split in changed)
            raise UsageError(
                f"cannot resume from {path}: the data have changed since (now {images}): a file was added, removed, "
                "renamed or rewritten; put it back, or start anew in another folder"
            )
        scaler = self.accelerator.scaler
        for name, whole in (("best", checkpoint.SHAPE["best"]), ("scaler", scaler.state_dict() if scaler else {})):
            if facts[name] and (lacking := set(whole) - set(facts[name])):
                raise UsageError(f"checkpoint {path} is damaged: its {name} lacks {', '.join(sorted(lacking))}")
        step, evaluated, told = (facts[name] for name in ("step", "evaluated", "told"))
        if not (0 <= told <= step <= self.steps and 0 <= evaluated <= step):
            raise UsageError(
                f"checkpoint {path} is damaged: after {step} of {self.steps} steps, told of {told}, "
                f"evaluated at {evaluated}"
            )

    def _facts(self) -> dict[str, Any]:
        values = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        return {
            "plan": self.plan.document(), "classes": list(self.data["train"].classes), "step": self.step,
            "data": self.identities, "start": self.start, "evaluated": self.evaluated, "told": self.told,
            "window": self.window, "best": self.best, "values": values,
        }  # fmt: skip

    def _moments(self) -> dict[str, Tensor]:
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return {
            f"{moment}/{name}": torch.as_tensor(optimizer.state[parameter][moment])
            for name, parameter in self.network.named_parameters()
            if parameter in optimizer.state
            for moment in MOMENTS
        }


def _start(options: Any) -> str:
    """The digest of the files that a training starts from, its weights' and its teacher's; empty without any."""
    given = {name: getattr(options, name, "") for name in STARTS}
    listing = {name: Path(path) for name, path in given.items() if path}
    return identity.files(listing) if listing else ""
