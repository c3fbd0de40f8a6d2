"""What all figures share: a fixed colour and marker for a variant, line styles for m, fonts, number formats, ticks.

Figures are saved at 200 dots an inch, 8 inches wide unless another size is wished (harness.figures._wish).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib.colors as colors
import matplotlib.style as style
import matplotlib.ticker as ticker

from harness.store.selection import Frame, size, sort_key

if TYPE_CHECKING:
    from harness.figures import Run

LETTER_INCHES = 0.075  # of a tick's digit
FINE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
INK, FAINT = "#333333", "#8a8a8a"

# Okabe and Ito's colours, then Paul Tol's muted ones: told apart under the common kinds of colour blindness.
LOOKS = {
    "full": ("#222222", "o"), "flash": ("#0072B2", "s"), "xformers": ("#56B4E9", "^"),
    "linformer": ("#009E73", "v"), "nystrom": ("#CC79A7", "p"), "anchor": ("#D55E00", "D"),
}  # fmt: skip
FURTHER = ("#332288", "#E69F00", "#882255", "#44AA99", "#999933", "#6699CC", "#AA4499", "#661100", "#117733")
FURTHER_MARKERS = ("X", "<", ">", "h", "*", "d")
FILLS = ("full", "none", "left", "top", "right", "bottom")
DASHES: dict[int, tuple[Any, ...]] = {
    1: ("-",), 2: ((0, (4, 1.6)), "-"), 3: ((0, (1, 1.4)), (0, (4, 1.6)), "-"),
    4: ((0, (1, 1.4)), (0, (4, 1.6)), (0, (5, 1.4, 1, 1.4)), "-"),
    5: ((0, (1, 2.4)), (0, (1, 1.1)), (0, (4, 1.6)), (0, (5, 1.4, 1, 1.4)), "-"),
    6: ((0, (1, 2.4)), (0, (1, 1.1)), (0, (4, 1.6)), (0, (5, 1.4, 1, 1.4)), (0, (8, 1.4, 1, 1.4, 1, 1.4)), "-"),
}  # fmt: skip

RC: Any = {
    **style.library["seaborn-v0_8-whitegrid"],
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5, "axes.labelsize": 9.5,
    "axes.titlesize": 9.5, "axes.titlelocation": "left", "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "legend.fontsize": 9, "legend.frameon": False, "axes.edgecolor": FAINT, "axes.linewidth": 0.8,
    "grid.color": "#e3e3e3", "grid.linewidth": 0.7, "text.color": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "lines.solid_capstyle": "round", "hatch.linewidth": 0.6,
    "text.parse_math": False,  # names and notes come from users: a $ is a $
    "svg.fonttype": "path", "pdf.fonttype": 42, "svg.hashsalt": "harness", "savefig.dpi": 200, "figure.dpi": 100,
    "axes.formatter.use_mathtext": False, "axes.unicode_minus": True,
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How the line of one series and m is drawn."""

    color: Any
    marker: str
    fill: str
    dash: Any
    width: float

    def line(self, *, markersize: float = 5.0) -> dict[str, Any]:
        """Keyword arguments of Axes.plot."""
        return {
            "color": self.color, "linestyle": self.dash, "linewidth": self.width, **self.point(markersize=markersize)
        }  # fmt: skip

    def point(self, *, markersize: float = 5.0) -> dict[str, Any]:
        """Keyword arguments of Axes.plot for the marker alone."""
        return {
            "color": self.color, "marker": self.marker, "markersize": markersize, "fillstyle": self.fill,
            "markeredgewidth": 1.0, "markeredgecolor": self.color, "markerfacecoloralt": "white",
            **({"markeredgewidth": 0.4, "markeredgecolor": "white"} if self.fill == "full" else {}),
            **({"markerfacecolor": "white", "fillstyle": "full"} if self.fill == "none" else {}),
        }  # fmt: skip


class Looks:
    """The looks of a whole run, so that all its figures agree: hue and marker the variant, fill the backend, dash m."""

    def __init__(self, frame: Frame) -> None:
        attentions = sorted(set(frame["attention"]))
        plugins = [name for name in attentions if name not in LOOKS]
        self.hues = dict(LOOKS)
        for place, name in enumerate(plugins):
            self.hues[name] = (FURTHER[place % len(FURTHER)], FURTHER_MARKERS[place % len(FURTHER_MARKERS)])
        drawn = frame[frame["backend"] != ""]
        self.series = {
            name: sorted(set(drawn.loc[drawn["attention"] == name, "series"])) for name in attentions
        }  # fmt: skip
        self.sizes = sorted({int(m) for m in frame["m"].dropna()})

    def of(self, attention: str, series: str, m: int | None = None) -> Look:
        """The look of one line."""
        hue, marker = self.hues[attention]
        own = self.series.get(attention, [])
        place = own.index(series) if series in own else 0
        share = (0.0, 0.35, -0.4, 0.6, -0.25, 0.2)[place % 6]
        toward = (0.0, 0.0, 0.0) if share > 0 else (1.0, 1.0, 1.0)
        red, green, blue = (c + (t - c) * abs(share) for c, t in zip(colors.to_rgb(hue), toward, strict=True))
        return Look((red, green, blue), marker, FILLS[place % len(FILLS)], self.dash(m), self.width(m))

    def dash(self, m: int | None) -> Any:
        """Dotted for the smallest m, solid for the largest and for exact variants."""
        if m is None or not self.sizes:
            return "-"
        kinds = DASHES[min(len(self.sizes), 6)]
        return kinds[min(self.sizes.index(int(m)), 5) % len(kinds)]

    def width(self, m: int | None) -> float:
        """Thin for the smallest m."""
        if m is None or len(self.sizes) < 2:
            return 1.6
        return 1.1 + 0.6 * self.sizes.index(int(m)) / (len(self.sizes) - 1)


