"""Projects sequence-parallel attention to many GPUs by the formulas of harness.answers.scaling: a CSV and a PNG.

    python scripts/parallel_projection.py docs/scaling
    python scripts/parallel_projection.py /tmp/slow --link-bytes-per-s 12.5e9 --latency-s 20e-6

Times are a projection from the assumptions, which are columns of the CSV and stand on the figure. Bytes are checked:
the real code runs as one rank of P with shapes only (PyTorch's fake tensors and fake process group), and what it passes
to collectives must be what the formula says, or the script fails.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode

import attentions
from attentions import parallel
from harness.answers.scaling import VARIANTS, Assumptions, Call, Projection, project
from harness.figures._style import LOOKS

MILLION = 1 << 20
TOKENS = (1 * MILLION, 10 * MILLION, 100 * MILLION)
RANKS = (8, 16, 32, 64, 128, 256, 512, 1024)
STYLES = dict(zip(TOKENS, (":", "--", "-"), strict=True))


def main() -> int:
    """Write the table and the figure; 1 where the code sends other bytes than the formula."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    given = vars(parser.parse_args())
    folder: Path = given.pop("folder")
    assumed = Assumptions(**given)
    found = [
        project(variant, Call(n=n), ranks=ranks, assumed=assumed)
        for variant in VARIANTS for n in TOKENS for ranks in RANKS
    ]  # fmt: skip
    wrong = check_bytes(found)
    for line in wrong:
        print(line, file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "projection.csv", found, assumed)
    draw(folder / "projection.png", found, assumed)
    print(f"{len(found)} rows in {folder / 'projection.csv'}; bytes of {len(found)} checked, {len(wrong)} differ")
    return 1 if wrong else 0


def check_bytes(found: Sequence[Projection]) -> list[str]:
    """One line for each projection whose bytes are not what the code passes to collectives."""
    wrong = []
    for ranks in RANKS:
        dist.init_process_group("fake", store=_fake_store(), rank=ranks // 2, world_size=ranks)
        for entry in (entry for entry in found if entry.ranks == ranks):
            sent = simulated_bytes(entry.variant, Call(n=entry.n), ranks)
            if sent != entry.bytes_sent:
                wrong.append(f"{entry.variant} n={entry.n} P={ranks}: the code sends {sent}, not {entry.bytes_sent}")
        dist.destroy_process_group()
    return wrong


def simulated_bytes(variant: str, call: Call, ranks: int) -> float:
    """What one rank's forward call sends; shapes only, nothing is computed or sent."""
    shards = parallel.split(call.n, ranks)
    with FakeTensorMode():
        core = attentions.build(variant, heads=call.h, head_dim=call.d, tokens=call.n, anchors=call.m)
        parallel.parallelise(core, shards=shards)
        parts = [torch.empty(call.b, call.h, shards[0], call.d, dtype=torch.bfloat16) for _ in range(3)]
        with parallel.Traffic() as traffic, torch.no_grad():
            core(*parts)
    return traffic.wire_bytes


def write_table(path: Path, found: Sequence[Projection], assumed: Assumptions) -> None:
    """One row a projection, with the call's shape and every assumption."""
    shape = {name: value for name, value in asdict(Call()).items() if name != "n"}
    rows = [{"kind": "projection", **asdict(entry), **shape, **asdict(assumed)} for entry in found]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(path: Path, found: Sequence[Projection], assumed: Assumptions) -> None:
    """Time of a call, efficiency, and bytes sent by a rank, over the number of GPUs."""
    figure, (times, shares, sent) = plt.subplots(1, 3, figsize=(13, 4.6))
    for variant in VARIANTS:
        for n in TOKENS:
            line = [entry for entry in found if (entry.variant, entry.n) == (variant, n)]
            ranks = [entry.ranks for entry in line]
            look = {
                "color": LOOKS[variant][0], "marker": LOOKS[variant][1], "linestyle": STYLES[n], "markersize": 3,
                "label": f"{variant}, {n // MILLION} M tokens",
            }  # fmt: skip
            times.plot(ranks, [1e3 * entry.time_s for entry in line], **look)
            shares.plot(ranks, [entry.efficiency for entry in line], **look)
            sent.plot(ranks, [entry.bytes_sent / 2**20 for entry in line], **look)
    for axis, title in (
        (times, "time of one call (ms)"), (shares, "efficiency, t(1) / (P t(P))"), (sent, "a rank sends (MiB a call)"),
    ):  # fmt: skip
        axis.set(xscale="log", title=title, xlabel="GPUs, P", xticks=RANKS, xticklabels=list(map(str, RANKS)))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    times.set_yscale("log")
    sent.set_yscale("log")
    shares.set_ylim(0, 1.05)
    call = Call()
    figure.suptitle(
        "Projection, not a measurement: one forward call, "
        f"b={call.b} h={call.h} d={call.d} m={call.m} bfloat16\n"
        f"assumed: {assumed.exact_flops / 1e12:g} TFLOP/s exact, {assumed.anchor_flops / 1e12:g} anchor, "
        f"{assumed.memory_bytes_per_s / 1e12:g} TB/s memory, {assumed.link_bytes_per_s / 1e9:g} GB/s a link, "
        f"{1e6 * assumed.latency_s:g} µs a message",
        fontsize=10,
    )
    figure.legend(*times.get_legend_handles_labels(), loc="lower center", ncols=6, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=140)


def _fake_store() -> dist.Store:
    """Of PyTorch's process group without processes, which lives among its test tools."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    return FakeStore()


if __name__ == "__main__":
    sys.exit(main())
