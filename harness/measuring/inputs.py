"""Input sets of a case: as many as it has calls, in hardly more memory than one takes.

inputs = Inputs([(1, 6, 4096, 64)] * 3, dtype=torch.float32, device=device, seed=0, gradients=False)
sets = inputs.sets()
q, k, v = next(sets)           # the first set
q, k, v = next(sets)           # another one: no tensor's address or values are those of the call before

Each input lies in a slab that is PLACES · STEP elements longer than itself, and set i reads it from another place in
there. The numbers of places of q, k and v have no common factor, so together they repeat after 245 952 calls. What a
call remembers by address, by tensor or by version is therefore of no use to the next one, nothing is drawn or copied
between samples, and a CPU's caches are as warm as when one set is used again and again. `fill` replaces the values
below the same addresses.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import cycle

import torch
from torch import Tensor

PLACES = (64, 63, 61)  # of the first, second and third input
STEP = 256  # elements: 512 bytes or more, so that every place is aligned as an allocation is


class Inputs:
    """Standard normal values from the seed and the shapes alone, drawn in float32 and then cast.

    vocabulary: where it is not 0, whole numbers below it instead, the ids of tokens.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], *, dtype: torch.dtype, device: torch.device, seed: int,
        gradients: bool, vocabulary: int = 0,
    ) -> None:  # fmt: skip
        self.dtype, self.device, self.seed, self.vocabulary = dtype, device, seed, vocabulary
        self._lengths = [math.prod(shape) + STEP * (PLACES[at] - 1) for at, shape in enumerate(shapes)]
        self._slabs = self.drawn(0)
        places = [
            [_placed(slab, shape, place, gradients) for place in range(PLACES[at])]
            for at, (slab, shape) in enumerate(zip(self._slabs, shapes, strict=True))
        ]
        self._places = places
        self.first = tuple(tensors[0] for tensors in places)

    def sets(self) -> Iterator[tuple[Tensor, ...]]:
        """The sets from the first one on, without end. An iterator of C's: a call of 10 µs hardly feels it."""
        return zip(*map(cycle, self._places), strict=False)

    def drawn(self, draw: int) -> list[Tensor]:
        """Values for every slab, of this draw: 0 are those it begins with."""
        numbered = enumerate(self._lengths)
        if self.vocabulary:
            return [
                whole_numbers((length,), self.vocabulary, self.device, (self.seed, draw, at)) for at, length in numbered
            ]
        return [normal((length,), self.dtype, self.device, (self.seed, draw, at)) for at, length in numbered]

    def fill(self, values: Sequence[Tensor]) -> None:
        """Put other values below the same addresses. No allocation: on a GPU it is one copy each on the stream."""
        with torch.no_grad():
            for slab, value in zip(self._slabs, values, strict=True):
                slab.copy_(value)


def normal(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: tuple[int, int, int]) -> Tensor:
    """Standard normal values from three numbers: the case's seed, which draw, and which tensor."""
    return torch.randn(shape, generator=_generator(device, seed), device=device, dtype=torch.float32).to(dtype)


def whole_numbers(shape: tuple[int, ...], below: int, device: torch.device, seed: tuple[int, int, int]) -> Tensor:
    """Whole numbers from 0 on, all equally likely, from the same three numbers."""
    return torch.randint(below, shape, generator=_generator(device, seed), device=device)


def _generator(device: torch.device, seed: tuple[int, int, int]) -> torch.Generator:
    digest = hashlib.sha256(repr(seed).encode()).digest()  # PyTorch's CPU generator reads 32 bits of its seed
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:4]))


def _placed(slab: Tensor, shape: tuple[int, ...], place: int, gradients: bool) -> Tensor:
    """A contiguous tensor over the slab from a place on. No view: each has a version and a gradient of its own."""
    strides = torch.empty(shape, device="meta").stride()
    tensor = torch.empty(0, dtype=slab.dtype, device=slab.device)
    tensor.set_(slab.untyped_storage(), STEP * place, shape, strides)  # type: ignore[call-overload]
    return tensor.requires_grad_(gradients)
