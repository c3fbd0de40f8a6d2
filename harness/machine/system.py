"""What Linux says about this machine, read from /proc and /sys below a root that a test can fake. No torch here.

    system.quota(Path("/"))                     # CPU time the control group may use, in cores; None without a limit
    system.governors(Path("/"), cores={0, 1})   # ["performance"]; [] where no governor is exposed

Nothing here raises for a missing or strange file: the answer is then None, or empty.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

CPU = "sys/devices/system/cpu"
BUSY = ("user", "nice", "system", "irq", "softirq")
TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
BLAS_RUNTIMES = re.compile(r"/lib(gomp|iomp5|omp|openblas|mkl_rt|blis)[^/\s]*\.so")


def text(root: Path, path: str) -> str | None:
    """A file's text without the blanks around it; None when it is missing or unreadable."""
    try:
        return (root / path).read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return None


def number(value: str | None) -> int | None:
    """The whole number that a text starts with, or None."""
    found = re.match(r"-?\d+", value or "")
    return int(found.group()) if found else None


def cores_of(ranges: str) -> set[int]:
    """`0-2,8` → {0, 1, 2, 8}; what is no range is passed over."""
    found = re.findall(r"(\d+)(?:-(\d+))?", ranges)
    return {core for low, high in found for core in range(int(low), int(high or low) + 1)}


