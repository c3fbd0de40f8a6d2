"""Whether torch fits the driver, and switches that make everything slow."""

from __future__ import annotations

from collections.abc import Iterator

from harness.machine import system
from harness.machine.doctor import Finding, Place

SLOW = {
    "CUDA_LAUNCH_BLOCKING": "waits after every kernel",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "asks the driver for every tensor",
    "TORCHDYNAMO_DISABLE": "turns torch.compile off",
    "TORCH_COMPILE_DISABLE": "turns torch.compile off",
    "TORCH_LOGS": "logs while compiling",
    "TRITON_INTERPRET": "runs Triton kernels in Python",
    "TRITON_DEBUG": "adds checks to kernels",
}


def findings(place: Place) -> Iterator[Finding]:
    yield build(place)
    yield switches(place)
    yield runtimes(place)


def build(place: Place) -> Finding:
    """The CUDA that torch was built for against the one that the driver supports."""
    why = "A torch for a newer CUDA than the driver's finds no device, or runs kernels compiled on the spot."
    driver = place.gpu.get("driver_cuda") if place.gpu else None
    number = place.gpu.get("driver") if place.gpu else system.nvidia_driver(place.root)
    cuda = f"built for CUDA {place.torch_cuda}" if place.torch_cuda else "built without CUDA"
    built = f"torch {place.torch_version}, {cuda}"
    seen = (
        f"{built}; driver {number} supports CUDA {driver or '(not known)'}" if number else f"{built}; no NVIDIA driver"
    )
    if not number:
        return Finding(check="torch", level="ok", seen=seen, why=why)
    if not place.torch_cuda:
        do = "install a CUDA build of torch (PyPI's default on Linux), or measure the CPU with --device cpu"
        return Finding(check="torch", level="problem", seen=seen, why="The GPU of this machine cannot be used.", do=do)
    if not driver:
        do = "pip install 'attention-harness[gpu]' to ask the driver"
        return Finding(check="torch", level="unknown", seen=seen, why=why, do=do)
    ours, theirs = ([int(part) for part in version.split(".")[:2]] for version in (place.torch_cuda, driver))
    if ours[0] > theirs[0]:
        do = f"update the driver, or install a torch built for CUDA {theirs[0]}"
        return Finding(check="torch", level="problem", seen=seen, why=why, do=do)
    if ours > theirs:
        do = "update the driver if a kernel fails to load; versions of one major number work together otherwise"
        return Finding(check="torch", level="warn", seen=seen, why=why, do=do)
    return Finding(check="torch", level="ok", seen=seen, why=why)


def switches(place: Place) -> Finding:
    """Environment variables meant for finding faults, which slow everything."""
    why = "A switch for finding faults is easily left on, and its cost differs by mechanism, so rankings change."
    found = [name for name in SLOW if place.environ.get(name, "0") not in ("", "0")]
    if not found:
        return Finding(check="switches", level="ok", seen="no slow debugging switch is set", why=why)
    seen = "; ".join(f"{name} is set ({SLOW[name]})" for name in found)
    return Finding(check="switches", level="problem", seen=seen, why=why, do=f"unset {' '.join(found)}")


def runtimes(place: Place) -> Finding:
    """How many OpenMP runtimes are loaded: two of them each start a thread a core."""
    why = "Two OpenMP runtimes each start a thread a core, and their threads wait for one another."
    loaded = system.runtimes(place.root)
    openmp = [name for name in loaded if "omp" in name]
    if not loaded:
        return Finding(check="OpenMP", level="ok", seen="no separate OpenMP library is loaded", why=why)
    level = "warn" if len(openmp) > 1 else "ok"
    do = (
        "import only one of the packages that bring them, or set OMP_NUM_THREADS to half the cores"
        if level == "warn"
        else ""
    )
    return Finding(
        check="OpenMP", level=level, seen=f"loaded: {', '.join(loaded)}", why=why, do=do,
        value=len(openmp), unit="runtimes",
    )  # fmt: skip
