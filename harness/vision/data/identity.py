"""What tells two data sets, and two sets of weights, apart: digests of twelve hexadecimal digits.

    digest_of(data)          # of a data set that tells its `identity`, else "": drawn data are named by their options
    files({"red/0.png": path, …}, further=b"…")      # for a data set's identity: its listing
    weights(network.state_dict())
    name_of("sets/coco")     # what a row calls it: `generated-shapes`, or the folder's name

A listing is names and sizes of all files and the content of a few, evenly spread: a picture that is added, removed,
renamed or rewritten at another size is seen, without reading a million of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.store import opening
from harness.store.documents import Damaged, parse_json
from harness.vision.data.reading import BadData

MARKER = "scenes.json"  # what a folder of generated scenes has
WRITER = "harness.vision.data.scenes"
LENGTH = 12
READ = 32  # files whose content is looked at


def digest_of(data: Any) -> str:
    """The data set's own identity; empty for one that has none."""
    identity: Callable[[], str] | None = getattr(data, "identity", None)
    return identity() if identity else ""


def name_of(data: str) -> str:
    """`generated-legend` for scenes that were generated, whatever layout they are in; else the folder's name."""
    folder = Path(data)
    theme = (made_here(folder.parent) or {}).get("theme") if data else None
    if isinstance(theme, str):
        from harness.vision.data.formats import PARTS

        return f"generated-{theme}" if folder.name in PARTS else folder.name
    return folder.name


def made_here(folder: Path) -> dict[str, Any] | None:
    """What the marker of a folder of generated scenes says, or None for any other folder."""
    try:
        made = parse_json(opening.read(folder / MARKER, most=1 << 16))
        return made if made["written_by"] == WRITER else None
    except (OSError, Damaged, KeyError, TypeError):
        return None


def files(listing: Mapping[str, Path], *, further: bytes = b"") -> str:
    """Of the files by the name that they have in the data set, in its order, and of what else belongs to it."""
    found = hashlib.sha256(further)
    try:
        for name, path in listing.items():
            found.update(f"{name}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        paths = list(listing.values())
        for place in range(min(READ, len(paths))):
            found.update(paths[place * len(paths) // min(READ, len(paths))].read_bytes())
    except OSError as error:
        raise BadData(f"{error.filename}: cannot be read ({error.strerror})") from None
    return found.hexdigest()[:LENGTH]


def weights(state: Mapping[str, Tensor]) -> str:
    """Of the tensors, whatever device they are on: names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return found.hexdigest()[:LENGTH]
