"""Ranks under torchrun: rank 0's process runs the sweep, every other one serves a worker to it. Imports torch.

torchrun --nproc-per-node 4 -m -- harness run --sequence-parallel 4 --attention anchor,full --n 64k --m 64

    serve()                                           # in ranks other than 0: until rank 0 has done
    Engine(Torchrun(plugins=[], ranks=4), ...)        # in rank 0; see harness.engines.ranks

The processes talk through torchrun's key-value store. Each starts a worker of its own that measures, so that a case
that fails costs one row, as everywhere.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.cases.sharing import torchrun
from harness.engines.local import Engine as Worker
from harness.engines.local import WorkerLost
from harness.errors import OK, Failure, UsageError
from harness.measuring import wire
from harness.measuring.requests import Answer, MeetingStore, Request

POLL_S = 0.02
EXTRA_S = 30.0  # that a worker's own time limit may take to reach rank 0


class Torchrun:
    """One worker beside each process that torchrun started; rank r of a node takes its GPU of that number."""

    whole_machine = False  # torchrun has set the threads

    def __init__(self, *, plugins: Sequence[str], ranks: int) -> None:
        found = torchrun()
        assert found is not None
        if found[1] != ranks:
            raise UsageError(f"torchrun started {found[1]} processes; add --sequence-parallel {found[1]}, not {ranks}")
        self.plugins, self.ranks = list(plugins), ranks
        self._store, self._generation = _store(), 0
        told = [int(self._store.get(f"harness/local/{rank}")) for rank in range(1, ranks)]
        self._locals = [int(os.environ["LOCAL_RANK"]), *told]

    def seats(self) -> list[Any]:
        self._generation += 1
        remote = [_Remote(self._store, rank, self._generation) for rank in range(1, self.ranks)]
        return [Worker(plugins=self.plugins, device="cpu"), *remote]

    def meeting(self, generation: int) -> MeetingStore:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return MeetingStore(host=host, port=port, prefix=f"harness/group/{generation}")

    def device(self, rank: int, kind: str) -> str:
        return f"cuda:{self._locals[rank]}" if kind == "cuda" else kind

    def close(self) -> None:
        _send(self._store, {"do": "end"})


class _Remote:
    """A worker beside another process of torchrun, spoken to through the store."""

    def __init__(self, store: Any, rank: int, generation: int) -> None:
        self.store, self.rank, self.generation = store, rank, generation
        self._gone = False

    def ask(self, request: Request[Answer], timeout_s: float) -> Answer:
        """As harness.engines.local.Engine.ask."""
        number = _send(
            self.store,
            {
                "do": "ask", "rank": self.rank, "generation": self.generation, "timeout_s": timeout_s,
                "request": wire.encode(request).decode(),
            },
        )  # fmt: skip
        key, deadline = f"harness/answer/{number}", time.monotonic() + timeout_s + EXTRA_S
        while not self.store.check([key]):
            if self._gone:
                raise WorkerLost("error", "the sweep is over")
            if time.monotonic() > deadline:
                raise WorkerLost("timeout", f"rank {self.rank} does not answer")
            time.sleep(POLL_S)
        answer = json.loads(self.store.get(key))
        if "lost" in answer:
            raise WorkerLost(*answer["lost"])
        if "usage" in answer:
            raise UsageError(answer["usage"])
        if "failure" in answer:
            raise Failure(answer["failure"])
        return wire.decode_answer(request, answer["answer"])

    def abandon(self) -> None:
        """End the worker for good."""
        self._gone = True
        _send(self.store, {"do": "abandon", "rank": self.rank, "generation": self.generation})

    def stop(self, *, kill: bool = False) -> None:
        """End the worker; it is not needed any more."""
        self.abandon()


def serve() -> int:
    """What a rank other than 0 does: run a worker as rank 0 asks. Returns the exit code when rank 0 has done."""
    found = torchrun()
    assert found is not None
    rank, store = found[0], _store()
    store.set(f"harness/local/{rank}", os.environ["LOCAL_RANK"])
    worker, generation, number = None, 0, 0
    asking = ThreadPoolExecutor(1)  # one thread for good: a worker dies with the thread that started it
    while True:
        number += 1
        key = f"harness/message/{number}"
        while not store.check([key]):
            time.sleep(POLL_S)
        message = json.loads(store.get(key))
        if message["do"] == "end":
            if worker:
                worker.abandon()
            return OK
        if message["rank"] != rank:
            continue
        if message["do"] == "abandon":
            if worker and message["generation"] == generation:
                worker.abandon()
                worker = None
            continue
        if worker is None or message["generation"] != generation:
            worker, generation = Worker(plugins=[], device="cpu"), message["generation"]
        asking.submit(_answer, store, number, worker, message)


def _answer(store: Any, number: int, worker: Worker, message: dict[str, Any]) -> None:
    request = wire.decode(message["request"])
    try:
        given = worker.ask(request, message["timeout_s"])
        answer = {"answer": wire.encode_answer(request, given).decode()}
    except WorkerLost as lost:
        answer = {"lost": [lost.status, lost.note]}
    except UsageError as error:
        answer = {"usage": str(error)}
    except Failure as error:
        answer = {"failure": str(error)}
    store.set(f"harness/answer/{number}", json.dumps(answer))


def _send(store: Any, message: dict[str, Any]) -> int:
    """Append a message that every rank reads; its number."""
    number = store.add("harness/messages", 1)
    store.set(f"harness/message/{number}", json.dumps(message))
    return number


def _store() -> Any:
    from torch.distributed.rendezvous import rendezvous

    return next(iter(rendezvous("env://")))[0]
