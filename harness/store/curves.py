"""metrics.csv of a training: step, split, metric, value; what its curves are drawn from. No torch.

frame = read_curves(Path("runs/a"))          # pandas
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.store.rows import REAL, TEXT, WHOLE, Kind, is_there, read_rows

if TYPE_CHECKING:
    import pandas

CURVES = "metrics.csv"
KINDS: dict[str, Kind] = {"step": WHOLE, "split": TEXT, "metric": TEXT, "value": REAL}
CURVE_COLUMNS = tuple(KINDS)


def read_curves(folder: Path) -> pandas.DataFrame:
    """The losses and evaluations of a training, in order; lines that cannot be read are left out, with a warning.

    Raises UsageError when the file is absent or has other columns.
    """
    path = folder / CURVES
    if not is_there(path):
        raise UsageError(f"{path}: no such file; harness train writes it")
    return read_rows(path, KINDS)
