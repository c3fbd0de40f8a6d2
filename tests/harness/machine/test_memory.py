"""Free memory is the smallest of what the machine and every control group around this process leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.memory import free_bytes

KIB, GROUP = 1024, "sys/fs/cgroup"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:  80 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def group(limit: str, use: int, cached: int = 0, *, at: str = "", version: int = 2) -> dict[str, str]:
    """The files of one control group; `at` is its path below the root, with a slash at its end."""
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        at, names = f"memory/{at}", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    statistics = f"anon 5\n{names[2]} {cached}\nother 3\n"
    texts = zip((*names[:2], "memory.stat"), (f"{limit}\n", f"{use}\n", statistics), strict=True)
    return {f"{GROUP}/{at}{name}": text for name, text in texts}


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_group_decides(tmp_path: Path, version: int) -> None:
    own = "4:memory:/outer/inner\n" if version == 1 else "0::/outer/inner\n"
    endless = "9223372036854771712" if version == 1 else "max"
    cases = {
        80 * KIB: group(endless, 7, at="outer/inner/", version=version),
        493: group("500", 7, at="outer/inner/", version=version),
        498: group("500", 7, 5, at="outer/inner/", version=version),  # the kernel gives its file cache back
        93: group("500", 7, at="outer/inner/", version=version) | group("100", 7, at="outer/", version=version),
        0: group("500", 900, at="outer/inner/", version=version),
    }
    for place, (free, files) in enumerate(cases.items()):
        root = write(tmp_path / str(place), files | {"proc/self/cgroup": own})
        assert free_bytes("cpu", root=root) == free, files


def test_without_groups_the_machine_decides(tmp_path: Path) -> None:
    assert free_bytes("cpu", root=write(tmp_path, {"proc/self/cgroup": "0::/\n"})) == 80 * KIB
    assert free_bytes("cpu", root=write(tmp_path, {"proc/self/cgroup": "5:cpu:/x\n"})) == 80 * KIB


def test_without_a_word_from_the_kernel_it_is_all_there_is(tmp_path: Path) -> None:
    assert free_bytes("cpu", root=tmp_path) > 1 << 27
    assert 0 < free_bytes("cpu") <= free_bytes("cpu", root=tmp_path)