def lines_of(rows: Frame) -> list[tuple[str, str, int | None, Frame]]:
    """(attention, series, m or None, its rows by n), exact variants first."""
    found = [
        (attention, series, None if m < 0 else int(m), group.sort_values("n"))
        for (attention, series, m), group in rows.groupby(["attention", "series", rows["m"].fillna(-1)])
    ]
    return sorted(found, key=lambda line: sort_key(*line[:3]))


def number(value: float, *, compact: bool = False) -> str:
    """A tick as plain text: 0.05, 1, 10,000; powers of ten beyond 0.001 and a million (compact: ten thousand)."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < (1e4 if compact else 1e6):
        return f"{value:,.10g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    digits = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = f"{float(mantissa):g}"
    return f"10{digits}" if mantissa == "1" else f"{mantissa}·10{digits}"


def short(value: float) -> str:
    """Three digits: 0.00120, 1.23, 12.3, 123, 12,345."""
    if value >= 100:
        return f"{value:,.0f}" if value < 1e6 else number(float(f"{value:.3g}"))
    return f"{value:#.3g}" if value >= 1e-3 else number(float(f"{value:.2g}"))


def log_ticks(axis: Any, low: float, high: float, *, inches: float = 3.0) -> None:
    """Decades of low..high on a log axis, what fits between them in `inches` where they are few, as plain numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [FINE, (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)]
    span = math.log10(high / low)
    choices = choices[0 if span < 0.5 else 1 if span < 2.2 else 2 if span < 3.4 else 3 :]
    if span < 0.3:
        choices = [*(tuple(tenths / 10 for tenths in range(10, 100, step)) for step in (1, 2, 5)), *choices]
    ladders = [[float(f"{sub}e{power}") for power in powers for sub in subs] for subs in choices]
    strides = [[float(f"1e{power}") for power in powers if power % step == 0] for step in (1, 2, 3, 4, 6)]
    tries = [*((ladder, False) for ladder in ladders), *((ladder, True) for ladder in strides)]
    places, texts = [], []
    for ladder, compact in tries:
        places = [value for value in ladder if low * 0.999 <= value <= high * 1.001]
        texts = [number(value, compact=compact) for value in places]
        if _fit(places, texts, inches / span if span else math.inf, across=axis.axis_name == "x"):
            break
    axis.set_major_locator(ticker.FixedLocator(places))
    axis.set_major_formatter(ticker.FixedFormatter(texts))
    axis.set_minor_locator(ticker.NullLocator())


def _fit(places: list[float], texts: list[str], decade: float, *, across: bool) -> bool:
    """Whether tick labels at these places stay apart where a decade is so many inches."""
    for (low, high), pair in zip(pairwise(places), pairwise(texts), strict=True):
        need = sum(map(len, pair)) / 2 * LETTER_INCHES + 0.1 if across else 0.2
        if math.log10(high / low) * decade < need:
            return False
    return True


def token_ticks(axes: Any, sizes: Iterable[int], *, inches: float) -> None:
    """The measured token counts on a log x axis; as many labelled as fit in `inches`, from the largest down."""
    measured = sorted({int(n) for n in sizes})
    span = math.log(measured[-1] / measured[0]) or 1.0
    kept = measured[-1:]
    for n in reversed(measured[:-1]):
        letters = (len(size(n)) + len(size(kept[-1]))) / 2
        if math.log(kept[-1] / n) / span * 0.92 * inches >= letters * LETTER_INCHES + 0.06:
            kept.append(n)
    axes.set_xscale("log", base=2)
    kept.sort()
    axes.xaxis.set_major_locator(ticker.FixedLocator(kept))
    axes.xaxis.set_major_formatter(ticker.FixedFormatter([size(n) for n in kept]))
    axes.xaxis.set_minor_locator(ticker.FixedLocator([n for n in measured if n not in kept]))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    margin = 1.12 if len(measured) < 2 else (measured[-1] / measured[0]) ** 0.045
    axes.set_xlim(measured[0] / margin, measured[-1] * margin)


def device_name(run: Run, device: str, machine: str) -> str:
    """`NVIDIA H200 (cuda:0)` or `AMD EPYC 7B13, 2 cores (cpu)` from environment.json; else what the rows say."""
    stored = run.environment.get("environment")
    alone = len(run.whole[["machine", "device"]].drop_duplicates()) == 1 and run.environment.get("device") == device
    part = stored.get("gpu" if device.startswith("cuda") else "cpu") if alone and isinstance(stored, dict) else None
    part = part if isinstance(part, dict) else {}
    name = part.get("name") or part.get("model")
    cores = f", {part['affinity_cores']} cores" if part.get("affinity_cores") else ""
    return f"{name}{cores} ({device})" if name else f"{machine} ({device})"
