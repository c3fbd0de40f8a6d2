"""What stands under a table of a paper: on which device, with which versions, and by which command it was measured.

print(caption(run.parts))       # AMD EPYC, 2 cores (cpu) · torch 2.14.0, CUDA 13.0, … · harness run --n 4096
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.figures import Run
from harness.figures._style import device_name
from harness.report.facts import sweep_command
from harness.store.documents import part
from harness.store.selection import printable

PACKAGES = ("triton", "xformers", "flash-attn", "fa3-fwd", "ray", "attention-harness")  # told where they are there
MOST_LETTERS = 600


def caption(runs: Sequence[Run]) -> str:
    """A line for each of the runs, none twice."""
    return "\n".join(dict.fromkeys(map(_of_run, runs)))


def _of_run(run: Run) -> str:
    pairs = run.frame[["machine", "device"]].drop_duplicates().itertuples(index=False)
    devices = ", ".join(device_name(run, pair.device, pair.machine) for pair in pairs)
    told = [devices, ", ".join(_versions(run)), sweep_command(run)]
    return printable(" · ".join(part for part in told if part), limit=MOST_LETTERS)


def _versions(run: Run) -> list[str]:
    """`torch 2.14.0`, the driver of a GPU, packages that attention may come from, and the commit."""
    known = run.environment.get("environment")
    parts = known if isinstance(known, dict) else {}
    torch, gpu, packages = (part(parts, name) for name in ("torch", "gpu", "packages"))
    told = [f"torch {torch['version']}"] if torch.get("version") else []
    told += [f"CUDA {gpu['cuda']}"] if gpu.get("cuda") else []
    told += [f"driver {gpu['driver']}"] if gpu.get("driver") else []
    told += [f"{name} {packages[name]}" for name in PACKAGES if packages.get(name)]
    commits = [commit for commit in dict.fromkeys(run.frame["commit"]) if commit]
    return [*told, *(["commit " + ", ".join(commits)] if commits else [])]
