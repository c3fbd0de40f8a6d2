"""environment.json of a run: what somebody reads of it, and whether it is what this version writes. No torch.

document = read_environment(Path("results/mine"))     # {} where a run has none; StoreError where it is damaged
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import brief, reason
from harness.store import opening
from harness.store.csvfile import StoreError
from harness.store.documents import MOST_BYTES, Damaged, misfit, parse_json
from harness.store.record import SCHEMA

ENVIRONMENT = "environment.json"
CEILINGS = {str: {"copy_gb_per_s": float, "matmul_tflops": {str: float}}}
SESSION = {
    "started_utc": str, "canary_drift": float, "wall_s": float, "measuring_s": float, "ceilings": {str: CEILINGS},
    "places": {str: {"canary_drift": float}},
}  # fmt: skip
SHAPE = {  # of environment.json, as far as somebody reads it
    "schema": int, "run_id": str, "machine": str, "commit": str, "device": str, "kinds": {str: str}, "wall_s": float,
    "declared": {str: {str: float}}, "environment": {str: object}, "ceilings": CEILINGS, "sessions": [SESSION],
    "machines": {str: dict}, "plugins": {str: str},
    "places": {str: {"machine": str, "device": str, "ceilings": CEILINGS}},
}  # fmt: skip


def read_environment(folder: Path) -> dict[str, Any]:
    """environment.json of a run, {} where it has none. Raises StoreError when it is not what this version writes."""
    path = folder / ENVIRONMENT
    data = content(path)
    if data is None:
        return {}
    try:
        document = parse_json(data)
    except Damaged as error:
        raise StoreError(f"{path} is damaged: {error}") from None
    if not isinstance(document, dict):
        raise StoreError(f"{path} is damaged: not a JSON object")
    wrong = "" if _is_newer(document) else misfit(document, SHAPE)
    if wrong:
        raise StoreError(f"{path} is damaged: {wrong}")
    return document


def machines_of(earlier: Mapping[str, Any], machine: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """`machines` of a run that goes on: the environment of each, where an earlier session was on another one."""
    known: dict[str, Any] = dict(earlier.get("machines", {}))
    before = earlier.get("machine")
    if before not in (None, machine):
        known.setdefault(str(before), earlier.get("environment", {}))
    return {**known, machine: dict(environment)} if known else {}


def check_version(folder: Path) -> None:
    """Raise StoreError for a run that a newer version wrote."""
    found = read_environment(folder)
    if _is_newer(found):
        raise StoreError(
            f"{folder} was written by a newer harness (schema {brief(found['schema'])}; this one reads up to {SCHEMA})"
        )


def _is_newer(document: Mapping[str, Any]) -> bool:
    schema = document.get("schema", SCHEMA)
    return not isinstance(schema, int) or schema > SCHEMA


def content(path: Path) -> bytes | None:
    """What a file of a run holds, None where there is none. Raises StoreError for what cannot be read."""
    try:
        return opening.read(path, most=MOST_BYTES) if opening.present(path) else None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {reason(error)}") from None
