"""Words that people give a run to find it again: `tags.json` in its folder. No torch.

change_tags(folder, add=["paper"], drop=["draft"])      # ("paper", "quiet")
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError, brief, reason, unknown
from harness.store import opening
from harness.store.csvfile import StoreError, full
from harness.store.documents import Damaged, misfit, parse_json
from harness.store.replacing import replacing
from harness.store.rows import is_there
from harness.store.runs import MEASUREMENTS

TAGS = "tags.json"
MOST_BYTES = 1 << 16
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
RULE = "a tag is up to 40 letters, digits, dots, dashes and underscores, and begins with a letter or digit"


def read_tags(folder: Path) -> tuple[str, ...]:
    """The tags of a run, in alphabetical order; none where it has no such file. Raises StoreError for a damaged one."""
    path = folder / TAGS
    try:
        data = opening.read(path, most=MOST_BYTES) if opening.present(path) else None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {reason(error)}") from None
    if data is None:
        return ()
    try:
        document = parse_json(data, most=MOST_BYTES)
    except Damaged as error:
        raise StoreError(f"{path} is damaged: {error}") from None
    wrong = misfit(document, {"tags": [str]})
    found = document.get("tags", []) if not wrong else []
    strange = next((word for word in found if not WORD.fullmatch(word)), None)
    if wrong or strange is not None:
        raise StoreError(f"{path} is damaged: {wrong or f'{brief(strange, 40)!r} is no tag; {RULE}'}")
    return tuple(sorted(set(found)))


def change_tags(folder: Path, *, add: Sequence[str] = (), drop: Sequence[str] = ()) -> tuple[str, ...]:
    """Give a run tags and take others away; those that it has then.

    Raises UsageError for a word that is none or that it does not have, StoreError for what is no run, StoreFull.
    """
    if not is_there(folder / MEASUREMENTS):
        raise StoreError(f"{folder} is not a run: it has no {MEASUREMENTS}")
    held = read_tags(folder)
    for word in add:
        if not WORD.fullmatch(word):
            raise UsageError(f"{brief(word, 40)!r} is no tag: {RULE}")
    for word in drop:
        if word not in held:
            raise UsageError(unknown(f"tag of {folder}", word, held))
    tags = tuple(sorted({*held, *add} - set(drop)))
    if tags != held:
        try:
            with replacing(folder / TAGS, several=True) as partial:
                partial.write_text(json.dumps({"tags": tags}) + "\n", encoding="utf-8")
        except OSError as error:
            raise full(folder / TAGS, error) from None
    return tags
