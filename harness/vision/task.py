"""What a task is: its data, its model, what it minimises and how it is judged. One frozen dataclass of plain functions.

    TASK = Task(name="parity", summary="Odd or even", metrics=("top1",), options=Options, data=data, model=model,
                objective=objective, meter=meter)      # in harness/vision/tasks/parity.py: that is all

    task = tasks.get("parity")
    options = task.parse({"width": "64"})
    train = task.data(options, folder, "train")        # items that `task.collate` makes batches of
    net = task.model(options, Mechanism(attention="anchor", anchors=30), train)
    losses = task.objective(options, train)(net, batch)    # {"loss_name": scalar tensor, ...}; their sum is minimised

A dataset has `classes`, the names in the order of the labels, and raises harness.errors.UsageError, one sentence that
names the file, for what is missing or damaged. Its items depend on the global random generators of Python, NumPy and
PyTorch alone, which are seeded before each item. Items by kind: classification `(image, label)`; detection
`(image, target)` with torchvision's keys (boxes xyxy in pixels, labels from 1, masks, image_id, area, iscrowd);
segmentation `(image, mask)`, the mask (H, W) of int64 with 255 where a pixel does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn
from torch.utils.data import default_collate

from harness.errors import UsageError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLITS = ("train", "val")
M = TypeVar("M", bound=BaseModel)


class Options(BaseModel):
    """A task's own options; the subclass' fields are their names, types, rules and defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Data(Protocol):
    """A map-style dataset that knows its classes."""

    @property
    def classes(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


class Meter(Protocol):
    """A metric over a whole data set. Merged over processes before it is computed."""

    def update(self, predictions: Any, batch: Any) -> None: ...
    def merge(self, others: Sequence[Self]) -> None: ...
    def compute(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """The attention inside the model: a variant or `variant:backend`, its bottleneck m and its own options."""

    attention: str = "anchor"
    anchors: int = 30
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of problem, from a folder of data to figures.

    metrics: what the meter computes, as fractions; the first is what "best" means: most of it, or least of an error
    (harness.store.record.LESS_IS_BETTER).
    options: the class of its options. recipe: how its training differs from harness.vision.recipe.Recipe's defaults.
    data: (options, folder or None, "train" or "val") → dataset. model: (options, mechanism, training data) → network.
    objective: (options, training data) → a function of the network and a batch on its device that names its losses.
    predict: the network in eval mode and a batch on its device → what the meter takes with that batch.
    meter: (options, validation data) → an empty meter. draw: (network, data, device) → a figure of predictions.
    """

    name: str
    summary: str
    metrics: tuple[str, ...]
    options: type[Options]
    data: Callable[[Any, Path | None, str], Data]
    model: Callable[[Any, Mechanism, Data], nn.Module]
    objective: Callable[[Any, Data], Callable[[nn.Module, Any], dict[str, Tensor]]]
    meter: Callable[[Any, Data], Meter]
    predict: Callable[[nn.Module, Any], Any] = field(default=lambda model, batch: model(batch[0]))
    collate: Callable[[list[Any]], Any] = default_collate
    recipe: Mapping[str, Any] = field(default_factory=dict)
    draw: Callable[[nn.Module, Data, Any], Figure] | None = None

    def parse(self, given: Mapping[str, Any]) -> Any:
        """The options from texts or values. Raises UsageError naming the option, the value and the rule."""
        return checked(self.options, given, what=f"option of {self.name}")


def checked(kind: type[M], given: Mapping[str, Any], *, what: str) -> M:
    """`given` as a `kind`. Raises UsageError in one sentence: the name, the value, the rule or the valid names."""
    for name in given:
        if name not in kind.model_fields:
            raise UsageError(unknown(what, name, kind.model_fields))
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or what
        reason = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{what} {name}: {reason[0].lower()}{reason[1:]}, not {first['input']!r}") from None
