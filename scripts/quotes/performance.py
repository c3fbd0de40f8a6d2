"""docs/performance.md: the anchor kernels on an H100 and an H200, their compiler's report, the backends on a CPU."""

from __future__ import annotations

from statistics import mean

from quotes import Page, Row, Rows

PAGE = "docs/performance.md"
UNIT = {n: 2 * 8 * 12 * n * 64 for n in (4096, 16384, 65536)}  # bytes of one tensor, b8 h12 d64 bf16
SHORT = (
    (64, 3, 198, 30), (64, 12, 198, 30), (64, 6, 256, 64), (16, 12, 577, 64), (8, 12, 512, 64), (8, 12, 1024, 64),
    (1, 12, 198, 30), (1, 12, 512, 64),
)  # fmt: skip
MANY, TWELVE = SHORT[:5], SHORT[6:]
KERNELS = (
    ("gather (forward)", "split", "forward", "gather_kernel"),
    ("scatter", "split", "forward", "scatter_kernel"),
    ("gather (backward)", "split", "backward", "gather_kernel"),
    ("backward", "split", "backward", "backward_kernel"),
    ("single forward", "single", "forward", "single_forward_kernel"),
    ("single backward", "single", "backward", "single_backward_kernel"),
)
BACKENDS = ("reference", "sdpa", "chunked", "compile")
CALLS = (
    ("forward, no gradient wanted", "forward", "kernels"), ("forward, for a gradient", "for a gradient", "kernels"),
    ("forward and backward", "forward and backward", "kernels"),
    ("the same, k and v in one tensor", "forward and backward", "fused"),
    ("an autograd function that computes nothing, forward and backward", "forward and backward", "torch"),
)  # fmt: skip


def quote(page: Page) -> None:
    _on_h100(page)
    _short_heads(page, page.rows("results/h200/kernels_single.csv"))
    _compiler(page)
    _host(page, page.rows("results/cpu/anchor_host.csv"))
    _on_cpu(page, page.rows("results/cpu/anchor_cpu_backends.csv"))


def _on_h100(page: Page) -> None:
    rows, tried = page.rows("results/h100/kernels_b8.csv"), page.rows("results/h100/schedules.csv")
    one = {"attention": "anchor", "backend": "split", "phase": "forward", "n": 16384}
    least = rows.one(metric="roofline_fraction", **one) * rows.one(metric="latency", **one) / 1e3
    copy = rows.one(metric="bytes_moved", **one) * 2**20 / least
    page.say("a copy moved {:.0f} GB/s beside them", copy / 1e9)
    page.covers("| version (backend) | what it moves, in units of b·h·n·d elements | prediction | outcome |")

    def share(units: int, n: int, milliseconds: float) -> float:
        return units * UNIT[n] / copy / (milliseconds / 1e3)

    def took(what: str, n: int, phase: str, *, best: bool = False) -> float:
        found = tried.where(what=what, n=n, phase=phase).all("ms")
        return min(found) if best else found[0]

    sizes = (16384, 65536)
    eager = rows.one(metric="roofline_fraction", attention="anchor", backend="reference", phase="train", n=65536)
    page.say("read several times | 0.15 | –, {:.2f} |", eager)
    compiled = rows.where(metric="roofline_fraction", attention="anchor", backend="compile", phase="forward")
    page.say("still written and read twice | 0.25 | {:.2f}, {:.2f} |", *(compiled.one(n=n) for n in sizes))
    split = [share(3, n, took("split", n, "forward")) for n in sizes]
    page.say("so 0.75 at most | 0.70 | {:.2f}, {:.2f} |", *split)
    page.say("its least bytes at {:.2f} and {:.2f} of a copy's speed on an H100", *split)
    both = [share(6, n, took("split", n, "forward") + took("split", n, "backward")) for n in sizes]
    page.say("0.55 at most | 0.48 | {:.2f}, {:.2f} |", *both)
    page.say(
        "| 0.80 to 0.85 | **{:.2f}, {:.2f}**; with the best groups {:.2f}, {:.2f} |",
        *(share(3, n, took("persistent", n, "forward")) for n in sizes),
        *(share(3, n, took("persistent", n, "forward", best=True)) for n in sizes),
    )
    both = [share(6, n, took("persistent", n, "forward") + took("persistent", n, "backward")) for n in sizes]
    page.say("0.75 at most | 0.62 | **{:.2f}, {:.2f}** |", *both)
    single = [share(3, n, took("one pass", n, "forward", best=True)) for n in sizes]
    page.say("| none | {:.2f}, {:.2f} at best |", *single)

    slower = [took("persistent", n, p) / took("split", n, p) for n in UNIT for p in ("forward", "backward")]
    best = [took("persistent", n, "forward", best=True) / took("split", n, "forward") for n in sizes]
    on_h200 = page.rows("results/h200/kernels_single.csv").where(b=8, h=12)
    other = [
        on_h200.one("ms", n=n, phase=p, what="persistent") / on_h200.one("ms", n=n, phase=p, what="split")
        for n in (2048, 4096) for p in ("forward", "backward")
    ]  # fmt: skip
    page.say(
        "{:.2f} and {:.2f} times its time at n = 4096, {:.2f} and {:.2f} at 16384, {:.2f} and {:.2f} at "
        "65536 (H100, forward "
        "and backward), with the best of ten settings {:.2f} at 16384 and {:.2f} at 65536 forward; {:.2f} "
        "and {:.2f} at "
        "n = 2048, {:.2f} and {:.2f} at 4096 (H200).",
        *slower, *best, *other,
    )  # fmt: skip
    tuned = [row for row in tried if row["setting"].startswith("tuner's") and row["what"] == "split"]
    pairs = {(row["n"], row["phase"], row["setting"].split()[1].strip(":")): float(row["ms"]) for row in tuned}
    gain = max(pairs[n, p, "start"] / ms for (n, p, which), ms in pairs.items() if which == "fastest")
    page.say("the H100 it found nothing faster than the table by more than {:.0f} %.", 100 * (gain - 1))


