"""Scripts find their neighbours, as they do when they are run: whichever test comes first."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
