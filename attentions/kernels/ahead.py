"""Compile a planned launch for a GPU that need not be there, and read what the compiler says of it.

from attentions.kernels import ahead
from attentions.kernels.anchor import devices, plan_forward
launches = plan_forward.forward(k, v, anchors, device=devices.H100).launches    # k, v, anchors on "meta"
ahead.compile_launch(launches[0], capability=90)
# Resources(kernel='gather_kernel', registers=128, spilled_bytes=0, shared_bytes=65536, …)
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

from attentions.kernels.anchor.plan import Launch, Memory

# What one program may use: the architecture's limit, in bytes (CUDA programming guide, "Technical specifications").
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}

_TYPES = {
    torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes: registers a thread, bytes spilled a thread, shared memory a program, threads.

    warp_products, warpgroup_products: matrix instructions in its PTX, of a warp (mma.sync) and of four (wgmma).
    """

    kernel: str
    capability: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    threads: int
    warp_products: int
    warpgroup_products: int

    @property
    def resident(self) -> int:
        """Programs a multiprocessor holds at once, by registers (allocated 8 a thread) and shared memory (1 KiB each
        for the system)."""
        by_registers = 65536 // (-(-self.registers // 8) * 8 * self.threads)
        by_shared = (SHARED_LIMIT[self.capability] + 1024) // (self.shared_bytes + 1024)
        return min(by_registers, by_shared, 2048 // self.threads)


def compile_launch(launch: Launch, *, capability: int) -> Resources:
    """Compile `launch` as its first call on a GPU would: same types, same specialisation of its integers."""
    kernel = compiled(launch, capability=capability)
    registers, spilled = _usage(kernel.asm["cubin"])
    return Resources(
        kernel=launch.kernel.__name__, capability=capability, registers=registers, spilled_bytes=spilled,
        shared_bytes=kernel.metadata.shared, threads=32 * kernel.metadata.num_warps,
        warp_products=kernel.asm["ptx"].count("mma.sync.aligned.m16n8"),
        warpgroup_products=kernel.asm["ptx"].count("wgmma.mma_async"),
    )  # fmt: skip


def compiled(launch: Launch, *, capability: int) -> Any:
    """Triton's compiled kernel of `launch`, with its code by language in `asm`."""
    names = launch.kernel.arg_names
    signature: dict[str, Any] = dict.fromkeys(names, "constexpr")
    constants: dict[tuple[int, ...], Any] = {(names.index(name),): value for name, value in launch.constants.items()}
    hints: dict[tuple[int, ...], list[list[Any]]] = {}
    for name, value in launch.arguments.items():
        place = names.index(name)
        if launch.kernel.params[place].is_constexpr:
            constants[(place,)] = value
        elif isinstance(value, tuple):
            kinds = [_specialise(each, (place, i), constants, hints) for i, each in enumerate(value)]
            signature[name] = tuple(kinds)
        else:
            signature[name] = _specialise(value, (place,), constants, hints)
    source = (GluonASTSource if launch.kernel.is_gluon() else ASTSource)(launch.kernel, signature, constants, hints)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)


def _specialise(
    value: Any, place: tuple[int, ...], constants: dict[tuple[int, ...], Any], hints: dict[tuple[int, ...], Any]
) -> str:  # fmt: skip
    """The type of an argument; notes what Triton takes as a constant and what as divisible by 16, as all memory is."""
    if isinstance(value, Memory):
        hints[place] = [["tt.divisibility", 16]]
        return _TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, tl.constexpr) or value == 1:
        constants[place] = value
        return "constexpr"
    if value % 16 == 0:
        hints[place] = [["tt.divisibility", 16]]
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _usage(cubin: bytes) -> tuple[int, int]:
    """(registers a thread, bytes of local memory a thread: spills lie there) of the machine code itself."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", report)
    if found is None:
        raise RuntimeError(f"cuobjdump reported no registers: {report!r}")
    return int(found[1]), int(found[2]) + int(found[3])
