"""What is freed stays in the process, unless a variable has the say; between cases it goes back to the system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from harness.machine import allocator, environment

LINUX = pytest.mark.skipif(allocator.glibc() is None, reason="the allocator here is not glibc's")
CALLS = """
import json, resource
import torch
from harness.machine import allocator

def faults(calls, large=2**26):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        torch.ones(2**24, dtype=torch.uint8)
        torch.ones(large, dtype=torch.uint8)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / calls

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

allocator.keep()
faults(3)
kept, before = faults(20), held()
allocator.give_back()
told = {"faults": kept, "given_back": before - held(), "freed": allocator.freed(), "remark": allocator.remark()}
allocator.keep(peak=6 << 30, free=10 << 30)
faults(3, large=2**27)  # no hole that was left has this size
print(json.dumps(told | {"tight": faults(20, large=2**27), "tight_remark": allocator.remark()}))
"""


def told(**variables: str) -> dict[str, Any]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k not in allocator.CHOSEN_BY}
    done = subprocess.run(
        [sys.executable, "-c", CALLS], env=environ | variables, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@LINUX
def test_the_next_call_fetches_nothing_again_and_it_all_goes_back_between_cases() -> None:
    found = told()
    assert found["freed"] == "kept"
    assert found["faults"] < 2_000  # of 20,480 pages a call; the heap may still grow once
    assert found["given_back"] > 0.9 * 2**26
    assert found["remark"] == ""


@LINUX
def test_what_might_not_fit_beside_holes_goes_back_at_once_and_the_row_says_so() -> None:
    found = told()
    assert found["tight"] > 30_000  # pages a call, those of the larger block
    assert found["tight_remark"].startswith("blocks over 32 MiB were fetched anew by each call")


@LINUX
def test_an_allocator_chosen_by_a_variable_is_left_alone() -> None:
    found = told(MALLOC_MMAP_THRESHOLD_=str(2**20))
    assert found["freed"] == "as MALLOC_MMAP_THRESHOLD_ has it"
    assert found["faults"] > 18_000
    assert found["tight_remark"] == ""


def test_who_has_the_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator.freed({"LD_PRELOAD": "libjemalloc.so", "HOME": "/"}) == "as LD_PRELOAD has it"
    monkeypatch.setattr(allocator, "glibc", lambda: None)
    assert allocator.freed({"HOME": "/"}) == "as the platform has it"
    allocator.keep()
    allocator.give_back()


def test_times_with_another_allocator_are_of_another_machine() -> None:
    cpu, gpu = ({"device": device, "gpu": {"name": "H"}} for device in ("cpu", "cuda:0"))
    names = {environment.machine(cpu | {"memory": memory}) for memory in ({}, {"freed": "kept"}, {"freed": "as X"})}
    assert len(names) == 3
    assert len({environment.machine(gpu | {"memory": memory}) for memory in ({}, {"freed": "kept"})}) == 1
