"""How a model is trained: the recipe's numbers, and the pure functions of a step that follow from them.

recipe = Recipe(steps=1000, batch=64, lr=1e-3)
rate(recipe, 0, 1000), rate(recipe, 999, 1000)        # cosine with linear warm-up: the learning rate at a step
optimizer = build_optimizer(model, recipe)            # AdamW; norms, biases and position embeddings are not decayed
"""

from __future__ import annotations

import math
import random
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from harness.vision.task import Options


class Recipe(Options):
    """The numbers of a training run that no task owns.

    epochs or steps: how long; steps win. batch: images a step over all processes. lr: peak of the schedule, reached
    after `warmup` steps (a twentieth of all by default); floor: where cosine and poly end, as a share of lr.
    layer_decay: factor on lr for each block below the transformer's last. clip: largest norm of the gradient, or 0.
    ema: decay of the averaged weights that are evaluated and kept, 0 for none. evaluate, save, log: every so many steps
    (by default a tenth of all but at least an epoch; as often as evaluate; 10). precision: `no` is float32. workers:
    processes that load data, of each training process.
    """

    epochs: float = Field(default=10.0, gt=0, le=1e6)
    steps: int | None = Field(default=None, ge=1, le=1 << 40)
    batch: int = Field(default=64, ge=1, le=1 << 20)
    lr: float = Field(default=1e-3, gt=0, le=1e3)
    schedule: Literal["cosine", "poly", "step", "constant"] = "cosine"
    warmup: int | None = Field(default=None, ge=0)
    floor: float = Field(default=0.01, ge=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0, le=10)
    beta2: float = Field(default=0.999, gt=0, lt=1)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    clip: float = Field(default=1.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["no", "bf16", "fp16"] = "no"
    seed: int = Field(default=0, ge=0, lt=1 << 31)
    workers: int = Field(default=0, ge=0, le=256)
    evaluate: int | None = Field(default=None, ge=1)
    save: int | None = Field(default=None, ge=1)
    log: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _finite(self) -> Self:
        for name in ("epochs", "lr", "clip"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite")
        return self

    def length(self, images: int) -> int:
        """Steps in all: `steps`, or `epochs` over so many images."""
        return self.steps or max(1, round(self.epochs * images / self.batch))


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0) of `steps`.

    Linear warm-up, then: cosine (Loshchilov & Hutter 2017, arXiv 1608.03983); poly, power 0.9 (as in semantic FPN's
    recipe); step, a tenth from 8/9 on and a hundredth from 26/27 on (as ViTDet's); constant.
    """
    warmup = min(recipe.warmup if recipe.warmup is not None else steps // 20, steps - 1)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    falling = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "poly": (1 - done) ** 0.9,
        "step": 0.1 ** ((step / steps >= 8 / 9) + (step / steps >= 26 / 27)),
        "constant": 1.0,
    }[recipe.schedule]
    floor = recipe.floor if recipe.schedule in ("cosine", "poly") else 0.0
    return recipe.lr * (floor + (1 - floor) * falling)


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with a group for each pair of weight decay and learning-rate factor (`scale`)."""
    depth = 1 + max((block for name, _ in model.named_parameters() if (block := _block(name)) is not None), default=-1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if _undecayed(name, parameter) else recipe.weight_decay
            groups.setdefault((decay, recipe.layer_decay ** _below(name, depth)), []).append(parameter)
    described: list[dict[str, Any]] = [
        {"params": members, "weight_decay": decay, "scale": scale} for (decay, scale), members in groups.items()
    ]
    return torch.optim.AdamW(described, lr=recipe.lr, betas=(0.9, recipe.beta2))


def seed_everything(*key: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators from a key such as (seed, step, rank).

    Randomness as a function of the step leaves nothing to store: a resumed run draws what the first one would have.
    """
    state = np.random.SeedSequence(key).generate_state(2)
    random.seed(int(state[0]))
    np.random.seed(int(state[0]))  # noqa: NPY002 - timm's mixup and others' transforms draw from it
    # torch.manual_seed formats a stack for each kind of device that is not there, which takes longer than an image
    torch.default_generator.manual_seed(int(state[1]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(state[1]))


def _undecayed(name: str, parameter: nn.Parameter) -> bool:
    """Norms and biases, and the embeddings that timm's transformers leave alone: they are not weights of a sum."""
    return parameter.ndim < 2 or name.rpartition(".")[2] in ("pos_embed", "cls_token", "dist_token", "reg_token")


def _block(name: str) -> int | None:
    """'backbone.blocks.3.mlp.fc1.weight' → 3."""
    parts = name.split(".")
    at = parts.index("blocks") + 1 if "blocks" in parts else len(parts)
    return int(parts[at]) if at < len(parts) and parts[at].isdecimal() else None


def _below(name: str, depth: int) -> int:
    """How many blocks, and the head, stand above a parameter; the embeddings are below the first block."""
    block = _block(name)
    if block is not None:
        return depth - block
    embedding = any(part in ("patch_embed", "pos_embed", "cls_token", "dist_token") for part in name.split("."))
    return depth + 1 if embedding else 0