def _short_heads(page: Page, rows: Rows) -> None:
    page.table(
        "| b, h, n, m | forward: sdpa | split | single | backward: sdpa | split | single |",
        [[", ".join(map(str, key)), *_bold(rows, key, "forward"), *_bold(rows, key, "backward")] for key in SHORT],
    )

    def to_split(keys: tuple[tuple[int, ...], ...], phase: str) -> tuple[float, float]:
        found = [_time(rows, key, phase, "single") / _time(rows, key, phase, "split") for key in keys]
        return min(found), max(found)

    page.say(
        "It takes {:.2f} to {:.2f} and {:.2f} to {:.2f} with many heads of up to 577 tokens, {:.2f} to "
        "{:.2f} with twelve.",
        *to_split(MANY, "forward"), *to_split(MANY, "backward"),
        min(to_split(TWELVE, p)[0] for p in ("forward", "backward")),
        max(to_split(TWELVE, p)[1] for p in ("forward", "backward")),
    )  # fmt: skip
    few = [_tile(rows, key, "forward", tile) for key in TWELVE for tile in ((128, 8, 3), (64, 4, 3))]
    page.say("128 tokens and 8 warps ({:.4f} against {:.4f}, {:.4f} against {:.4f}).", *few)

    def to_exact(key: tuple[int, ...], *phases: str) -> float:
        own, exact = (sum(_time(rows, key, phase, what) for phase in phases) for what in ("single", "sdpa"))
        return own / exact

    page.say(
        "is not met ({:.2f} with 3 heads a picture, {:.2f} with 12); training in 0.7 is ({:.2f} and {:.2f}).",
        *(to_exact(key, *phases) for phases in (("forward",), ("forward", "backward")) for key in SHORT[:2]),
    )
    kept = rows.where(what="single, A kept", phase="forward", n=198, warps=4)
    page.say(
        "in one tile of 256: {:.4f} and {:.4f} ms forward, and *wrong values* at n = 198 with 4 warps (relative error "
        "{:.0f} to {:.0f})",
        *kept.all("ms"), min(kept.all("error")), max(kept.all("error")),
    )  # fmt: skip


def _compiler(page: Page) -> None:
    paths = {version: f"results/compiler/anchor_triton_{version}.csv" for version in ("3.9.0", "3.6.0")}
    reports = {version: page.rows(path) for version, path in paths.items()}
    page.table(
        "| kernel | tile (tokens, warps, stages) | registers | spilled | shared memory | programs a multiprocessor |",
        [[name, f"{row['tokens']}, {row['warps']}, {row['stages']}", row["registers"], row["spilled_bytes"],
          f"{int(row['shared_bytes']) // 1024} KiB", row["resident"]]
         for name, row in ((name, _kernel(reports["3.9.0"], *key)) for name, *key in KERNELS)],
    )  # fmt: skip
    page.say(
        "Triton 3.6 gives {}, {}, {}, {}, {} and {} registers",
        *(_kernel(reports["3.6.0"], *key)["registers"] for _, *key in KERNELS),
    )
    ragged = [_kernel(reports[version], *key, ragged=True)["registers"] for version in paths for _, *key in KERNELS[4:]]
    page.say("takes `single` to {} and {} (3.9), {} and {} (3.6),", *ragged)
    counts = {len(rows.rows) for rows in reports.values()}
    page.say("n a multiple of the tile and ragged, {} kernels.", str(counts.pop()))


