"""The schedule, the optimiser's groups, and the order of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from harness.errors import Failure, UsageError
from harness.vision import stream
from harness.vision.recipe import Recipe, build_optimizer, rate, seed_everything
from harness.vision.stream import Order, batches
from harness.vision.task import checked


class Numbers:
    """A data set whose items are their index and something random."""

    classes = ("a",)

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, torch.rand(()).item()


@pytest.mark.parametrize("schedule", ["cosine", "poly", "step", "constant"])
def test_rates_warm_up_and_never_rise_again(schedule: str) -> None:
    recipe = Recipe(lr=0.1, schedule=schedule, warmup=10, floor=0.01)  # type: ignore[arg-type]
    rates = [rate(recipe, step, 200) for step in range(200)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[0] == pytest.approx(0.1 / 11)
    assert rates[10] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    last = {"cosine": 1e-3, "poly": 0.1 * (0.01 + 0.99 * (1 / 190) ** 0.9), "step": 1e-3, "constant": 0.1}[schedule]
    assert rates[-1] == pytest.approx(last, rel=0.02)


def test_cosine_is_half_way_down_half_way_through() -> None:
    assert rate(Recipe(lr=1.0, warmup=0, floor=0.0), 50, 100) == pytest.approx(0.5)
    assert rate(Recipe(lr=1.0, warmup=0, floor=0.2), 50, 100) == pytest.approx(0.6)


def test_one_step_has_the_peak_rate() -> None:
    assert rate(Recipe(lr=0.5), 0, 1) == 0.5


def test_norms_biases_and_embeddings_are_not_decayed_and_lower_blocks_learn_slower() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos_embed = nn.Parameter(torch.zeros(1, 3, 4))
            self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 2)

    model = Model()
    optimizer = build_optimizer(model, Recipe(weight_decay=0.3, layer_decay=0.5))
    found = {
        name: (group["weight_decay"], group["scale"])
        for group in optimizer.param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is member for member in group["params"])
    }
    assert found == {
        "pos_embed": (0.0, 0.125), "blocks.0.weight": (0.3, 0.25), "blocks.0.bias": (0.0, 0.25),
        "blocks.1.weight": (0.3, 0.5), "blocks.1.bias": (0.0, 0.5), "norm.weight": (0.0, 1.0),
        "norm.bias": (0.0, 1.0), "head.weight": (0.3, 1.0), "head.bias": (0.0, 1.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [("lr", "0"), ("lr", "nan"), ("steps", "1.5"), ("precision", "int8"), ("batch", "-1")]
)
def test_a_wrong_number_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=rf"recipe.*{name}.*{value}"):
        checked(Recipe, {name: value}, what="recipe")


def test_an_unknown_number_has_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"unknown recipe 'warm_up'; did you mean 'warmup'\?"):
        checked(Recipe, {"warm_up": 3}, what="recipe")


def test_every_epoch_holds_every_image_once_in_another_order() -> None:
    order = [index for step in Order(10, 0, 4, 0, 5) for _, index in step]
    assert Counter(order[:10]) == Counter(range(10)) == Counter(order[10:20])
    assert order[:10] != order[10:20]


def test_processes_share_a_batch_between_them() -> None:
    whole = list(Order(10, 7, 4, 0, 6))
    parts = [list(Order(10, 7, 4, 0, 6, process, 2)) for process in range(2)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_a_stream_that_starts_later_goes_on_alike_whatever_was_drawn_before() -> None:
    whole = list(batches(Numbers(10), list, seed=3, batch=4, start=0, steps=5))
    seed_everything(99)
    assert list(batches(Numbers(10), list, seed=3, batch=4, start=3, steps=5)) == whole[3:]
    assert list(batches(Numbers(10), list, seed=4, batch=4, start=3, steps=5)) != whole[3:]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(28, "No space left on device"), "no space left on the disk"),
        (OSError(30, "Read-only file system"), "the disk is read-only"),
        (RuntimeError("Caught …\nRuntimeError: unable to allocate shared memory(shm) for file </torch_1>"), "torch_1"),
        (RuntimeError("DataLoader worker (pid 1) is killed by signal: Bus error."), "Bus error"),
    ],
)
def test_shared_memory_that_is_not_there_is_told(error: Exception, why: str) -> None:
    """As /dev/shm in a container has it: full, read-only, or 64 MB."""

    class Loader:
        num_workers = 2

        def __iter__(self) -> Iterator[Any]:
            raise error

    loader: Any = Loader()
    with pytest.raises(Failure, match=r"the 2 processes that load data cannot .* shared memory, /dev/shm \(.*" + why):
        list(stream._sound(loader))
    loader.num_workers = 0
    with pytest.raises(type(error)):
        list(stream._sound(loader))
