"""docs/anchor.md: how sharp attention starts, and what it learns."""

from __future__ import annotations

from family_table import interval

from quotes import Page, Rows, option, spread
from quotes.operators import COUNTED, error

PAGE = "docs/anchor.md"
PAPER, SHARP = option(init="paper"), option(init="sharp")
COSINE = option(init="orthogonal", logits="cosine", self="", importance="")
LEARNT = {
    "none (floor)": ("none", str), "full": ("full", str), "linformer": ("linformer", str), "nystrom": ("nystrom", str),
    "anchor `init=paper`": ("anchor", PAPER), "anchor `init=sharp`": ("anchor", SHARP),
    "anchor `init=orthogonal logits=cosine`": ("anchor", COSINE),
}  # fmt: skip
STARTS = (
    "", "init=paper", "init=paper;scale=4.0", "init=paper;scale=32.0", "init=orthogonal", "init=orthogonal;scale=4.0",
    "init=orthogonal;scale=32.0", "init=sharp", "init=orthogonal;logits=cosine;temperature=1.0",
    "init=paper;logits=cosine", "init=orthogonal;logits=cosine", "init=orthogonal;logits=cosine;temperature=4.0",
)  # fmt: skip


FAMILY = "results/cpu/family{}/family.csv"
CHOSEN = "init=orthogonal logits=cosine self=excluded"
NAMES = {CHOSEN: f"`{CHOSEN}`", COUNTED: "the same with `importance=true`"}
CHOICES = {CHOSEN: (10, "ten", "ten"), COUNTED: (3, "three", "seven")}  # seeds that chose it; the others confirm it
OPTIONS = (
    "scatter=separate", "bias=true", "per_head=true", "tempered=head", "tempered=token", "self=excluded",
    "self=learned", "local=3", "gate=true", "local=3 self=excluded",
    "init=orthogonal logits=cosine", CHOSEN, "importance=true", "importance=true self=excluded",
    "importance=true init=orthogonal logits=cosine", COUNTED,
)  # fmt: skip
GAINS = (("", "recall", "8"), ("", "digits", "16"), ("", "darcy", "16"), ("_long", "darcy", "16"),
         ("", "poisson", "16"))  # fmt: skip
LESS = ("darcy", "poisson")  # where less is better
FLOWS = (("", "darcy", "16"), ("", "darcy", "64"), ("", "darcy-1024", "32"), ("", "darcy-1024", "64"),
         ("_long", "darcy", "16"), ("_long", "darcy", "64"), ("_long", "darcy-1024", "64"))  # fmt: skip
FLOWING = {
    "`full`": ("full", ""), "`init=sharp`": ("anchor", " init=sharp"), NAMES[CHOSEN]: ("anchor", f" {CHOSEN}"),
    NAMES[COUNTED]: ("anchor", f" {COUNTED}"), "`none`, the floor": ("none", ""),
}  # fmt: skip
CONFIRMED = (("recall", "8"), ("digits", "16"), ("darcy", "16"), ("poisson", "16"))


