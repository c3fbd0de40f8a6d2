"""docs/which.md and its picture, docs/which.svg: which attention, by what the committed runs say.

    python scripts/which.py            # 1 where the page or the picture is not what the runs say
    python scripts/which.py --write    # after new results

Every figure on the page is of a row, named by its file and case. tests/scripts/test_which.py repeats it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from harness import figures
from harness.answers.candidates import Candidate, Ratio, Stock, ratio
from harness.answers.known import Known, shipped
from harness.answers.recommend import measured
from harness.answers.wording import figure
from harness.figures._style import FAINT, INK, RC, Looks
from harness.figures._wish import WIDTH
from harness.store.record import merit
from harness.store.selection import size

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "which.md", ROOT / "docs" / "which.svg"
M = 64
USUAL = ROOT / "results" / "h200" / "sweep"  # which says what each variant is


@dataclass(frozen=True)
class Source:
    """Runs that are read together: of one machine, precision and shape."""

    title: str
    files: tuple[str, ...]
    dtype: str
    note: str = ""
    problem: str = "default"


SOURCES = (
    Source("NVIDIA H200, bfloat16, b1 h12 d64", ("results/h200/sweep",), "bfloat16"),
    Source(
        "NVIDIA H100, bfloat16, b8 h12 d64",
        ("results/h100/kernels_b8.csv",),
        "bfloat16",
        " That run was cut off: what it lacks, such as `flash:cudnn` forward, is not compared.",
    ),
    Source("two cores of an Intel Xeon, float32, b1 h6 d64", ("results/cpu/sweep", "results/cpu/further"), "float32"),
)
CAUSAL = Source(
    "two cores of an Intel Xeon, float32, b1 h6 d64, causal", ("results/cpu/problems/causal",), "float32",
    problem="causal",
)  # fmt: skip
_BEST = "init=orthogonal logits=cosine"
TOLD = ("", "init=paper", _BEST, f"{_BEST} self=excluded", f"importance=true {_BEST} self=excluded", "mixing=false",
        "reach=8", "reach=16")  # fmt: skip
PHASES = {"forward": "inference (forward)", "train": "training (forward and backward)"}


@dataclass(frozen=True)
class Spot:
    """The best at one n: exact, and of the others with m = 64 or none; how many times as fast the other is."""

    n: int
    exact: Candidate | None
    other: Candidate | None
    cases: tuple[str, ...]
    lead: Ratio | None


@dataclass(frozen=True)
class Part:
    """One source in one phase."""

    source: Source
    phase: str
    spots: tuple[Spot, ...]


def parts(sources: Sequence[Source] = SOURCES) -> list[Part]:
    """What the runs say, part by part."""
    found = []
    for source in sources:
        stock = _stock(source)
        for setting, lines in stock.settings():
            if setting["scope"] != "core" or setting["dtype"] != source.dtype or setting["phase"] not in PHASES:
                continue
            if setting["problem"] != source.problem:
                continue
            usual = "" if source.problem == "default" else f"{source.problem}=true"
            spots = tuple(spot for n in measured(lines) if (spot := _spot(stock, lines, n, usual)) is not None)
            if spots:
                found.append(Part(source, setting["phase"], spots))
    return found


def _stock(source: Source) -> Stock:
    kinds = json.loads((USUAL / "environment.json").read_text(encoding="utf-8"))["kinds"]
    return Stock([figures.load(ROOT / file) for file in source.files], kinds=kinds)


def _spot(stock: Stock, lines: Sequence[Any], n: int, options: str) -> Spot | None:
    candidates = [
        one for one in stock.at(lines, n)[0] if one.between is None and one.m in (None, M) and one.options == options
    ]  # variants as they are by default
    exact, other = (next((one for one in candidates if one.exact == sort), None) for sort in (True, False))
    if exact is None and other is None:
        return None
    cases = tuple(
        str(row.case_id) for one in (exact, other) if one is not None for line in lines for row in line.rows
        if (line.label, line.m, row.n) == (one.label, one.m, n) and row.status == "ok"
    )  # fmt: skip
    lead = ratio(exact, other) if exact is not None and other is not None else None
    return Spot(n, exact, other, cases, lead)


def page(found: Sequence[Part]) -> str:
    """The page as Markdown."""
    told = [*found, *parts([CAUSAL])]
    lines = [
        "# Which attention?", "",
        "Which attention to take at your n, on a machine like one of these. Every figure is from a committed run: the",
        "last column names its cases, the line above a table its file.", "",
        "![The best exact attention and the best other one at each n, by device and phase](which.svg)", "",
        "## In short", "", *_short(told), "",
        "For another machine or shape, `harness recommend --n 4096 --measure` measures and answers;",
        "`harness recommend RUN --emit policy.json` writes the choice among equals for `attentions.Policy`.",
    ]  # fmt: skip
    for part in told:
        lines += ["", f"## {part.source.title}: {PHASES[part.phase]}", "", _files(part.source), "", *_table(part)]
    lines += ["", "## By m", "", *_by_m(), "", "## What models keep with it", "", *_accuracies()]
    lines += ["", "## Whole models", "", *_models(), "", "## What no row says", "", *_unsaid()]
    return "\n".join(lines) + "\n"


def _short(found: Sequence[Part]) -> Iterator[str]:
    for part in found:
        where = f"**{part.source.title}, {part.phase}**"
        runs = [
            (name, [spot.n for spot in own])
            for name, own in groupby((s for s in part.spots if s.exact), key=lambda s: _name(s.exact))
        ]
        exact = ", ".join(f"`{name}` {_range(sizes)}" for name, sizes in runs)
        compared = [spot for spot in part.spots if spot.lead is not None]
        behind = [at for at, spot in enumerate(compared) if not _ahead(spot)]
        ahead = compared[behind[-1] + 1 if behind else 0 :]
        faster = "what is not exact is not faster beyond doubt at the largest n"
        if ahead:
            faster = (
                f"from n = {size(ahead[0].n)} on one that is not exact is faster, `{_name(ahead[-1].other)}` "
                f"{_times(ahead[-1])} as fast at n = {size(ahead[-1].n)}"
            )
        yield f"- {where}: best exact {exact or 'nothing was measured'}; {faster}."
    yield (
        "- **Memory**: `full` holds n × n scores and runs out first; the others grow with n. The tables have the peaks "
        "above the inputs."
    )
    yield (
        "- **Speed is half of it**: what is not exact computes something else. What models kept with it is "
        "[below](#what-models-keep-with-it), at n = 64 to 1024 only; for longer inputs no accuracy was measured."
    )


def _table(part: Part) -> Iterator[str]:
    yield f"| n | exact | ms | MiB | not exact, m = {M} | ms | MiB | as fast as exact | cases |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for spot in part.spots:
        lead = "" if spot.lead is None else _times(spot, interval=True)
        cells = [size(spot.n), *_cells(spot.exact), *_cells(spot.other), lead]
        yield f"| {' | '.join(cells)} | {' '.join(f'`{case}`' for case in spot.cases)} |"


def _by_m() -> Iterator[str]:
    source = SOURCES[-1]
    stock = _stock(source)
    setting, lines = next(
        (s, own) for s, own in stock.settings()
        if s["scope"] == "core" and s["dtype"] == source.dtype and s["phase"] == "forward"
    )  # fmt: skip
    n = 4096
    candidates = [one for one in stock.at(lines, n)[0] if one.m is not None]
    sizes = sorted({one.m for one in candidates if one.m is not None})
    yield f"{source.title}, {setting['phase']}, n = {size(n)}: ms (MiB). {_files(source)}"
    yield "m is a choice: speed alone would always take the smallest, and [recall](recall.md) says what that costs."
    yield ""
    yield f"| | {' | '.join(f'm = {m}' for m in sizes)} |"
    yield f"|---|{'---|' * len(sizes)}"
    for name in dict.fromkeys(one.series for one in sorted(candidates, key=lambda one: one.series)):
        held = {one.m: one for one in candidates if one.series == name}
        cells = [f"{figure(held[m].time.ms)} ({figure(held[m].memory)})" if m in held else "" for m in sizes]
        yield f"| `{name}` | {' | '.join(cells)} |"


def _accuracies() -> Iterator[str]:
    known = Known(reached=shipped(), kinds={"none": "floor", "full": "exact", "flash": "exact"}, defaults={})
    places = list(dict.fromkeys((one.task, one.problem, one.metric, one.n, one.source) for one in known.reached))
    yield "The mean over seeds (lowest to highest), as `recommend` tells it: models of one recipe a table, trained on a"
    yield "CPU. `none` is attention removed: the floor. The first task is [associative recall](recall.md), the last two"
    yield "are [differential equations](operators.md). What each option of `anchor` does is on [its page](anchor.md)."
    tables = {place: [one for one in known.reached if one.place == place] for place in places}
    for task in known.tasks:  # the setting of each that was measured most
        place = max((place for place in places if place[0] == task), key=lambda place: len(tables[place]))
        own, (_, problem, metric, n, source) = [one for one in tables[place] if one.options in TOLD], place
        yield ""
        yield f"**{task}{f' ({problem})' if problem else ''}**, {metric}, n = {n}; `{source}/measurements.csv`"
        yield ""
        yield "| attention | m | seeds | mean | lowest to highest |"
        yield "|---|---|---|---|---|"
        for one in sorted(own, key=lambda one: (-merit(metric, one.mean), one.attention)):
            name = " ".join(filter(None, [one.attention, one.options]))
            span = f"{one.lowest:.3f} to {one.highest:.3f}" if one.seeds > 1 else ""
            yield f"| `{name}` | {one.m or ''} | {one.seeds} | {one.mean:.3f} | {span} |"


def _models() -> Iterator[str]:
    yield "AnchorFormer-T beside the same transformer with exact attention, ms of one call; anchors m = 30."
    yield ""
    yield "| | phase | resolution | best exact | ms | anchor, ms | as fast as exact | file |"
    yield "|---|---|---|---|---|---|---|---|"
    for folder in ("results/cpu/models", "results/h200/models"):
        stock = Stock(
            [figures.load(ROOT / folder)], kinds=json.loads((USUAL / "environment.json").read_text())["kinds"]
        )
        for setting, lines in stock.settings():
            for n in measured(lines):
                candidates = [one for one in stock.at(lines, n)[0] if one.between is None]
                exact, other = (next((one for one in candidates if one.exact == sort), None) for sort in (True, False))
                if exact is None or other is None:
                    continue
                lead = _times(Spot(n, exact, other, (), ratio(exact, other)), interval=True)
                side = next(p.partition("=")[2] for p in exact.options.split(";") if p.startswith("resolution="))
                where = f"{setting['machine']}, b = {setting['b']}"
                yield (
                    f"| {where} | {setting['phase']} | {side} (n = {n}) | `{_name(exact)}` | {figure(exact.time.ms)} "
                    f"| {figure(other.time.ms)} | {lead} | `{folder}/measurements.csv` |"
                )


def _unsaid() -> Iterator[str]:
    yield "- Causal attention on a GPU or in training, other masks, dropout: no row."
    yield "- Cross attention and grouped keys on a GPU: no row; [variants](variants.md) has some on a CPU."
    yield f"- Other m on a GPU: only m = {M} was measured there. Other heads, head dimensions and batch sizes: no row."
    yield "- Accuracy at thousands of tokens, or at full scale on ImageNet, COCO or ADE20K: nothing was trained there."
    yield "- Your machine: `harness doctor`, then `harness recommend --n … --measure`."


def _files(source: Source) -> str:
    names = [f"`{file if file.endswith('.csv') else f'{file}/measurements.csv'}`" for file in source.files]
    return f"Rows of {' and '.join(names)}.{source.note}"


def _cells(one: Candidate | None) -> list[str]:
    if one is None:
        return ["", "", ""]
    doubt = " (contended)" if one.contended else ""
    return [f"`{_name(one)}`", f"{figure(one.time.ms)}{doubt}", "" if one.memory is None else figure(one.memory)]


def _times(spot: Spot, *, interval: bool = False) -> str:
    assert spot.lead is not None
    told = interval and spot.lead.low is not None
    return f"{figure(spot.lead.value)}×" + (f" ({figure(spot.lead.low)} to {figure(spot.lead.high)})" if told else "")


def _name(one: Candidate | None) -> str:
    assert one is not None
    return one.implementation


def _ahead(spot: Spot) -> bool:
    """Whether the other one is faster beyond doubt."""
    return spot.lead is not None and (spot.lead.value if spot.lead.low is None else spot.lead.low) > 1


def _range(sizes: Sequence[int]) -> str:
    return f"at {size(sizes[0])}" if len(sizes) == 1 else f"from {size(sizes[0])} to {size(sizes[-1])}"


def digest(found: Sequence[Part]) -> str:
    """What the picture shows, as a hash that stands in the picture's own description."""
    shown = [(p.source.title, p.phase, [(s.n, *_labels(s)) for s in p.spots]) for p in found]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


