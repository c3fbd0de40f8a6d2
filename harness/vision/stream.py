"""The order of the training images: an endless shuffled stream that is a function of the seed and the step alone.

    for batch in batches(data, task.collate, seed=0, batch=64, start=300, steps=1000): ...     # goes on at step 300

Epoch after epoch is shuffled anew and the stream runs over their borders, so every step has a full batch. Each process
takes its own part of every batch: two processes with half a batch each see what one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, dataloader

from harness.errors import Failure, UsageError, brief, reason
from harness.vision.recipe import seed_everything
from harness.vision.task import Data

SHARED = ("shared memory", "/torch_", "shm", "Bus error")  # in what PyTorch says where /dev/shm is full or read-only


@dataclass(frozen=True)
class Broken:
    """Why an item could not be made, carried out of a loader's process, where raising would print a traceback."""

    error: UsageError | Failure


@dataclass(frozen=True)
class Order(Sampler[list[tuple[int, int]]]):
    """For each step from `start`, this process' (position in the stream, index of the image)."""

    images: int
    seed: int
    batch: int
    start: int
    steps: int
    process: int = 0
    processes: int = 1

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        own = self.batch // self.processes
        epoch, order = -1, torch.empty(0)
        for step in range(self.start, self.steps):
            first = step * self.batch + self.process * own
            chosen = []
            for position in range(first, first + own):
                if position // self.images != epoch:
                    epoch = position // self.images
                    order = _shuffled(self.images, self.seed, epoch)
                chosen.append((position, int(order[position % self.images])))
            yield chosen


class Seeded(Dataset[Any]):
    """A dataset whose item is a function of its place in the stream and of the seed, whichever process makes it."""

    def __init__(self, data: Data, seed: int) -> None:
        self.data, self.seed = data, seed

    def __getitem__(self, place: tuple[int, int]) -> Any:
        position, index = place
        seed_everything(self.seed, 1, position)
        try:
            return self.data[index]
        except (UsageError, Failure) as error:
            return Broken(error)


def batches(
    data: Data, collate: Callable[[list[Any]], Any], *, seed: int, batch: int, start: int, steps: int,
    process: int = 0, processes: int = 1, workers: int = 0,
) -> Iterator[Any]:  # fmt: skip
    """This process' part of the batch of each step from `start` to `steps`. Raises what the data set raises."""
    order = Order(len(data), seed, batch, start, steps, process, processes)
    return _sound(_loader(Seeded(data, seed), list_or_broken(collate), order, workers))


def in_order(
    data: Data, collate: Callable[[list[Any]], Any], *, batch: int, process: int = 0, processes: int = 1,
    workers: int = 0,
) -> Iterator[Any]:  # fmt: skip
    """Every image once, in order; this process takes each `processes`-th. The last batch may be smaller."""
    own = [(index, index) for index in range(process, len(data), processes)]
    order = [own[at : at + batch] for at in range(0, len(own), batch)]
    return _sound(_loader(Seeded(data, 0), list_or_broken(collate), order, workers))


def list_or_broken(collate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """`collate`, or the first item that is Broken; picklable, as loading processes need it."""
    return partial(_collated, collate)


def _collated(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, Broken)), None) or collate(items)


def _loader(data: Dataset[Any], collate: Callable[[list[Any]], Any], order: Any, workers: int) -> DataLoader[Any]:
    return DataLoader(
        data, batch_sampler=order, collate_fn=collate, num_workers=workers, pin_memory=torch.cuda.is_available()
    )


def _sound(loader: DataLoader[Any]) -> Iterator[Any]:
    found = _told(loader)
    for batch in found:
        if isinstance(batch, Broken):
            raise batch.error
        yield batch


def _told(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches; what keeps loading processes from handing them over is a Failure in a sentence."""
    try:
        yield from loader
    except (OSError, RuntimeError) as error:
        # One that was never whole has no such attribute, and prints a traceback where it is cleared away.
        dataloader._MultiProcessingDataLoaderIter._shutdown = True  # type: ignore[attr-defined]
        text = str(error)
        why = reason(error) if isinstance(error, OSError) else text if any(sign in text for sign in SHARED) else ""
        if not loader.num_workers or not why:
            raise
        raise Failure(
            f"the {loader.num_workers} processes that load data cannot hand it over in shared memory, /dev/shm "
            f"({brief(why.splitlines()[-1])}); give it more room, or take --workers 0"
        ) from None


def _shuffled(images: int, seed: int, epoch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return torch.randperm(images, generator=generator)