def quote(page: Page) -> None:
    page.table(
        "| | recall | digits | Darcy | Darcy, 3000 steps | Poisson |",
        [[f"`{name}`", *(_gain(page, name, *where) for where in GAINS)] for name in OPTIONS],
    )
    for options in CHOICES:
        page.table(
            f"| {NAMES[options]} | recall | digits | Darcy | Poisson |",
            [[told, *(_of_seeds(page, options, problem, m, seeds) for problem, m in CONFIRMED)]
             for told, seeds in _choice(options)],
        )  # fmt: skip
    _heard(page)
    page.table(
        "| points, m | 256, 16 | 256, 64 | 1024, 32 | 1024, 64 | 3000 steps: 256, 16 | 256, 64 | 1024, 64 |",
        [
            [name, *(error(page.rows(FAMILY.format(folder)), problem, m, *member) for folder, problem, m in FLOWS)]
            for name, member in FLOWING.items()
        ],
    )
    long = page.rows(FAMILY.format("_long"))
    both = [long.only(problem="darcy-1024", attention=attention, options=options, m=m)
            for attention, options, m in (("anchor", f" {COUNTED}", "64"), ("full", "", ""))]  # fmt: skip
    page.say(
        "after 3000 the seeds overlap: {:.4f} ({:.4f} to {:.4f}) with 64 anchors, {:.4f} ({:.4f} to {:.4f}) with "
        "`full`.",
        *(float(line[name]) for line in both for name in ("mean", "lowest", "highest")),
    )
    sizes = (("darcy-1024", "32"), ("darcy", "16"), ("recall", "8"))
    chosen, sharp = (
        [_latency(page, problem, m=m, attention="anchor", options=f" {options}") for problem, m in sizes]
        for options in (COUNTED, "init=sharp")
    )
    full = [_latency(page, problem, attention="full") for problem, _ in sizes]
    page.say(
        "a call of the model takes {:.2f} times as long as with `init=sharp` at 1024 points, {:.2f} at 256 and {:.2f} "
        "at 64 tokens on this CPU ({:.2f}, {:.2f} and {:.2f} of the time with `full`),",
        *(a / b for others in (sharp, full) for a, b in zip(chosen, others, strict=True)),
    )  # fmt: skip
    many = page.rows("results/cpu/recall").where(options=option(questions="4", steps="1500"), n="64", metric="top1")
    page.say(
        "{:.3f} of the answers against {:.3f} with `init=sharp` and {:.3f} with `full`",
        _mean(many.all(attention="anchor", m="16", options=option(logits="cosine", self="excluded", importance=""))),
        _mean(many.all(attention="anchor", m="16", options=option(init="sharp"))), _mean(many.all(attention="full")),
    )  # fmt: skip
    shares = page.rows("results/cpu/anchor_sharpness.csv")
    page.table(
        "| attention | start | share, median | range |",
        [["anchor" if start else "full", _start(start), *_share(shares.only(options=start))] for start in STARTS],
    )
    ratio = shares.one("share_median", options="init=paper;scale=4.0") / shares.one(
        "share_median", options="init=paper"
    )
    page.say("fourth power of the anchors' size (×4 gives ×{:.0f}, and 4⁴ is 256)", ratio)

    recall = page.rows("results/cpu/recall").where(metric="top1")
    hard = recall.where(options=option(items="56", steps="500"))
    page.table(
        "| attention | m=4 | m=8 | m=16 | m=32 |",
        [[name, *(f"{_mean(_of(hard, name, m=m)):.3f}" for m in (4, 8, 16, 32))]
         for name in ("anchor `init=paper`", "anchor `init=sharp`", "anchor `init=orthogonal logits=cosine`", "nystrom",
                      "linformer")],
    )  # fmt: skip
    start = [_mean(_of(hard, f"anchor `init={name}`", m=16)) for name in ("paper", "sharp")]
    page.say("recall at m = 16 goes from {:.3f} to {:.3f} in the same number of steps", *start)
    exact = {_mean(hard.all(attention=name)) for name in ("full", "flash")}
    page.say("`full` and `flash`: {:.3f}. The floor: {:.3f}.", min(exact), _mean(hard.all(attention="none")))
    wide = {(name, m): _range(_of(hard, name, m=m)) for name in list(LEARNT)[2:] for m in (4, 8, 16, 32)}
    worst = wide.pop(("nystrom", 32))
    page.say("The seeds of a setting lie within {:.2f} (`nystrom` m=32: {:.2f}).", max(wide.values()), worst)
    long = recall.where(options=option(items="56", steps="1500"), m=16, attention="anchor")
    page.say(
        "has nearly caught up: {:.3f} ({:.3f} to {:.3f}) against {:.3f} ({:.3f} to {:.3f})",
        *_three(long.all(options=PAPER)), *_three(long.all(options=SHARP)),
    )  # fmt: skip

    digits = page.rows("results/cpu/vision").where(metric="top1", options=option(task="classification"))
    legend = page.rows("results/cpu/legend")
    regions = legend.where(metric="miou", options=option(task="segmentation"))
    boxes = legend.where(metric="map", options=option(task="detection"))
    page.table(
        "| | digits, top-1 | legend, mean IoU | legend, box AP |",
        [[name, *(spread(_of(rows, name)) for rows in (digits, regions, boxes))] for name in LEARNT],
    )  # fmt: skip