def _host(page: Page, rows: Rows) -> None:
    body = []
    for title, call, of in CALLS:
        found = [rows.where(call=call, of=of, label=label) for label in ("before", "after")]
        cells = [
            " → ".join(f"{own.one(column, schedule=schedule):.0f}" for own in found)
            for schedule in ("split", "single") for column in ("functions", "allocations", "us")
        ]  # fmt: skip
        body.append([title, *cells])
    took = [
        rows.one("us", schedule=schedule, call="forward and backward", of="kernels", label=label)
        - rows.one("us", schedule=schedule, call="forward and backward", of="torch", label=label)
        for schedule in ("split", "single") for label in ("before", "after")
    ]  # fmt: skip
    page.say("went from {:.0f} to {:.0f} µs (split) and from {:.0f} to {:.0f} (single)", *took)
    columns = "functions | allocations | µs"
    page.table(f"| a known call, b1 h12 n512 d64 m64, before → after | split: {columns} | single: {columns} |", body)


def _on_cpu(page: Page, rows: Rows) -> None:
    body = []
    for m in (64, 256):
        for n in (1024, 4096, 16384, 65536):
            for phase in ("forward", "train"):
                own = rows.where(m=m, n=n, phase=phase)
                body.append([str(m), str(n), phase, *_ratios(own, "float32"), *_ratios(own, "bfloat16")])
    names = " | ".join(BACKENDS)
    page.table(f"| m | n | phase | float32: {names} | bfloat16: {names} |", body)
    reference = rows.where(backend="reference", m=(64, 256))
    page.say(
        "slower than the formulation in float32 nowhere by more than {:.0f} %; in bfloat16 by up to {:.0f} % forward",
        100 * (max(reference.all("ratio_to_released", dtype="float32")) - 1),
        100 * (max(reference.all("ratio_to_released", dtype="bfloat16", phase="forward")) - 1),
    )

    def pair(m: int, phase: str) -> list[float]:
        own = rows.where(m=m, n=65536, phase=phase, dtype="float32")
        return [own.one("ratio_to_released", backend=name) for name in ("chunked", "reference")]

    page.say(
        "at m = 256 and n = 65536 it takes {:.2f} against {:.2f} forward and {:.2f} against {:.2f} in "
        "training (float32). At "
        "m = 128 the rule is right in training ({:.2f} against {:.2f}) and by that run wrong forward in float32 "
        "({:.2f} against {:.2f}), from five rounds whose 20th and 80th percentiles are {:.2f} and {:.2f}.",
        *pair(256, "forward"), *pair(256, "train"), *pair(128, "train"), *pair(128, "forward"),
        *(rows.one(x, m=128, n=65536, phase="forward", dtype="float32", backend="chunked")
          for x in ("ratio_p20", "ratio_p80")),
    )  # fmt: skip
    _blocks(page, page.rows("results/cpu/anchor_cpu_blocks.csv"))
    _bfloat16(page, page.rows("results/cpu/anchor_cpu_bfloat16.csv"))


