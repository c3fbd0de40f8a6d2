"""README: what an H200 and two CPU cores gave."""

from __future__ import annotations

from quotes import Page, Rows, times

PAGE = "README.md"
ON_GPU = (
    "full", "flash:torch", "flash:cudnn", "flash:fa3", "linformer", "linear", "window:flex", "anchor:reference",
    "anchor:triton",
)  # fmt: skip
EXACT = ("full", "flash", "xformers")
ON_CPU = (("full", ""), ("flash", ""), ("linformer", 64), ("nystrom", 64), ("anchor", 64))


def quote(page: Page) -> None:
    gpu = page.rows("results/h200/sweep")
    sizes = [*(("forward", n) for n in (1024, 4096, 16384, 65536)), ("train", 4096), ("train", 65536)]
    words = {"oom": "out of memory", "unsupported": "forward only"}
    page.table(
        "| | 1k | 4k | 16k | 64k | train 4k | train 64k |",
        [[name, *(gpu.where(**_named(name)).cell(words=words, phase=p, n=n) for p, n in sizes)] for name in ON_GPU],
    )
    forward, train = ([_faster(gpu, phase, n) for n in (4096, 16384, 65536)] for phase in ("forward", "train"))
    page.say(
        "From n = 4k on anchor attention by its kernels is {}, {} and {} times as fast as the best exact "
        "one, in training "
        "{}, {} and {} times; at n = 1k cuDNN's is {} times as fast as it",
        *map(times, [*forward, *train]), times(1 / _faster(gpu, "forward", 1024)),
    )  # fmt: skip
    recall = page.rows("results/cpu/family/family.csv").where(problem="recall")
    page.say(
        "exact attention looks up {:.2f}, eight anchors {:.2f}, and {:.2f} where tokens may count more than others",
        recall.one("mean", attention="full"), recall.one("mean", options=" init=sharp", m=8),
        recall.one("mean", options=" importance=true init=orthogonal logits=cosine self=excluded", m=8),
    )  # fmt: skip
    cpu = page.rows("results/cpu/sweep").where(phase="forward", dtype="float32")
    words = {"timeout": "over 60 s a case"}
    page.table(
        "| | m | n=256 | n=1024 | n=4096 | n=16384 |",
        [[name, str(m), *(cpu.cell(words=words, attention=name, m=m, n=n) for n in (256, 1024, 4096, 16384))]
         for name, m in ON_CPU],
    )  # fmt: skip


def _named(name: str) -> dict[str, str]:
    attention, _, backend = name.partition(":")
    return {"attention": attention} | ({"backend": backend} if backend else {})


def _faster(rows: Rows, phase: str, n: int) -> float:
    """The best exact one's latency over that of anchor's kernels."""
    here = rows.where(metric="latency", phase=phase, n=n, status="ok")
    return min(here.all(attention=EXACT)) / here.one(attention="anchor", backend="triton")
