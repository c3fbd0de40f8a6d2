"""What is read from /proc and /sys, on fake trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine import system

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
stepping\t: 8
flags\t\t: fpu avx2 avx512f hypervisor

processor\t: 1
model name\t: another
"""


def grow(root: Path, files: dict[str, str]) -> Path:
    """Write a fake tree of files below root."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_processor_of_a_fake_tree(tmp_path: Path) -> None:
    root = grow(tmp_path, {
        "proc/cpuinfo": CPUINFO, "sys/devices/system/cpu/online": "0-3\n",
        "sys/devices/system/node/node0/cpulist": "0-1", "sys/devices/system/node/node1/cpulist": "2-3",
        **{f"sys/devices/system/cpu/cpu{i}/topology/core_cpus_list": "0-1" if i < 2 else "2-3" for i in range(4)},
        **{f"sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq": "3900000" for i in range(4)},
        "sys/devices/system/cpu/cpu0/cache/index0/level": "1", "sys/devices/system/cpu/cpu0/cache/index0/size": "48K",
        "sys/devices/system/cpu/cpu0/cache/index0/type": "Data", "sys/devices/system/cpu/cpu0/cache/index3/level": "3",
        "sys/devices/system/cpu/cpu0/cache/index3/size": "105M",
        "sys/devices/system/cpu/cpu0/cache/index3/type": "Unified",
    })  # fmt: skip
    found = system.processor(root, {0, 1, 2})
    assert found["model"].startswith("Intel(R) Xeon(R)")
    assert (found["stepping"], found["logical_cores"], found["physical_cores_allowed"]) == ("6/143/8", 4, 2)
    assert (found["affinity"], found["numa_nodes"], found["max_mhz"], found["virtual"]) == ("0-2", 2, [3900], True)
    assert found["caches_bytes"] == {"L1d": 48 << 10, "L3": 105 << 20}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({
            "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        }, 1.5),
        ({"proc/self/cgroup": "0::/../gone\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4.0),
        ({
            "proc/self/cgroup": "3:cpu,cpuacct:/job\n0::/\n", "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        }, 0.5),
        ({
            "proc/self/cgroup": "3:cpu:/job\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        }, None),
    ],
)  # fmt: skip
def test_quota_in_both_versions_of_control_groups(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    assert system.quota(grow(tmp_path, files)) == cores


def test_core_ranges_and_processes(tmp_path: Path) -> None:
    assert system.cores_of("0-2,8") == {0, 1, 2, 8}
    assert system.ranges_of({8, 1, 0, 2}) == "0-2,8"
    assert system.ranges_of([]) == ""
    root = grow(tmp_path, {"proc/7/stat": "7 (a) b (c) S 1 1 1 0 -1 0 0 0 0 0 30 12 0 0", "proc/8/stat": "torn"})
    assert system.process_ticks(root) == {7: ("a) b (c", 42)}
