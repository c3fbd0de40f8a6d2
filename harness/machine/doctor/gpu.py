"""The GPU's settings and what it did during the trial, read through NVML."""

from __future__ import annotations

import os
from collections.abc import Iterator

from harness.machine.doctor import Finding, Place
from harness.machine.nvml import throttle_names

HARD = 0x8 | 0x20 | 0x40 | 0x80  # slowed by hardware, heat or the power supply
CLOCK_WARN = 0.9  # of the highest SM clock
ADMINISTRATOR = "ask the machine's administrator for: "


def findings(place: Place) -> Iterator[Finding]:
    if place.device == "cpu":
        return
    if place.gpu is None:
        yield Finding(
            check="gpu", level="unknown", seen=place.no_gpu, why="Clocks, heat and neighbours of the GPU stay unseen.",
            do="pip install 'attention-harness[gpu]', and run where the driver's libnvidia-ml is visible",
        )  # fmt: skip
        return
    yield ecc(place)
    yield _flag(
        place, "MIG", "mig", bad=True, seen=("on: figures are those of a slice", "off"),
        why="A slice of a GPU shares its memory system and power with the others; its figures are not the GPU's.",
        do="say so beside the results, or " + ADMINISTRATOR + "nvidia-smi -mig 0",
    )  # fmt: skip
    yield _flag(
        place, "persistence", "persistence", bad=False, seen=("on", "off"),
        why="Without it the driver is unloaded between runs, and each run starts with a cold GPU.",
        do=ADMINISTRATOR + "nvidia-smi -pm 1",
    )  # fmt: skip
    yield _flag(
        place, "display", "display", bad=True, seen=("attached", "none attached"),
        why="A desktop draws on the GPU between the kernels of a case.",
        do="measure without a desktop session on this GPU",
    )  # fmt: skip
    yield power(place)
    yield throttling(place)
    yield clocks(place)
    yield neighbours(place)


def ecc(place: Place) -> Finding:
    """Error correction: on or off, about to change, and errors it could not correct."""
    gpu = place.gpu or {}
    why = "Error correction costs bandwidth on some memories, and a device with errors retries."
    errors = gpu.get("memory_errors")
    if gpu.get("ecc") is None:
        return _unknown("ECC", why)
    seen = f"{'on' if gpu['ecc'] else 'off'}, {errors if errors is not None else 'unknown'} uncorrected errors"
    if errors:
        return Finding(
            check="ECC", level="problem", seen=seen, why=why, value=errors, unit="errors",
            do="use another GPU; this one fails",
        )  # fmt: skip
    if gpu.get("ecc_after_restart") != gpu["ecc"]:
        return Finding(
            check="ECC", level="warn", seen=f"{seen}; changes at the next restart", why=why,
            do="restart before measuring, so that results before and after are alike",
        )  # fmt: skip
    return Finding(check="ECC", level="ok", seen=seen, why=why, value=errors, unit="errors")


def power(place: Place) -> Finding:
    """The power limit against the card's default."""
    gpu = place.gpu or {}
    why = "A lowered power limit lowers the clock of heavy kernels only, so rankings change."
    limit, default = gpu.get("power_limit_w"), gpu.get("power_default_w")
    if limit is None:
        return _unknown("power", why)
    lowered = default is not None and limit < 0.98 * default
    usual = f"{default:.0f} W by default" if default is not None else "default unknown"
    return Finding(
        check="power", level="warn" if lowered else "ok", seen=f"limit {limit:.0f} W ({usual})", why=why,
        value=limit, unit="W",
        do=f"say so beside the results, or {ADMINISTRATOR}nvidia-smi -pl {default:.0f}" if lowered else "",
    )  # fmt: skip


def throttling(place: Place) -> Finding:
    """Why the GPU held its clock back while the trial kept it busy."""
    why = "A GPU that slows itself down for heat or power does so later in a run than at its start."
    masks = [now["throttle_mask"] for now in place.gpu_busy if now.get("throttle_mask") is not None]
    if not masks:
        return _unknown("throttling", why)
    mask = 0
    for seen_mask in masks:
        mask |= seen_mask
    names = throttle_names(mask)
    heats = [now["temperature_c"] for now in place.gpu_busy if now.get("temperature_c") is not None]
    warmth = f", up to {max(heats)} C" if heats else ""
    level = "problem" if mask & HARD else "warn" if names else "ok"
    return Finding(
        check="throttling", level=level, seen=f"{', '.join(names) or 'none'} during the probe{warmth}", why=why,
        do="let it cool and look at its airflow and power supply" if level == "problem"
        else "expect large products to run under the top clock; compare cases of one run only" if names else "",
    )  # fmt: skip


def clocks(place: Place) -> Finding:
    """The SM clock during the trial against the highest."""
    why = "Times scale with the clock, and a clock that moves moves every case measured after it."
    top = (place.gpu or {}).get("max_sm_mhz")
    seen = [now["sm_mhz"] for now in place.gpu_busy if now.get("sm_mhz")]
    if not top or not seen:
        return _unknown("clocks", why)
    level = "warn" if min(seen) < CLOCK_WARN * top else "ok"
    return Finding(
        check="clocks", level=level, why=why, value=min(seen), unit="MHz",
        seen=f"SM at {min(seen)} to {max(seen)} MHz during the probe, highest {top} MHz",
        do=f"for steadier times {ADMINISTRATOR}nvidia-smi -lgc {min(seen)}" if level == "warn" else "",
    )  # fmt: skip


def neighbours(place: Place) -> Finding:
    """Other processes with work on the GPU before the trial began."""
    why = "Kernels of other processes take turns with ours, and their memory is not there for our cases."
    found = (place.gpu or {}).get("processes")
    if found is None:
        return _unknown("neighbours", why)
    count = len([process for process in found if process != os.getpid()])
    use = place.gpu_idle.get("use_percent")
    busy = f"; {use} % busy before the probe" if use is not None else ""
    level = "problem" if count and (use or 0) >= 5 else "warn" if count or (use or 0) >= 5 else "ok"
    return Finding(
        check="neighbours", level=level, seen=f"{count} other processes on this GPU{busy}", why=why, value=count,
        unit="processes", do="" if level == "ok" else "nvidia-smi shows them; wait, or choose another: --device cuda:1",
    )  # fmt: skip


def _flag(
    place: Place, check: str, name: str, *, bad: bool, seen: tuple[str, str], why: str, do: str
) -> Finding:  # fmt: skip
    value = (place.gpu or {}).get(name)
    if value is None:
        return _unknown(check, why)
    level = "warn" if value == bad else "ok"
    return Finding(
        check=check, level=level, seen=seen[0] if value else seen[1], why=why, do=do if level == "warn" else ""
    )


def _unknown(check: str, why: str) -> Finding:
    return Finding(
        check=check, level="unknown", seen="the driver does not say", why=why, do="look at nvidia-smi -q on the host"
    )  # fmt: skip