def _labels(spot: Spot) -> tuple[str, str]:
    exact = "" if spot.exact is None else f"{_name(spot.exact)}\n{figure(spot.exact.time.ms)} ms"
    if spot.other is None:
        return exact, ""
    second = f"{_times(spot)} as fast" if spot.lead is not None else f"{figure(spot.other.time.ms)} ms"
    return exact, f"{_name(spot.other)}\n{second}"


def draw(found: Sequence[Part]) -> Figure:
    """The best exact one and the best other at each n: two rows a part, coloured by the variant."""
    sizes = sorted({spot.n for part in found for spot in part.spots})
    hues = Looks(_frame()).hues
    with matplotlib.rc_context(RC):
        page = Figure(figsize=(WIDTH, 0.95 + 1.17 * len(found)))
        axes = page.add_axes((0, 0, 1, 1))
        axes.set_xlim(-1.15, len(sizes))
        axes.set_ylim(2.62 * len(found) + 1.0, -0.75)
        axes.axis("off")
        axes.text(-1.1, -0.42, f"Which attention at which n: the best exact one, and the best other with m = {M}",
                  fontsize=11, fontweight="bold", color=INK, va="center")  # fmt: skip
        for at, n in enumerate(sizes):
            axes.text(at + 0.5, 0.12, f"n = {size(n)}", ha="center", va="center", fontsize=9, color=INK)
        for row, part in enumerate(found):
            top = 0.35 + 2.62 * row
            axes.text(
                -1.1, top + 0.25, f"{part.source.title}: {PHASES[part.phase]}", fontsize=9, color=INK, va="center"
            )
            for line, title in ((0, "exact"), (1, "not exact")):
                axes.text(-1.1, top + 0.95 + line, title, fontsize=8.5, color=FAINT, va="center")
            for spot in part.spots:
                for line, (one, text) in enumerate(zip((spot.exact, spot.other), _labels(spot), strict=True)):
                    if one is not None:
                        _box(axes, sizes.index(spot.n), top + 0.5 + line, hues[one.attention][0], text)
        notes = "Medians of one call; the H100's run was cut off. Not exact: computes something else (docs/which.md)."
        axes.text(-1.1, 2.62 * len(found) + 0.66, notes, fontsize=8, color=FAINT, va="center")
    return page