def _blocks(page: Page, rows: Rows) -> None:
    free, kept = (rows.where(freed=word, n=16384) for word in ("as the platform has it", "kept"))
    large = rows.where(freed="as the platform has it", n=65536)

    def pairs(of: Rows, *backends: str, figure: str = "ratio_to_released") -> list[float]:
        """Each backend's in turn: m = 128 forward, training, then h8 d16 m = 64 the same."""
        return [
            of.one(figure, backend=name, m=m, phase=phase)
            for m in (128, 64) for phase in ("forward", "train") for name in backends
        ]  # fmt: skip

    page.say(
        "each call fetches them anew: {:.2f} against {:.2f} forward and {:.2f} against {:.2f} in training at m = 128, "
        "{:.2f} against {:.2f} and {:.2f} against {:.2f} at h8 d16 m = 64.",
        *pairs(free, "chunked", "reference"),
    )  # fmt: skip
    ours = (pairs(of, "reference", figure="latency_ms") for of in (kept, free))
    page.say(
        "`reference` is: {:.2f} against {:.2f}, {:.2f} against {:.2f}, {:.2f} against {:.2f}, {:.2f} against {:.2f}; "
        "and it takes {:.2f}, {:.2f}, {:.2f} and {:.2f} of what it takes without.",
        *pairs(kept, "reference", "chunked"), *(a / b for a, b in zip(*ours, strict=True)),
    )  # fmt: skip
    usual = pairs(large, "chunked")

    def beside(size: int) -> list[float]:
        return [one / other for one, other in zip(pairs(large, f"chunked@{size}"), usual, strict=True)]

    page.say(
        "those of 512 KiB, as they were, take {:.2f}, {:.2f}, {:.2f} and {:.2f} times as long at n = 65536 (m = 128 "
        "forward and training, h8 d16 m = 64 the same), those of 256 KiB {:.2f}, {:.2f}, {:.2f} and {:.2f}, those of "
        "8 MiB {:.2f}, {:.2f}, {:.2f} and {:.2f}.",
        *beside(512), *beside(256), *beside(8192),
    )  # fmt: skip


def _bfloat16(page: Page, rows: Rows) -> None:
    names = ("reference", "chunked", "compile", "loop")
    body = []
    for m in (16, 64, 128):
        for phase in ("forward", "train"):
            own = rows.where(m=m, phase=phase)
            flash = [f"{own.one('ratio_to_flash', backend=name):.3f}" for name in names]
            body.append([str(m), phase, *flash, *(f"{own.one('share_of_product', backend=x):.2f}" for x in names)])
    shown = " | ".join(names)

    def beside(name: str) -> tuple[float, float]:
        pairs = zip(*(rows.all("ratio_to_released", backend=x) for x in (name, "reference")), strict=True)
        found = [one / other for one, other in pairs]
        return min(found), max(found)

    page.say(
        "it takes {:.2f} to {:.2f} of `reference`'s time, where `compile` takes {:.2f} to {:.2f}.",
        *beside("loop"), *beside("compile"),
    )  # fmt: skip
    rates = [rows.one("share_of_product", backend="reference", m=m, phase="forward") for m in (16, 128)]
    page.say("product of matrices, {:.2f} of its rate at m = 16 and {:.2f} at m = 128,", *rates)
    page.table(f"| m | phase | over flash: {shown} | of a product's rate: {shown} |", body)


def _kernel(rows: Rows, schedule: str, phase: str, kernel: str, *, ragged: bool = False) -> Row:
    whole = 1024 if schedule == "single" else 16384
    return rows.only(
        capability=90, dtype="bfloat16", d=64, m=64, tokens=64, n=1000 if ragged else whole, schedule=schedule,
        phase=phase, kernel=kernel,
    )  # fmt: skip


def _bold(rows: Rows, key: tuple[int, ...], phase: str) -> list[str]:
    times = [_time(rows, key, phase, what) for what in ("sdpa", "split", "single")]
    return [f"**{time:.4f}**" if time == min(times) else f"{time:.4f}" for time in times]


def _time(rows: Rows, key: tuple[int, ...], phase: str, what: str) -> float:
    """The latest run's, of `single` by the tile that the rule takes."""
    if what == "single":
        return _tile(rows, key, phase, (128, 8, 3) if key in TWELVE else (64, 4, 3))
    b, h, n, m = key
    return rows.all("ms", b=b, h=h, n=n, m=m, phase=phase, what=what)[-1]


def _tile(rows: Rows, key: tuple[int, ...], phase: str, tile: tuple[int, int, int]) -> float:
    b, h, n, m = key
    tokens, warps, stages = tile
    own = rows.where(b=b, h=h, n=n, m=m, phase=phase, what="single", tokens=tokens, warps=warps, stages=stages)
    return own.all("ms")[-1]


def _ratios(rows: Rows, dtype: str) -> list[str]:
    """Each backend's, what the bare name takes in bold."""
    own = rows.where(dtype=dtype)
    taken = own.only(candidate="default")["backend"]
    cells = [f"{mean(own.all('ratio_to_released', backend=name)):.2f}" for name in BACKENDS]
    return [f"**{cell}**" if name == taken else cell for name, cell in zip(BACKENDS, cells, strict=True)]
