"""docs/notebook.ipynb run from the top in a kernel of its own.

    python scripts/notebook.py            # 1 where a cell fails; what the tests run
    python scripts/notebook.py --write    # and keep the outputs, which the site shows: on a quiet machine

Needs nbclient and ipykernel: pip install 'attention-harness[dev]'.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "notebook.ipynb"
TIMEOUT_S = 300


def executed() -> Any:
    """The notebook with the outputs of now. Raises nbclient.exceptions.CellExecutionError where a cell fails."""
    import nbclient
    import nbformat

    notebook = nbformat.read(PAGE, as_version=4)
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([known] if known else [])])
    try:
        with tempfile.TemporaryDirectory() as place:
            client = nbclient.NotebookClient(
                notebook, timeout=TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": place}},
                record_timing=False,
            )  # fmt: skip
            client.execute()
    finally:
        os.environ.pop("PYTHONPATH") if known is None else os.environ.update(PYTHONPATH=known)
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--write"]):
        sys.exit(__doc__)
    import nbformat

    found = executed()
    if sys.argv[1:]:
        nbformat.write(found, PAGE)
