"""Runs as things: listed, tagged, copied, deleted, merged, held against each other, judged; what `harness runs` calls.

for one in listed("results"): print(one.name, one.cases, one.tags)
merge(["results/cpu", "results/gpu"], "results/both")
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError, reason
from harness.store import differing, folders, merging
from harness.store import runs as store
from harness.store import tags as labels
from harness.store.replacing import replacing

if TYPE_CHECKING:
    from harness.check.contributed import Fault


def listed(folder: str | Path = "results") -> list[folders.Summary]:
    """The runs in a folder at any depth, the newest first. Raises UsageError where there is no such folder."""
    under = Path(folder)
    if not under.is_dir():
        raise UsageError(f"{under}: no such folder; runs are listed of a folder that holds them")
    found = [folders.summary(path, under=under) for path in folders.below(under)]
    return sorted(found, key=lambda one: (one.ended_utc, one.name), reverse=True)


def tag(folder: str | Path, add: Iterable[str] = (), *, remove: Iterable[str] = ()) -> tuple[str, ...]:
    """Give a run tags and take others away; those that it has then. Raises UsageError, StoreError, StoreFull."""
    return labels.change_tags(Path(folder), add=_words(add), drop=_words(remove))


def size(folder: str | Path) -> tuple[int, int]:
    """How many files deleting a run would delete, and bytes. Raises StoreError for what would not be deleted."""
    return folders.check_removable(Path(folder))


def remove(folder: str | Path) -> None:
    """Delete a run: only what a run wrote, nothing that a link leads to. Raises StoreError."""
    folders.remove(Path(folder))


def copy(source: Path, target: Path) -> None:
    """Copy a run to a new folder, the variants that its caller defined with it. Raises StoreError."""
    from harness.sweep.conduct import stored_sweep

    store.check_folder(target, resume=False)
    try:
        shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)  # what a link leads to is not the run's
    except OSError as error:
        raise store.StoreError(f"cannot copy {source} to {target}: {reason(error)}") from None
    if store.read_sweep(target) is not None:  # the variants it defines went along
        sweep = stored_sweep(target)
        moved = tuple(str(target / Path(p).relative_to(source)) if Path(p).is_relative_to(source) else p
                      for p in sweep.plugin)  # fmt: skip
        with replacing(target / store.SWEEP) as partial:
            partial.write_text(sweep.model_copy(update={"plugin": moved}).to_toml(), encoding="utf-8")


def merge(runs: Iterable[str | Path], out: str | Path) -> merging.Merged:
    """Several runs as one new folder, each case once. Raises UsageError, StoreError, StoreFull."""
    return merging.merge([Path(run) for run in runs], Path(out))


def diff(a: str | Path, b: str | Path) -> differing.Unlike:
    """The keys of environment.json and of the sweep that differ between two runs. Raises StoreError."""
    return differing.differences(Path(a), Path(b))


def validate(runs: str | Path | Iterable[str | Path]) -> dict[Path, list[Fault]]:
    """What each run fails, of those named and those in folders that are none. Raises StoreError for no run at all."""
    from harness.check.contributed import faults

    named = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    found = [path for each in named for path in (folders.below(each) if each.is_dir() else []) or [each]]
    return {path: faults(path) for path in dict.fromkeys(found)}


def _words(texts: Iterable[str]) -> list[str]:
    """Comma-separated words in texts, once each."""
    texts = [texts] if isinstance(texts, str) else texts
    return list(dict.fromkeys(word.strip() for text in texts for word in text.split(",")))
