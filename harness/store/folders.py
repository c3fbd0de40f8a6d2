"""Run folders as things: found below a folder, told in a line, deleted. No torch.

for path in below(Path("results")): print(summary(path, under=Path("results")))
remove(Path("results/draft"))           # only what a run wrote, and nothing that a link leads to
"""

from __future__ import annotations

import os
import shutil
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import reason
from harness.store.csvfile import StoreError, check_header, locked
from harness.store.curves import CURVES
from harness.store.record import COLUMNS
from harness.store.rows import LEFT_OUT, RowsLeftOut, is_there
from harness.store.runs import ENVIRONMENT, MEASUREMENTS, SAMPLES, SWEEP, VARIANTS, read
from harness.store.tags import TAGS, read_tags

FILES = (MEASUREMENTS, SAMPLES, ENVIRONMENT, SWEEP, TAGS, CURVES, "report.html", "last.safetensors", "best.safetensors")
FOLDERS = (VARIANTS, "figures", "eval", "tracking")
PARTIAL = ".partial"  # what replacing a file leaves when it is killed


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a list of runs says of one. bytes: of all its files; fault: why its rows cannot be read, or ""."""

    path: Path
    name: str
    begun_utc: str = ""
    ended_utc: str = ""
    machines: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    cases: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    tags: tuple[str, ...] = ()
    fault: str = ""


def below(folder: Path) -> list[Path]:
    """The runs in a folder at any depth, itself included, by name; hidden folders and links are not looked into."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if MEASUREMENTS in files:
            found.append(Path(place))
    return sorted(found)


def summary(path: Path, *, under: Path) -> Summary:
    """What is told of a run; its name is its path below `under`. What cannot be read is told, not raised."""
    name = str(path.relative_to(under)) if path != under and path.is_relative_to(under) else str(path)
    held = sum(size for _, size in _regular(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RowsLeftOut)  # told as the fault
            frame = read(path)
        tags = read_tags(path)
    except StoreError as error:
        return Summary(path=path, name=name, bytes=held, fault=str(error))
    cases = frame.groupby(["machine", "case_id"], sort=False)["status"]
    statuses = cases.agg(lambda told: "ok" if (told == "ok").any() else told.iloc[0]).value_counts()
    wrong = frame.attrs.get(LEFT_OUT, ())
    return Summary(
        path=path, name=name, begun_utc=str(frame["time_utc"].min()) if len(frame) else "",
        ended_utc=str(frame["time_utc"].max()) if len(frame) else "", machines=tuple(dict.fromkeys(frame["machine"])),
        devices=tuple(dict.fromkeys(frame["device"])), commits=tuple(filter(None, dict.fromkeys(frame["commit"]))),
        cases=int(statuses.sum()), statuses={str(key): int(count) for key, count in statuses.items()}, bytes=held,
        tags=tags, fault=f"{len(wrong)} rows cannot be read: {wrong[0]}" if wrong else "",
    )  # fmt: skip


def check_removable(folder: Path) -> tuple[int, int]:
    """How many files a run has, and bytes. Raises StoreError for what is no run or holds what no run writes."""
    if folder.is_symlink():
        raise StoreError(f"{folder} is a link; name the folder that it leads to")
    if not folder.is_dir() or not is_there(folder / MEASUREMENTS):
        raise StoreError(f"{folder} is not a run: it has no {MEASUREMENTS}; nothing was deleted")
    check_header(folder / MEASUREMENTS, COLUMNS)
    strange = _strange(folder)
    if strange:
        told = ", ".join(strange[:4]) + (f" and {len(strange) - 4} more" if len(strange) > 4 else "")
        raise StoreError(f"{folder} holds what no run writes: {told}; move it away first, nothing was deleted")
    sizes = [size for _, size in _regular(folder)]
    return len(sizes), sum(sizes)


def remove(folder: Path) -> None:
    """Delete a run, its rows last: what a crash leaves is still a run, and can be deleted again.

    Links in it are deleted, never followed. Raises StoreError for what is no run, or is being written.
    """
    check_removable(folder)
    try:
        guard = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"cannot open {folder}: {reason(error)}") from None
    try:
        if not locked(guard):
            raise StoreError(f"{folder} is being written by a run; nothing was deleted")
        for name in sorted(os.listdir(guard), key=lambda name: name == MEASUREMENTS):
            if stat.S_ISDIR(os.stat(name, dir_fd=guard, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=guard)
            else:
                os.unlink(name, dir_fd=guard)
        os.rmdir(folder)
    except OSError as error:
        raise StoreError(f"cannot delete all of {folder}: {reason(error)}") from None
    finally:
        os.close(guard)


def _strange(folder: Path) -> list[str]:
    """What is in a run's folder, or in those of runs inside it, that no run writes."""
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        within = entry.is_dir(follow_symlinks=False)
        partial = entry.name.startswith(".") and entry.name.endswith(PARTIAL)
        if within and entry.name == "eval":
            found += [f"{entry.name}/{name}" for name in _strange(Path(entry.path))]
        elif entry.name not in (FOLDERS if within else (*FILES, *FOLDERS)) and not partial:
            found.append(entry.name)
    return found


def _regular(folder: Path) -> Iterator[tuple[Path, int]]:
    """The regular files at any depth with their bytes; links are not followed."""
    for place, _, files in os.walk(folder):
        for name in files:
            path = Path(place, name)
            try:
                told = path.lstat()
            except OSError:
                continue  # it went away meanwhile
            if stat.S_ISREG(told.st_mode):
                yield path, told.st_size
