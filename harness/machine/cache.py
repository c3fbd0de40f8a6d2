"""Where this program keeps what it has found out about a machine: one folder of the user's cache. No torch.

folder() / "catalogue-….json"
"""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """The folder, which need not be there yet; /dev/null, in which nothing can be, for a user without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-harness"
    except RuntimeError:
        return Path(os.devnull)
