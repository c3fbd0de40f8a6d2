"""The harness: measures attention variants, stores rows, draws figures and gates regressions.

    import harness

    run = harness.run(attention=["flash", "anchor"], n=[1024, 4096], m=64)    # the keys of a sweep file
    run.table("latency")
    run.plot("latency")
    harness.recommend(run, n=4096)

Everything is loaded when it is first used: importing this takes milliseconds and no torch.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing has it, whose import would take longer than all of this
if TYPE_CHECKING:
    from typing import Any

    from harness.door.answers import compare, crossover
    from harness.door.measure import run
    from harness.door.recommending import recommend
    from harness.door.stored import Run, read

__version__ = "0.1.0"  # read from here by the package's metadata and by `harness --version`
__all__ = ["Run", "__version__", "compare", "crossover", "read", "recommend", "run"]

_HOMES = {
    "run": "measure", "read": "stored", "Run": "stored", "compare": "answers", "crossover": "answers",
    "recommend": "recommending",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}; it gives {', '.join(_HOMES)}")
    found = getattr(importlib.import_module(f"harness.door.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
