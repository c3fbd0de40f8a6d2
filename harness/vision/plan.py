"""What is trained, as data: the task and its options, the attention, the recipe, the folder of data.

plan = Plan(task="classification", mechanism=Mechanism(attention="anchor", anchors=30), recipe=Recipe(steps=100))
Plan.of(plan.document()) == plan             # JSON, as checkpoints hold it
case = case_of(plan, network, batch)         # the case that its rows in measurements.csv belong to
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import attentions
from attentions import registry
from attentions.layer import MultiHeadAttention
from harness.errors import UsageError, brief
from harness.store.documents import misfit
from harness.store.record import Case, canonical_options, off_default
from harness.vision import tasks
from harness.vision.data.identity import name_of
from harness.vision.recipe import Recipe
from harness.vision.task import Data, Mechanism, checked

SHAPE: dict[str, Any] = {
    "task": str, "options": dict, "mechanism": {"attention": str, "anchors": int, "options": dict}, "recipe": dict,
    "data": str,
}  # fmt: skip
UNTOLD = ("seed", "workers", "log", "save", "evaluate")  # of the recipe: a column of its own, or no matter


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training run but for where it is written. options: those of the task that were given; data: folder or ""."""

    task: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mechanism: Mechanism = field(default_factory=Mechanism)
    recipe: Recipe = field(default_factory=Recipe)
    data: str = ""

    def document(self) -> dict[str, Any]:
        """The plan as JSON."""
        return {**asdict(self), "mechanism": asdict(self.mechanism), "recipe": self.recipe.model_dump(mode="json")}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Plan:
        """The inverse of `document`. Raises UsageError for values that this version does not know."""
        lacking = [key for key in SHAPE if key not in document]
        wrong = f"it lacks {lacking[0]}" if lacking else misfit(document, SHAPE)
        strange = [] if wrong else [brief(repr(key)) for key in document["mechanism"] if key not in SHAPE["mechanism"]]
        if wrong or strange:
            raise UsageError(f"the plan of a training is not one that this version knows: {wrong or strange[0]}")
        return cls(
            task=document["task"], options=document["options"], mechanism=Mechanism(**document["mechanism"]),
            recipe=checked(Recipe, document["recipe"], what="recipe"), data=document["data"],
        )  # fmt: skip

    @property
    def folder(self) -> Path | None:
        """Where the data are, for tasks that need a folder."""
        return Path(self.data) if self.data else None

    def load(self, split: str) -> Data:
        """The data of a split."""
        task = tasks.get(self.task)
        return task.data(task.parse(self.options), self.folder, split)

    def build(self, data: Data) -> nn.Module:
        """The network with fresh weights for these classes."""
        task = tasks.get(self.task)
        return task.model(task.parse(self.options), self.mechanism, data)


def differences(one: Plan, other: Plan) -> list[str]:
    """What two plans differ in: `recipe.lr: 0.001, now 0.01`."""

    def flat(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {name: value}
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{name}.{key}" if name else key).items()}

    a, b = flat(one.document(), ""), flat(other.document(), "")
    return [f"{key}: {a.get(key)}, now {b.get(key)}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the first attention layer of a network was called with: b sequences, h heads, n tokens, d head dimension."""

    b: int
    h: int
    n: int
    d: int


def shape_of(network: nn.Module, call: Any) -> Shape:
    """The shape that attention has in a call of no arguments. Raises UsageError where a model has no such layer."""
    seen: list[Shape] = []

    def look(layer: Any, inputs: tuple[Any, ...]) -> None:
        b, n, width = inputs[0].shape
        seen.append(Shape(b=b, h=layer.heads, n=n, d=width // layer.heads))

    layers = [module for module in network.modules() if isinstance(module, MultiHeadAttention)]
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with torch.no_grad():
            call()
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise UsageError("this model has no attention layer of ours: it cannot be a row of measurements.csv")
    return seen[0]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a plan does not tell of a trained model, as digests (harness.vision.data.identity) and a number.

    start: of the files that the training started from, its teacher's too; data: of the images trained on; step: those
    done; weights: of the model itself, empty where a training names its own result; judged: of the images judged on.
    """

    start: str = ""
    data: str = ""
    step: int = 0
    weights: str = ""
    judged: str = ""

    @property
    def described(self) -> dict[str, str]:
        """As `options` holds it."""
        found = {f"trained.{name}": getattr(self, name) for name in ("start", "data", "step", "weights")}
        return {name: str(value) for name, value in {**found, "judged.data": self.judged}.items() if value}


def case_of(plan: Plan, shape: Shape, *, device: str, origin: Origin, dtype: str = "float32") -> Case:
    """The case of a trained model: scope `model`, the shape of its attention, and in `options` what else it is.

    There the variant's own options stand as everywhere, beside task, data, model.* and those recipe.* that are unusual.
    Of paths only the last part, which is what two machines have in common, and generated scenes by their theme, not by
    the layout that they are written in; `origin` tells apart what that leaves equal.
    """
    name, backend = registry.split(plan.mechanism.attention)
    spec = attentions.spec(name)
    m = plan.mechanism.anchors if spec.bottleneck else None
    if backend is None:
        work = attentions.Work(
            b=shape.b, h=shape.h, n=shape.n, d=shape.d, m=m, itemsize=getattr(torch, dtype).itemsize,
            options=spec.parse_options(plan.mechanism.options),
        )  # fmt: skip
        backend = attentions.resolve(name, device=device, dtype=getattr(torch, dtype), work=work).name
    usual = Recipe().model_dump()
    described = {f"model.{key}": value for key, value in plan.options.items()}
    described |= {f"recipe.{k}": v for k, v in plan.recipe.model_dump().items() if v != usual[k] and k not in UNTOLD}
    described |= {
        **off_default(spec.parse_options(plan.mechanism.options), spec.defaults),
        "task": plan.task,
        "data": name_of(plan.data),
        **origin.described,
    }
    return Case(
        attention=name, backend=backend, scope="model", phase="forward", b=shape.b, h=shape.h, n=shape.n, d=shape.d,
        m=m, dtype=dtype, device=device, seed=plan.recipe.seed,
        options=canonical_options({key: _brief(value) for key, value in described.items() if value not in ("", None)}),
    )  # fmt: skip


def _brief(value: Any) -> str:
    """As a cell of `options` takes it; of a path its last part, which is what two machines have in common."""
    value = str(value).lower() if isinstance(value, bool) else value
    return str(value).rstrip("/").rpartition("/")[2].replace(";", ",")
