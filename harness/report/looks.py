"""The colours, marks and dashes of harness.figures as Plotly and CSS take them, for a light and a dark page."""

from __future__ import annotations

from typing import Any

from matplotlib.colors import to_hex, to_rgb

from harness.figures._style import Looks
from harness.store.selection import Frame, sort_key

SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "p": "pentagon", "D": "diamond", "X": "x",
    "<": "triangle-left", ">": "triangle-right", "h": "hexagon", "*": "star", "d": "diamond-tall",
}  # fmt: skip
FILLS = {"full": "", "none": "-open", "left": "-dot", "top": "-open-dot"}
DARK, CONTRAST = (0.086, 0.106, 0.133), 4.5  # the dark page's panels; WCAG's ratio for text


def series_looks(frame: Frame) -> list[dict[str, Any]]:
    """Each series' name, variant, colour on light and on dark, and symbol, exact variants first."""
    looks = Looks(frame)
    pairs = sorted(set(zip(frame["attention"], frame["series"], strict=True)), key=lambda pair: sort_key(*pair))
    found = []
    for attention, series in pairs:
        look = looks.of(attention, series)
        symbol = SYMBOLS.get(look.marker, "circle") + FILLS.get(look.fill, "-open-dot")
        found.append(
            {"series": series, "attention": attention, "light": to_hex(look.color), "dark": _on_dark(look.color),
             "symbol": symbol}
        )  # fmt: skip
    return found


def size_looks(frame: Frame) -> dict[str, dict[str, Any]]:
    """The dash, as Plotly and SVG write it, and width of each m."""
    looks = Looks(frame)
    return {str(m): {"dash": _dash(looks.dash(m), looks.width(m)), "width": looks.width(m)} for m in looks.sizes}


def _dash(dash: Any, width: float) -> str:
    """`4px,2px` of matplotlib's (offset, (on, off, …)), which is in units of the line's width; solid for "-"."""
    if isinstance(dash, str):
        return "solid"
    return ",".join(f"{max(1.0, part * width):.1f}px" for part in dash[1])


def _on_dark(colour: Any) -> str:
    """The colour, as much lighter as it takes to be seen on the dark page."""
    red, green, blue = to_rgb(colour)
    share = 0.0
    mixed = (red, green, blue)
    while _contrast(mixed) < CONTRAST and share < 1:
        share += 0.05
        mixed = (red + (1 - red) * share, green + (1 - green) * share, blue + (1 - blue) * share)
    return to_hex((min(1.0, mixed[0]), min(1.0, mixed[1]), min(1.0, mixed[2])))


def _contrast(colour: tuple[float, float, float]) -> float:
    return (_luminance(colour) + 0.05) / (_luminance(DARK) + 0.05)


def _luminance(colour: tuple[float, float, float]) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