def _of(rows: Rows, name: str, **wanted: object) -> list[float]:
    attention, options = LEARNT[name]
    return rows.where(**({} if options is str else {"options": options})).all(attention=attention, **wanted)


def _start(options: str) -> str:
    """The options as they are set, and what is to be known of them."""
    told = f"`{options.replace(';', ' ').replace('.0', '')}`" if options else ""
    if options == "init=sharp":
        return f"{told}, the default (at d = 64 the line above)"
    return f"{told} (temperature 2)" if "cosine" in options and "temperature" not in options else told


def _share(row: dict[str, str]) -> list[str]:
    median, low, high = (float(row[f"share_{name}"]) for name in ("median", "lowest", "highest"))
    return [f"{median:.1e}", f"{low:.1e} to {high:.1e}"]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _range(values: list[float]) -> float:
    return max(values) - min(values)


def _three(values: list[float]) -> tuple[float, float, float]:
    return _mean(values), min(values), max(values)


def _gain(page: Page, options: str, folder: str, problem: str, m: str) -> str:
    """The gain and half its interval, bold where that excludes zero; empty where it was not trained often enough."""
    rows = page.rows(FAMILY.format(folder))
    found = rows.where(problem=problem, attention="anchor", options=f" {options}", m=m).rows
    if not found or not found[0]["gain"]:
        return ""
    gain, low, high = (float(found[0][name]) for name in ("gain", "gain_low", "gain_high"))
    return _bold(problem, gain, (high - low) / 2)


def _latency(page: Page, problem: str, **wanted: str) -> float:
    return page.rows(FAMILY.format("")).where(problem=problem).one("latency_ms", **wanted)


def _heard(page: Page) -> None:
    """Who is heard in trained recall models: means over the heads and the seeds."""
    rows = page.rows("results/cpu/anchor_hearing.csv")
    body = []
    for name, attention, options in (
        ("`full`", "full", ""), ("`init=sharp`", "anchor", "init=sharp"),
        *((name, "anchor", ";".join(chosen.split())) for chosen, name in NAMES.items()),
    ):  # fmt: skip
        own = rows.where(attention=attention, options=options)
        means = [_mean(own.all(column, layer=layer))
                 for column, layer in (("question_heard", 1), ("item_taken", 1), ("item_taken", 2))]  # fmt: skip
        body.append([name, f"{_mean(own.all('top1')):.3f}", *(f"{mean:.2f}" for mean in means)])
    page.table("| m = 8 | recall | question heard, layer 1 | item taken, layer 1 | layer 2 |", body)


def _choice(options: str) -> list[tuple[str, slice]]:
    """The two lines of what some seeds chose and others confirmed."""
    before, chose, others = CHOICES[options]
    return [(f"the {chose} seeds that chose it", slice(before)), (f"the {others} others", slice(before, None))]


def _of_seeds(page: Page, options: str, problem: str, m: str, seeds: slice) -> str:
    """The gain of a member by some of its seeds, which `init=sharp` has too."""
    rows = page.rows(FAMILY.format("")).where(problem=problem, attention="anchor", m=m)
    one, sharp = (
        [float(value) for value in rows.only(options=f" {name}")["values"].split()] for name in (options, "init=sharp")
    )
    sign = -1 if problem in LESS else 1
    gains = [sign * (x - y) for x, y in zip(one, sharp[: len(one)], strict=True)]
    return _bold(problem, *interval(gains[seeds]))


def _bold(problem: str, gain: float, half: float) -> str:
    digits = 4 if problem in LESS else 3
    told = f"{gain:+.{digits}f} ± {half:.{digits}f}".replace("-", "−")
    return f"**{told}**" if abs(gain) > half else told
