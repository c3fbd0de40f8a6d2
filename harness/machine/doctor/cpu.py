"""Clocks, threads, pinning and virtualisation."""

from __future__ import annotations

from collections.abc import Iterator

from harness.machine import system
from harness.machine.doctor import Finding, Place

STEADY_CLOCKS = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "timebase")
STEAL_WARN, STEAL_PROBLEM = 0.5, 5.0  # per cent of the machine's CPU time


def findings(place: Place) -> Iterator[Finding]:
    yield governor(place)
    yield boost(place)
    yield heat(place)
    yield threads(place)
    yield pinning(place)
    yield quota(place)
    yield virtualisation(place)
    yield clock_source(place)


def governor(place: Place) -> Finding:
    """Which governor sets the clock of the cores that we may use."""
    why = "A governor that follows the load runs the first milliseconds of a case slower than the rest."
    found = system.governors(place.root, place.cores)
    if not found:
        return Finding(
            check="governor", level="unknown", seen="no frequency governor is exposed", why=why,
            do="in a virtual machine or container the host decides: ask its owner, or trust the stability probe below",
        )  # fmt: skip
    seen = f"{', '.join(found)} on {len(place.cores)} usable cores"
    if found == ["performance"]:
        return Finding(check="governor", level="ok", seen=seen, why=why)
    return Finding(
        check="governor", level="warn", seen=seen, why=why, do="sudo cpupower frequency-set -g performance"
    )  # fmt: skip


def boost(place: Place) -> Finding:
    """Whether the clock may rise above its base."""
    why = "A boosted clock depends on heat and on how many cores are busy, so a later case can run at a lower one."
    on = system.boost(place.root)
    if on is None:
        return Finding(
            check="boost", level="unknown", seen="no boost switch is exposed", why=why,
            do="look for boost or turbo in the firmware set-up, or trust the stability probe below",
        )  # fmt: skip
    if not on:
        return Finding(check="boost", level="ok", seen="off", why=why)
    intel = (place.root / system.CPU / "intel_pstate/no_turbo").exists()
    switch = f"/{system.CPU}/" + ("intel_pstate/no_turbo" if intel else "cpufreq/boost")
    return Finding(
        check="boost", level="warn", seen="on", why=why,
        do=f"echo {1 if intel else 0} | sudo tee {switch} for tighter intervals; or leave it on and measure longer",
    )  # fmt: skip


def heat(place: Place) -> Finding:
    """Whether heat slowed the cores during the trial."""
    why = "A processor that is too hot slows down in steps that look like an effect."
    before, after = place.before.throttles, place.after.throttles
    if before is None or after is None:
        return Finding(
            check="heat", level="unknown", seen="thermal throttling is not counted here", why=why,
            do="watch the drift of the stability probe: harness doctor --seconds 60",
        )  # fmt: skip
    count = after - before
    return Finding(
        check="heat", level="problem" if count else "ok", seen=f"throttled {count} times during the probe", why=why,
        value=count, unit="1", do="let it cool, improve the cooling, or use fewer threads" if count else "",
    )  # fmt: skip


def threads(place: Place) -> Finding:
    """torch's threads against the cores that they can run on."""
    why = "Threads that share a core wait for one another at every barrier, in a pattern that changes by the call."
    usable, physical = place.usable, system.physical_cores(place.root, place.cores)
    seen = f"torch uses {place.threads} threads on {usable:g} usable cores"
    limit = usable
    if physical is not None and physical < usable:
        seen, limit = f"{seen} ({physical} physical)", physical
    if place.threads > limit:
        return Finding(
            check="threads", level="warn", seen=seen, why=why, value=place.threads, unit="threads",
            do=f"OMP_NUM_THREADS={max(1, int(limit))} harness run ...",
        )  # fmt: skip
    return Finding(check="threads", level="ok", seen=seen, why=why, value=place.threads, unit="threads")


