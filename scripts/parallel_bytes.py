"""Bytes that each rank sends in one call of sequence-parallel attention, on real processes: a CSV.

    python scripts/parallel_bytes.py results/cpu/parallel_bytes.csv      # 4 gloo processes; about a minute

For each variant, n and phase: what the ranks passed to collectives (attentions.parallel.Traffic), the same by the model
(attentions.parallel.volume), and what the kernel counted on each rank's TCP connections, with gloo's headers and a
barrier's messages in it.
Bytes depend on shapes only; b = 1, h = 2, d = 16, m = 16 keep n = 2^20 cheap for what is linear in n. Exact attention
would take 2^40 scores there, so for n above EXCHANGE_ONLY the ring's blocks are exchanged as in a real call, every byte
of them, and the attention of each block is left out (`computed` says which rows).
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import attentions
from attentions import parallel
from attentions.parallel import ring

B, H, D, M, RANKS = 1, 2, 16, 16, 4
TOKENS = (2**12, 2**16, 2**20)
PHASES = ("forward", "train")
EXCHANGE_ONLY = 2**13
BYTES_SENT_AT = 200  # of tcpi_bytes_sent in Linux' struct tcp_info; 4.19 or newer
COLUMNS = (
    "variant", "phase", "n", "ranks", "b", "h", "d", "m", "dtype", "collectives", "payload_bytes_per_rank",
    "wire_bytes_per_rank", "model_bytes_per_rank", "tcp_bytes_per_rank", "computed",
)  # fmt: skip


def main() -> int:
    """Measure and write the table. Returns the exit code: 1 where the count and the model differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="the CSV to write")
    table = parser.parse_args().table
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        ranks = [context.Process(target=run_rank, args=(rank, store, answers)) for rank in range(RANKS)]
        for process in ranks:
            process.start()
        rows = answers.get()
        for process in ranks:
            process.join()
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    differing = [row for row in rows if row["wire_bytes_per_rank"] != row["model_bytes_per_rank"]]
    for row in differing:
        print(f"counted and modelled bytes differ: {row}", file=sys.stderr)
    print(f"{len(rows)} rows in {table}")
    return 1 if differing else 0


def run_rank(rank: int, store: str, answers: Any) -> None:
    """One of the processes: every case in turn; rank 0 answers with the rows."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, RANKS), rank=rank, world_size=RANKS)
    rows = [measure(rank, *case) for case in cases()]
    if rank == 0:
        answers.put(rows)
    dist.barrier()
    dist.destroy_process_group()


def cases() -> Iterator[tuple[str, int, str]]:
    """Variant, tokens and phase; softmax attention once, since full and flash send the same."""
    for variant in parallel.names():
        if variant != "full":
            for phase in PHASES:
                for n in TOKENS:
                    yield variant, n, phase


def measure(rank: int, variant: str, n: int, phase: str) -> dict[str, Any]:
    """One case: this rank's counts, averaged over the ranks; the same on each of them but for Nyström's two ends."""
    shards = parallel.split(n, RANKS)
    core = attentions.build(variant, heads=H, head_dim=D, tokens=n, anchors=M)
    parallel.parallelise(core, shards=shards)
    skipped = variant == "flash" and n > EXCHANGE_ONLY
    call = _exchange(shards) if skipped else core
    parts = [torch.randn(B, H, shards[rank], D, requires_grad=phase != "forward") for _ in range(3)]
    dist.barrier()
    before = tcp_bytes()
    with parallel.Traffic() as traffic, torch.set_grad_enabled(phase != "forward"):
        out = call(*parts)
        if phase != "forward":
            out.backward(torch.ones_like(out))
    dist.barrier()  # or what this rank sent last may still be on its way
    sent = tcp_bytes() - before
    counts = torch.tensor([traffic.payload_bytes, traffic.wire_bytes, sent], dtype=torch.float64)
    dist.all_reduce(counts)
    payload, wire, tcp = (counts / RANKS).tolist()
    work = attentions.Work(b=B, h=H, n=n, d=D, m=M, phase=phase, options=attentions.spec(variant).defaults)
    return {
        "variant": "flash (ring)" if variant == "flash" else variant, "phase": phase, "n": n, "ranks": RANKS,
        "b": B, "h": H, "d": D, "m": M, "dtype": "float32",
        "collectives": " ".join(f"{count} {name}" for name, count in sorted(traffic.calls.items()) if name != "recv"),
        "payload_bytes_per_rank": round(payload), "wire_bytes_per_rank": round(wire),
        "model_bytes_per_rank": round(parallel.volume(variant, work, ranks=RANKS).wire_bytes(RANKS)),
        "tcp_bytes_per_rank": round(tcp), "computed": "exchange only" if skipped else "whole call",
    }  # fmt: skip


def _exchange(shards: tuple[int, ...]) -> Any:
    """The ring as in a real call, but for the attention of each block, which is zero."""

    def forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(q), q.new_zeros(q.shape[:-1])

    def backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor, ...]:
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)

    block, ranks = ring.Block(forward, backward), parallel.Ranks(shards=shards)  # type: ignore[arg-type]
    return lambda q, k, v: ring.attend(q, k, v, ranks, shards, block)


def tcp_bytes() -> int:
    """Bytes that this process has handed to its TCP connections so far, by the kernel's count, resent ones excluded."""
    total = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry))) as connection:
                if connection.type == socket.SOCK_STREAM and connection.family in (socket.AF_INET, socket.AF_INET6):
                    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    sent, resent = struct.unpack_from("<QQ", info, BYTES_SENT_AT)
                    total += sent - resent
        except OSError:  # closed meanwhile, or no connection yet
            continue
    return total


if __name__ == "__main__":
    sys.exit(main())