def ranges_of(cores: Iterable[int]) -> str:
    """{0, 1, 2, 8} → `0-2,8`."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


SHARED = "index*/shared_cpu_list"  # of which cores share a cache; the last index is the last level


def affinity() -> set[int]:
    """The logical cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def processor(root: Path, cores: Iterable[int]) -> dict[str, Any]:
    """The processor's identity and shape: model, logical and physical cores, NUMA nodes, top clock, caches."""
    cores = sorted(cores)
    first = _pairs((text(root, "proc/cpuinfo") or "").split("\n\n")[0])
    online = cores_of(text(root, f"{CPU}/online") or "")
    arm = (
        f"{platform.machine()} {first.get('CPU implementer')}/{first.get('CPU part')}" if "CPU part" in first else None
    )
    speeds = {number(text(root, f"{CPU}/cpu{core}/cpufreq/cpuinfo_max_freq")) for core in cores} - {None}
    return {
        "model": first.get("model name") or first.get("cpu model") or arm or platform.processor() or None,
        "vendor": first.get("vendor_id") or first.get("CPU implementer"),
        "stepping": "/".join(first[key] for key in ("cpu family", "model", "stepping") if key in first) or None,
        "architecture": platform.machine(),
        "logical_cores": len(online) or os.cpu_count(),
        "physical_cores_allowed": physical_cores(root, cores),
        "affinity": ranges_of(cores),
        "affinity_cores": len(cores),
        "numa_nodes": len(numa_nodes(root)) or None,
        "numa_nodes_allowed": sum(1 for node in numa_nodes(root) if node & set(cores)) or None,
        "max_mhz": sorted(speed // 1000 for speed in speeds if speed) or None,
        "caches_bytes": caches(root, cores[0] if cores else 0) or None,
        "virtual": "hypervisor" in first.get("flags", "").split() if "flags" in first else None,
    }


def physical_cores(root: Path, cores: Iterable[int]) -> int | None:
    """How many physical cores the logical `cores` stand on; None where the topology is not exposed."""
    siblings = {
        text(root, f"{CPU}/cpu{core}/topology/core_cpus_list")
        or text(root, f"{CPU}/cpu{core}/topology/thread_siblings_list")
        for core in cores
    }
    return None if None in siblings else len(siblings) or None


def numa_nodes(root: Path) -> list[set[int]]:
    """The logical cores of each NUMA node that has any."""
    found = (
        cores_of(text(root, str(path.relative_to(root))) or "")
        for path in _glob(root, "sys/devices/system/node", "node*/cpulist")
    )
    return [cores for cores in found if cores]


def caches(root: Path, core: int) -> dict[str, int]:
    """The sizes of the caches that a core sees, in bytes: {"L1d": 32768, "L1i": …, "L2": …, "L3": …}."""
    found: dict[str, int] = {}
    for path in _glob(root, f"{CPU}/cpu{core}/cache", "index*"):
        folder = str(path.relative_to(root))
        level, size = text(root, f"{folder}/level"), re.fullmatch(r"(\d+)([KMG]?)", text(root, f"{folder}/size") or "")
        if level and size:
            kind = {"Data": "d", "Instruction": "i"}.get(text(root, f"{folder}/type") or "", "")
            found[f"L{level}{kind}"] = int(size[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[size[2]]
    return found


def last_level_bytes(root: Path, cores: Iterable[int]) -> int | None:
    """Bytes of all the last-level caches that the cores stand on; None where the caches are not exposed."""
    found: dict[str, int] = {}
    for core in cores:
        sizes = caches(root, core)
        if not sizes:
            return None
        shared = [text(root, str(path.relative_to(root))) for path in _glob(root, f"{CPU}/cpu{core}/cache", SHARED)]
        found[shared[-1] or str(core) if shared else str(core)] = sizes[max(sizes)]
    return sum(found.values()) or None


def governors(root: Path, cores: Iterable[int]) -> list[str]:
    """The distinct frequency governors of the cores; [] where none is exposed."""
    return sorted({text(root, f"{CPU}/cpu{core}/cpufreq/scaling_governor") for core in cores} - {None, ""})  # type: ignore[type-var]


def boost(root: Path) -> bool | None:
    """Whether the processor may run above its base clock; None where no switch is exposed."""
    no_turbo, switch = text(root, f"{CPU}/intel_pstate/no_turbo"), text(root, f"{CPU}/cpufreq/boost")
    return no_turbo == "0" if no_turbo else switch == "1" if switch else None


def throttles(root: Path, cores: Iterable[int]) -> int | None:
    """How often heat has slowed the cores since boot; None where it is not counted."""
    counts = [number(text(root, f"{CPU}/cpu{core}/thermal_throttle/core_throttle_count")) for core in cores]
    return max((count for count in counts if count is not None), default=None)


def quota(root: Path) -> float | None:
    """The tightest CPU quota over this process' control groups, in cores; None without one."""
    limits: list[float] = []
    for value in group_files(root, "cpu", "cpu.max"):
        limit, _, period = value.partition(" ")
        if limit.isdigit() and period.isdigit():
            limits.append(int(limit) / int(period))
    periods = list(group_files(root, "cpu", "cpu.cfs_period_us"))
    for limit, period in zip(group_files(root, "cpu", "cpu.cfs_quota_us"), periods, strict=False):
        if (number(limit) or -1) > 0 and number(period):
            limits.append(int(limit) / int(period))
    return min(limits, default=None)


def throttled_us(root: Path) -> int | None:
    """Time for which the quota has stopped this control group so far, in microseconds; None where it is not counted."""
    for value in group_files(root, "cpu", "cpu.stat"):
        stat = _pairs(value, " ")
        if "throttled_usec" in stat:
            return number(stat["throttled_usec"])
        if "throttled_time" in stat:
            return (number(stat["throttled_time"]) or 0) // 1000
    return None


def memory(root: Path) -> dict[str, int | None]:
    """Bytes of RAM and swap: total, available, swap and its used part, and the control group's limit."""
    info = {key: (number(value) or 0) << 10 for key, value in _pairs(text(root, "proc/meminfo") or "").items()}
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [number(value) for name in names for value in group_files(root, "memory", name)]
    limit = min((value for value in limits if value is not None and value < 1 << 60), default=None)
    swap = info.get("SwapTotal")
    return {
        "total_bytes": info.get("MemTotal"),
        "available_bytes": info.get("MemAvailable"),
        "limit_bytes": limit,
        "swap_bytes": swap,
        "swap_used_bytes": swap - info.get("SwapFree", 0) if swap is not None else None,
    }


def huge_pages(root: Path) -> str | None:
    """The transparent-huge-page mode: always, madvise or never."""
    found = re.search(r"\[(\w+)\]", text(root, "sys/kernel/mm/transparent_hugepage/enabled") or "")
    return found.group(1) if found else None


def clock_source(root: Path) -> str | None:
    """What the kernel reads the time from: tsc, arch_sys_counter, kvm-clock, hpet …"""
    return text(root, "sys/devices/system/clocksource/clocksource0/current_clocksource") or None


def load(root: Path) -> float | None:
    """The load average of the last minute: runnable and blocked threads of the whole machine."""
    found = re.match(r"\d+\.\d+", text(root, "proc/loadavg") or "")
    return float(found.group()) if found else None


def cpu_ticks(root: Path, *, cores: Iterable[int] | None = None) -> dict[str, int]:
    """Ticks since boot that all cores together, or these, spent on each kind of work; {} where /proc/stat has none."""
    wanted = {"cpu"} if cores is None else {f"cpu{core}" for core in cores}
    lines = [line.split() for line in (text(root, "proc/stat") or "").split("\n") if line.startswith("cpu")]
    counted = [[int(word) for word in words[1:9] if word.isdigit()] for words in lines if words[0] in wanted]
    return dict(zip(TIMES, map(sum, zip(*counted, strict=False)), strict=False))


def pressure_s(root: Path) -> float | None:
    """Seconds since boot for which some task waited for a core; None where it is not counted."""
    found = re.match(r"some\b.*\btotal=(\d+)", text(root, "proc/pressure/cpu") or "")
    return int(found[1]) / 1e6 if found else None


def process_ticks(root: Path) -> dict[int, tuple[str, int]]:
    """Of each visible process: its name and the ticks of CPU time it has used."""
    found: dict[int, tuple[str, int]] = {}
    for path in _glob(root, "proc", "[0-9]*/stat"):
        head, _, tail = (text(path.parent, "stat") or "").rpartition(")")
        fields = tail.split()
        if len(fields) > 12 and fields[11].isdigit() and fields[12].isdigit():
            found[int(path.parent.name)] = (head.partition("(")[2], int(fields[11]) + int(fields[12]))
    return found


def swaps(root: Path) -> int | None:
    """Pages swapped in and out since boot."""
    stat = _pairs(text(root, "proc/vmstat") or "", " ")
    return (number(stat["pswpin"]) or 0) + (number(stat.get("pswpout")) or 0) if "pswpin" in stat else None


def operating_system(root: Path) -> str | None:
    """The distribution's own name for itself."""
    name = _pairs(text(root, "etc/os-release") or "", "=").get("PRETTY_NAME", "").strip('"')
    return name or platform.system() or None


def container(root: Path, environ: Mapping[str, str]) -> str | None:
    """The kind of container this runs in, as far as it shows; None for none."""
    groups = text(root, "proc/1/cgroup") or ""
    if "KUBERNETES_SERVICE_HOST" in environ or "kubepods" in groups:
        return "kubernetes"
    if (root / ".dockerenv").exists() or "docker" in groups:
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    kernel = text(root, "proc/version") or ""
    return "gvisor" if "gVisor" in kernel else "lxc" if "lxc" in groups else None


def runtimes(root: Path) -> list[str]:
    """The OpenMP and BLAS libraries loaded into this process: gomp, iomp5, omp, openblas, mkl_rt, blis."""
    return sorted(set(BLAS_RUNTIMES.findall(text(root, "proc/self/maps") or "")))


def nvidia_driver(root: Path) -> str | None:
    """The version of the loaded NVIDIA kernel driver."""
    found = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\d+\.[\d.]+)", text(root, "proc/driver/nvidia/version") or "")
    return found.group(1) if found else None


def _pairs(block: str, mark: str = ":") -> dict[str, str]:
    split = (line.partition(mark) for line in block.splitlines())
    return {key.strip(): value.strip() for key, found, value in split if found}


def _glob(root: Path, folder: str, pattern: str) -> list[Path]:
    try:
        return sorted((root / folder).glob(pattern))
    except OSError:
        return []


def group_files(root: Path, controller: str, name: str) -> Iterator[str]:
    """The texts of a control-group file from this process' own group up to the root, in both versions' places."""
    for line in (text(root, "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        bases = (f"sys/fs/cgroup/{controllers}", f"sys/fs/cgroup/{controller}") if controllers else ("sys/fs/cgroup",)
        base = next((base for base in bases if (root / base).is_dir()), None)
        for depth in range(len(parts), -1, -1) if base else ():
            found = text(root, "/".join([base or "", *parts[:depth]]) + f"/{name}")
            if found is not None:
                yield found
