"""RAM, swap, huge pages, and room for results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from harness.machine import system
from harness.machine.doctor import Finding, Place, own_path

GIB, MIB = 1 << 30, 1 << 20


def findings(place: Place) -> Iterator[Finding]:
    yield available(place)
    yield swap(place)
    yield huge_pages(place)
    yield disk(place)


def available(place: Place) -> Finding:
    """The memory that cases can take before the kernel has to find some elsewhere."""
    why = "A case that does not fit is swapped or killed; full attention at n=65536 needs 16 GiB a head in float32."
    sizes = system.memory(place.root)
    free = sizes["available_bytes"]
    if free is None:
        return Finding(
            check="memory", level="unknown", seen="available memory is not exposed", why=why, do="look at free -h"
        )
    limit = sizes["limit_bytes"]
    capped = (
        f", of which this control group may use {limit / GIB:.1f} GiB" if limit is not None and limit < free else ""
    )
    free = min(free, limit or free)
    level = "problem" if free < GIB // 2 else "warn" if free < 2 * GIB else "ok"
    return Finding(
        check="memory", level=level, why=why, value=round(free / GIB, 3), unit="GiB",
        seen=f"{(sizes['available_bytes'] or 0) / GIB:.1f} GiB available{capped}",
        do="" if level == "ok" else "close other programs, or keep to smaller n",
    )  # fmt: skip


def swap(place: Place) -> Finding:
    """Whether pages went to swap and back."""
    why = "A page that was swapped out costs milliseconds when it is touched again, inside somebody's sample."
    sizes = system.memory(place.root)
    size, used = sizes["swap_bytes"], sizes["swap_used_bytes"]
    if size is None or used is None:
        return Finding(check="swap", level="unknown", seen="swap is not exposed", why=why, do="look at swapon --show")
    before, after = place.before.swaps, place.after.swaps
    moved = after - before if before is not None and after is not None else 0
    seen = (
        f"{used / MIB:.0f} MiB of {size / MIB:.0f} MiB used; {moved} pages moved during the probe" if size else "none"
    )
    level = "problem" if moved else "warn" if used > 64 * MIB else "ok"
    return Finding(
        check="swap", level=level, seen=seen, why=why, value=round(used / MIB, 1), unit="MiB",
        do="" if level == "ok" else "close other programs, then: sudo swapoff -a && sudo swapon -a",
    )  # fmt: skip


def huge_pages(place: Place) -> Finding:
    """Whether the kernel merges pages behind a case's back."""
    why = "With `always` the kernel merges pages in the background, so a case can run faster the second time."
    mode = system.huge_pages(place.root)
    if mode is None:
        return Finding(
            check="huge pages", level="unknown", seen="the mode is not exposed", why=why, do="none needed as a rule"
        )
    do = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled" if mode == "always" else ""
    return Finding(check="huge pages", level="warn" if do else "ok", seen=mode, why=why, do=do)


def disk(place: Place) -> Finding:
    """Whether there is room for results where they will be written, and leave to write them."""
    why = "A run on a full disk stops at the row that did not fit; what was measured before is kept."
    folder = place.results.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    name = own_path(place.results)
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Finding(
            check="disk", level="problem", seen=f"{name} cannot be written", why=why,
            do="choose another folder with --out",
        )  # fmt: skip
    level = "problem" if free < 100 * MIB else "warn" if free < GIB else "ok"
    return Finding(
        check="disk", level=level, seen=f"{free / GIB:.1f} GiB free for {name}", why=why, value=round(free / GIB, 3),
        unit="GiB", do="" if level == "ok" else "free some space, or choose another disk with --out",
    )  # fmt: skip