def pinning(place: Place) -> Finding:
    """Whether the process is held to cores of one memory node."""
    why = "A process that the scheduler moves loses its caches, and on another NUMA node its memory is further away."
    total = len(system.cores_of(system.text(place.root, f"{system.CPU}/online") or "")) or len(place.cores)
    nodes = sum(1 for node in system.numa_nodes(place.root) if node & place.cores)
    bound = (
        place.environ.get("OMP_PROC_BIND")
        or place.environ.get("KMP_AFFINITY")
        or place.environ.get("GOMP_CPU_AFFINITY")
    )
    held = "not pinned" if len(place.cores) == total else f"pinned to cores {system.ranges_of(place.cores)}"
    where = f"{len(place.cores)} of {total} cores, {max(nodes, 1)} NUMA node{'s' * (nodes > 1)}"
    seen = f"{held}: {where}; threads {'bound' if bound else 'not bound'}"
    if nodes > 1:
        do = "numactl --cpunodebind=0 --membind=0 harness run ..."
        return Finding(check="pinning", level="warn", seen=seen, why=why, do=do, value=nodes, unit="NUMA nodes")
    return Finding(check="pinning", level="ok", seen=seen, why=why, value=max(nodes, 1), unit="NUMA nodes")


def quota(place: Place) -> Finding:
    """Whether a control group limits CPU time, and stopped us during the trial."""
    why = "A process over its CPU quota is stopped for the rest of a period, up to 0.1 s at a time."
    limit = system.quota(place.root)
    if limit is None:
        return Finding(check="quota", level="ok", seen="no CPU quota", why=why)
    stopped_us = (place.after.throttled_us or 0) - (place.before.throttled_us or 0)
    stopped = (
        f"stopped for {stopped_us / 1000:.0f} ms during the probe" if stopped_us else "not stopped during the probe"
    )
    do = f"raise the quota (docker run --cpus, a Kubernetes limit), or OMP_NUM_THREADS={max(1, int(limit))}"
    if stopped_us > 0:
        level = "problem"
    elif place.threads > limit:
        level = "warn"
    else:
        level, do = "ok", ""
    return Finding(
        check="quota", level=level, seen=f"{limit:g} cores for {place.threads} threads; {stopped}", why=why, do=do,
        value=limit, unit="cores",
    )  # fmt: skip


def virtualisation(place: Place) -> Finding:
    """Whether this is a virtual machine, and how much time its host gave to others."""
    why = "A host that runs other machines takes time, cache and memory bandwidth away without a trace in this one."
    flags = system.text(place.root, "proc/cpuinfo") or ""
    virtual = "hypervisor" in flags.split()
    ticks = {name: place.after.ticks.get(name, 0) - place.before.ticks.get(name, 0) for name in system.TIMES}
    total = sum(ticks.values())
    kind = "virtual machine" if virtual else "no hypervisor seen"
    if total <= 0 or "steal" not in place.after.ticks:
        return Finding(
            check="virtualisation", level="unknown", seen=f"{kind}; stolen time is not counted here", why=why,
            do="measure on a machine of your own, or repeat the probe at another hour",
        )  # fmt: skip
    steal = 100 * ticks["steal"] / total
    level = "problem" if steal >= STEAL_PROBLEM else "warn" if steal >= STEAL_WARN else "ok"
    return Finding(
        check="virtualisation", level=level, seen=f"{kind}; {steal:.1f} % of CPU time stolen during the probe", why=why,
        do="" if level == "ok" else "use a dedicated host or a larger instance, or come back at a quieter hour",
        value=round(steal, 3), unit="%",
    )  # fmt: skip


def clock_source(place: Place) -> Finding:
    """Whether reading the time is cheap and steady."""
    why = "A clock outside the processor takes microseconds to read, which lands in every sample."
    source = system.clock_source(place.root)
    if source is None:
        return Finding(
            check="clock", level="unknown", seen="the clock source is not exposed", why=why, do="none needed as a rule"
        )
    level = "ok" if source in STEADY_CLOCKS else "warn"
    do = "" if level == "ok" else "boot with clocksource=tsc if the processor's counter is steady (dmesg | grep -i tsc)"
    return Finding(check="clock", level=level, seen=source, why=why, do=do)