def _box(axes: Any, column: int, top: float, hue: Any, text: str) -> None:
    """A cell in a light tone of its variant's hue."""
    light = tuple(0.78 + 0.22 * part for part in to_rgb(hue))
    shape = FancyBboxPatch(
        (column + 0.05, top + 0.05), 0.9, 0.86, facecolor=light, edgecolor=hue, linewidth=0.9,
        boxstyle="round,pad=0,rounding_size=0.08",
    )  # fmt: skip
    axes.add_patch(shape)
    name, _, second = text.partition("\n")
    middle: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
    axes.text(column + 0.5, top + 0.32, name, fontsize=8.2 if len(name) < 15 else 7.0, fontweight="bold", **middle)
    axes.text(column + 0.5, top + 0.68, second, fontsize=7.8, **middle)


def _frame() -> Any:
    """The rows of every source, for their colours: a variant has one in all of them."""
    import pandas

    return pandas.concat([figures.load(ROOT / file).frame for source in SOURCES for file in source.files])


def drawn_as() -> str:
    """The hash in the picture that is there; empty without one."""
    text = PICTURE.read_text(encoding="utf-8") if PICTURE.is_file() else ""
    return text.partition("which.py ")[2][:16]


def main(words: Sequence[str]) -> str | None:
    """What is wrong, as sys.exit takes it."""
    found = parts()
    if words == ["--write"]:
        PAGE.write_text(page(found), encoding="utf-8")
        with matplotlib.rc_context(RC):
            told = {"Date": None, "Creator": None, "Description": f"scripts/which.py {digest(found)}"}
            draw(found).savefig(PICTURE, format="svg", metadata=told)
        return None
    if words:
        return __doc__
    stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page(found) or drawn_as() != digest(found)
    return f"{PAGE.name} or its picture is not what the runs say; renew both with --write" if stale else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
