"""A plugin file of variants that go wrong, each in its own way, and of some that do not; tests give harness its path.

Every one is declared exact, so that its result is compared with softmax attention.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import torch

import attentions
from attentions import Backend, Cost, Spec, Work, matmuls, traffic

POISONED = []


def right(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def cost(work: Work) -> Cost:
    """Right for `right`."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


def wrong_cost(work: Work) -> Cost:
    """Half of it."""
    return Cost(flops=cost(work).flops // 2, bytes=traffic(work), peak=0)


def free_cost(work: Work) -> Cost:
    """Nothing at all."""
    return Cost(flops=0, bytes=traffic(work), peak=0)


def huge_cost(work: Work) -> Cost:
    """More than any machine has."""
    return Cost(flops=cost(work).flops, bytes=traffic(work), peak=1 << 60)


def broken_cost(work: Work) -> Cost:
    """A fault in the plugin's own model."""
    raise ZeroDivisionError("no cost for you")


def total_memory() -> int:
    """Bytes of the machine: more than what is free, and Linux would hand it out untouched."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def segfault(q, k, v):
    """Read address 0."""
    return ctypes.string_at(0)


def leave(q, k, v):
    """End the process."""
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)


def killed(q, k, v):
    """As the kernel's out-of-memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang(q, k, v):
    """Never come back, with a child that holds the worker's files open."""
    if os.fork() == 0:
        time.sleep(600)
    time.sleep(600)


def fail(q, k, v):
    """An error of many lines."""
    raise RuntimeError("no such kernel\n  in file x\n  on line y")


def stop(q, k, v):
    """sys.exit, which is no Exception."""
    sys.exit("enough")


def memory_error(q, k, v):
    """As numpy raises it."""
    raise MemoryError


def too_much(q, k, v):
    """A real allocation beyond what is free."""
    return right(q, k, v) + torch.empty(total_memory(), dtype=torch.int8)[0]


def nan(q, k, v):
    """Not a number, in one place."""
    out = right(q, k, v)
    out[0, 0, -1, 0] = float("nan")
    return out


def wrong(q, k, v):
    """One percent off."""
    return 1.01 * right(q, k, v)


def misshapen(q, k, v):
    """Would broadcast against the reference."""
    return right(q, k, v)[:, :, :1]


def other_dtype(q, k, v):
    """Right, and twice as wide as asked for."""
    return right(q, k, v).double()


def in_place(q, k, v):
    """Scales its input, which every later call then sees."""
    q.mul_(1.0)
    return right(q, k, v)


def last_key(q, k, v):
    """Forgets the last key: wrong in every row, by little."""
    return right(q, k[:, :, :-1], v[:, :, :-1])


def last_query(q, k, v):
    """Wrong in the last row only, as a kernel whose blocks do not divide n."""
    out = right(q, k, v)
    out[:, :, -1] = 0
    return out


def noisy(q, k, v):
    """Prints where the answers go, and reads where the requests come from."""
    print('{"answer": "mine"}', flush=True)
    os.write(1, b'{"answer": null}\n')
    assert sys.stdin.read() == ""
    return right(q, k, v)


def poison(q, k, v):
    """Right, and leaves behind what ends the process as soon as another variant is to be measured."""
    known = attentions.spec

    def trap(name):
        return known(name) if name == "poison" else os._exit(9)

    if known.__name__ != "trap":
        attentions.spec = trap
    return right(q, k, v)


def mark(q, k, v):
    """Right, and poisons this process for `sticky`, as a CUDA context is poisoned for everything after."""
    POISONED.append(True)
    return right(q, k, v)


def sticky(q, k, v):
    """Right where `mark` did not run before."""
    if POISONED:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return right(q, k, v)


def remember(q, k, v):
    """Leaves the id of its process in a file, then hangs."""
    Path(os.environ["REMEMBER"]).write_text(str(os.getpid()))
    time.sleep(600)


def unsure(device):
    """A backend's own probe that fails."""
    raise OSError("probe broken")


def spec(compute, model=cost, name=None, **more) -> Spec:
    """A variant of one backend, called as its function."""
    return Spec(
        name=name or compute.__name__, title=f"{compute.__name__} (test)", exact=True, model=model,
        backends=(Backend("reference", compute, **more),),
    )  # fmt: skip


for _compute in (
    right, segfault, leave, killed, hang, fail, stop, memory_error, too_much, nan, wrong, misshapen, other_dtype,
    in_place, last_key, last_query, noisy, poison, mark, sticky, remember,
):  # fmt: skip
    globals()[_compute.__name__.upper()] = spec(_compute)
MISCOUNTED = spec(right, wrong_cost, "miscounted")
UNCOUNTED = spec(right, free_cost, "uncounted")
UNMODELLED = spec(right, None, "unmodelled")
HUGE = spec(right, huge_cost, "huge")
BROKEN = spec(right, broken_cost, "broken")
UNSURE = spec(right, name="unsure", missing=unsure)
REFUSED = spec(right, name="refused", missing=lambda device: "needs a thing that nobody has; get it from nowhere")
LIMITED = spec(right, name="limited", limits=lambda work, dtype, device: "takes n up to 32 only")
