"""How figures are wanted: a title, a size, a scale, a style, or any metric against any axis. No matplotlib until asked.

wish = Wish.parse(size="3.5x2.5", scale="linear", x="m", y="peak_memory", metrics=["latency", "peak_memory"])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError, brief, unknown

WIDTH = 8.0  # inches: at 800 pixels, a README's width, 10 points are 14 pixels
SCALES = ("log", "linear")
AXES = {"n": "n", "m": "m", "batch": "b", "heads": "h", "head_dim": "d"}  # the column of each
LEAST, MOST = 2.0, 40.0  # inches


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a caller wants of the figures; the defaults are theirs.

    width, height: inches, the height in all; scale: of values, log or linear; style: of matplotlib's, by name or file,
    on top of ours; x, y: an axis or a metric, and a metric.
    """

    title: str = ""
    width: float = WIDTH
    height: float | None = None
    scale: str = ""
    style: str = ""
    x: str = ""
    y: str = ""

    @classmethod
    def parse(
        cls, *, title: str = "", size: str = "", scale: str = "", style: str = "", x: str = "", y: str = "",
        metrics: Sequence[str] = (),
    ) -> Wish:  # fmt: skip
        """The wish in the words of the command line. metrics: those there are. Raises UsageError."""
        if scale and scale not in SCALES:
            raise UsageError(unknown("scale", scale, SCALES))
        for name, valid in ((x, [*AXES, *metrics]), (y, metrics)):
            if name and name not in valid:
                what = "axis or metric in this run" if valid is not metrics else "metric in this run"
                raise UsageError(unknown(what, name, valid))
        if style and not Path(style).is_file():
            import matplotlib.style

            if style not in matplotlib.style.available:
                raise UsageError(unknown("style", style, matplotlib.style.available))
        width, height = _inches(size) if size else (WIDTH, None)
        over = {"x": x or "n", "y": y or "latency"} if x or y else {}
        if over and over["y"] not in metrics:
            raise UsageError(unknown("metric in this run", over["y"], metrics))
        return cls(title=title, width=width, height=height, scale=scale, style=style, **over)

    @property
    def linear(self) -> bool:
        """Whether values stand on a linear axis."""
        return self.scale == "linear"

    @property
    def over(self) -> str:
        """`peak_memory-over-m`, the name of a figure of any metric against any axis; "" where none is asked for."""
        return f"{self.y}-over-{self.x}" if self.x else ""


AS_USUAL = Wish()


@contextmanager
def styled(wish: Wish) -> Iterator[None]:
    """Matplotlib's settings as ours, the wished style on top. Raises UsageError for a style that it cannot read."""
    import matplotlib
    import matplotlib.style

    from harness.figures._style import RC

    with matplotlib.rc_context(RC):
        if wish.style:
            try:
                matplotlib.style.use(wish.style)
            except OSError as error:
                raise UsageError(f"cannot read the style {brief(wish.style)}: {brief(str(error), 160)}") from None
        yield


def _inches(text: str) -> tuple[float, float | None]:
    """`5x3` → (5, 3); `5` → (5, None): as high as it needs."""
    parts = text.lower().split("x")
    try:
        found = [float(part) for part in parts]
    except ValueError:
        found = []
    if len(found) not in (1, 2) or not all(LEAST <= inches <= MOST for inches in found):
        raise UsageError(
            f"--size takes inches, WIDTH or WIDTHxHEIGHT of {LEAST:g} to {MOST:g} each, such as 5x3, "
            f"not {brief(text)!r}"
        )
    return found[0], found[1] if len(found) == 2 else None
