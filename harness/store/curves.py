"""metrics.csv of a training: step, split, metric, value; what its curves are drawn from. No torch.

frame = read_curves(Path("runs/a"))          # pandas
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.store.csvfile import check_header

if TYPE_CHECKING:
    import pandas

CURVES = "metrics.csv"
CURVE_COLUMNS = ("step", "split", "metric", "value")


def read_curves(folder: Path) -> pandas.DataFrame:
    """The losses and evaluations of a training, in order. Raises UsageError when the file is absent or damaged."""
    import pandas

    path = folder / CURVES
    if not path.is_file():
        raise UsageError(f"{path}: no such file; harness train writes it")
    check_header(path, CURVE_COLUMNS)
    try:
        return pandas.read_csv(path, dtype={"step": int, "split": str, "metric": str, "value": float})
    except ValueError as error:
        raise UsageError(f"{path} is damaged: {error}") from None
