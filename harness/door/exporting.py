"""Runs as one file for other tools: Parquet, or CSV, with the environment of each run. Needs pyarrow for Parquet.

export(harness.read("results"), Path("all.parquet"))
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Failure, UsageError, reason, unknown
from harness.store import opening
from harness.store.record import cell
from harness.store.replacing import replacing

if TYPE_CHECKING:
    from pandas import DataFrame

KINDS = ("parquet", "csv")
MAGIC = {"parquet": b"PAR1", "csv": b"run_id,"}  # how a file of ours begins; any other is never replaced


def write(frame: DataFrame, target: Path, *, kind: str, environments: dict[str, Any]) -> None:
    """Write rows as a file, replacing one of its own kind. environments: by run_id, into Parquet's metadata.

    Raises UsageError for an unknown kind and a file that cannot be written, Failure without pyarrow.
    """
    if kind not in KINDS:
        raise UsageError(unknown("kind of file", kind, KINDS))
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise Failure("parquet needs the package pyarrow: pip install 'attention-harness[export]'")
    _check(target, kind)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, several=True) as partial:
            if kind == "parquet":
                frame.attrs = {"environments": environments}  # pandas stores them, and gives them back as it reads
                frame.to_parquet(partial, index=False, engine="pyarrow")
            else:
                texts = frame.select_dtypes(include=["object", "string"]).columns
                inert = frame.assign(**{name: frame[name].map(_inert) for name in texts})
                inert.to_csv(partial, index=False, lineterminator="\n")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {reason(error)}") from None


def _inert(text: Any) -> Any:
    """A text that no spreadsheet runs; one that the store has made so stays as it is."""
    return cell(text) if isinstance(text, str) else text


def _check(target: Path, kind: str) -> None:
    """Raise UsageError where `target` is a folder or a file of another kind."""
    try:
        if target.is_dir():
            raise UsageError(f"{target} is a folder; name a file, such as {target / f'rows.{kind}'}")
        if not target.exists():
            return
        with os.fdopen(opening.opened(target, links=True), "rb") as file:
            begins = file.read(len(MAGIC[kind]))
    except OSError as error:
        raise UsageError(f"cannot write {target}: {reason(error)}") from None
    if begins and begins != MAGIC[kind]:
        raise UsageError(f"{target} exists and is no {kind} of ours; it was left untouched: choose another --out")
