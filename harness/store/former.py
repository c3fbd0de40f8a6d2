"""Cases as earlier versions wrote them, under today's names: `flag=True` of an option is now `flag=true`.

    frame = renamed(frame)                  # of measurements.csv: options and case_id as a case of today has them
    names(frame)                            # {former case_id: today's}

A case_id is a hash of the options among others, so that such rows would not be found again by --resume or compare.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.store import opening
from harness.store.record import Case

TRUTH = re.compile(r"=(True|False)(?=;|$)")
NUMBERS = ("b", "h", "n", "d", "seed")


def is_former(options: str) -> bool:
    """Whether options are written as an earlier version did. Those of trained models are as they always were."""
    return TRUTH.search(options) is not None and not re.search(r"(?:^|;)task=", options)


def today(row: Mapping[str, Any]) -> Case:
    """The case of a row, by column, with its options as they are written today. Raises ValueError for no case."""
    found = {field.name: row[field.name] for field in fields(Case)}
    found |= {name: int(found[name]) for name in NUMBERS}
    found["m"] = int(found["m"]) if str(found["m"]).isdecimal() else None
    found["options"] = TRUTH.sub(lambda match: match[0].lower(), str(found["options"]))
    return Case(**found)


def names(frame: Any) -> dict[str, str]:
    """Former case_id → today's, of the rows of a frame that have a former one."""
    written = [text for text in frame["options"].unique() if is_former(text)]
    rows = frame[frame["options"].isin(written)].drop_duplicates("case_id")
    return {row["case_id"]: today(row).case_id for row in rows.to_dict("records")}


def may_hold(path: Path) -> bool:
    """Whether a file of rows may hold a former case, told by a look: reading every row of a large run takes seconds."""
    try:
        data = opening.read(path) if opening.present(path) else b""
    except OSError:
        return True  # whoever reads it says why that cannot be
    return b"=True" in data or b"=False" in data


def renamed(frame: Any) -> Any:
    """The frame with every case under today's name; itself where none has another."""
    found = names(frame)
    if not found:
        return frame
    frame = frame.copy()
    old = frame["case_id"].isin(found)
    frame.loc[old, "options"] = [TRUTH.sub(lambda m: m[0].lower(), text) for text in frame.loc[old, "options"]]
    frame.loc[old, "case_id"] = frame.loc[old, "case_id"].map(found)
    return frame
