"""Counts what a rank really passes to collectives: every call is seen as PyTorch dispatches it, whoever makes it.

    with Traffic() as traffic:
        loss = layer(x_shard).sum()
        loss.backward()
    traffic.payload_bytes, traffic.wire_bytes, traffic.calls

payload_bytes: of the tensors that this rank passes in. wire_bytes: what this rank puts on its links for them by the
convention of ring algorithms, with P ranks: 2·(P−1)/P of an all-reduce, P−1 times its part of an all-gather, (P−1)/P of
an all-to-all or a reduce-scatter, all of a message to one rank. A library may choose another algorithm; the bytes that
the kernel sends over TCP are in results/cpu/parallel_bytes.csv beside this count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Wire = Callable[[int, int], float]  # (payload bytes, ranks) → bytes sent


def _reduced(payload: int, ranks: int) -> float:
    return 2 * payload * (ranks - 1) / ranks


def _gathered(payload: int, ranks: int) -> float:
    return payload * (ranks - 1)


def _scattered(payload: int, ranks: int) -> float:
    return payload * (ranks - 1) / ranks


def _whole(payload: int, ranks: int) -> float:
    return payload


def _nothing(payload: int, ranks: int) -> float:
    return 0


# By operator: which argument holds what this rank passes in (None: nothing), and what that puts on the wire.
COLLECTIVES: dict[str, tuple[int | None, Wire]] = {
    "c10d::allreduce_": (0, _reduced),
    "c10d::allgather_": (1, _gathered),
    "c10d::_allgather_base_": (1, _gathered),
    "c10d::alltoall_base_": (1, _scattered),
    "c10d::_reduce_scatter_base_": (1, _scattered),
    "c10d::send": (0, _whole),
    "c10d::recv_": (None, _nothing),
    "c10d::recv_any_source_": (None, _nothing),
    "c10d::barrier": (None, _nothing),
    "_c10d_functional::all_reduce": (0, _reduced),
    "_c10d_functional::all_reduce_": (0, _reduced),
    "_c10d_functional::all_gather_into_tensor": (0, _gathered),
    "_c10d_functional::all_to_all_single": (0, _scattered),
    "_c10d_functional::reduce_scatter_tensor": (0, _scattered),
    "_c10d_functional::wait_tensor": (None, _nothing),
    "_c10d_functional::_wrap_tensor_autograd": (None, _nothing),
}


class Traffic(TorchDispatchMode):
    """A context that counts; it adds a few microseconds to every operator inside, so what it counts is not to be timed.

    calls: how often each operator was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.payload_bytes = 0
        self.wire_bytes = 0.0
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:  # fmt: skip
        name = operator._schema.name
        if name.partition("::")[0] in ("c10d", "_c10d_functional"):
            self._count(name, arguments)
        return operator(*arguments, **(keywords or {}))

    def _count(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in COLLECTIVES:  # a silent zero would be a wrong figure
            raise NotImplementedError(f"Traffic does not know what {name} sends; it knows {', '.join(COLLECTIVES)}")
        place, wire = COLLECTIVES[name]
        self.calls[name.partition("::")[2].strip("_")] += 1
        if place is None:
            return
        payload = _bytes(arguments[place])
        self.payload_bytes += payload
        self.wire_bytes += wire(payload, _ranks(arguments))


def _bytes(passed: Any) -> int:
    return passed.nbytes if isinstance(passed, Tensor) else sum(_bytes(tensor) for tensor in passed)


def _ranks(arguments: tuple[Any, ...]) -> int:
    """The size of the group among a collective's arguments: an object, or for functional ones its name."""
    for argument in reversed(arguments):
        if isinstance(argument, str):
            return dist.distributed_c10d._resolve_process_group(argument).size()  # type: ignore[arg-type]
        if type(argument).__name__ == "ScriptObject" and "ProcessGroup" in argument._type().qualified_name():
            return dist.ProcessGroup.unbox(argument).size()
    raise NotImplementedError("a collective without a process group among its arguments")
