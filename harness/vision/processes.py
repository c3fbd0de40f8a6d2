"""The processes that train or judge together: one, or as many as torchrun started.

accelerator = join("auto", precision="bf16")
"""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState


def join(device: str, *, precision: str = "no") -> Accelerator:
    """Accelerate's view of these processes. device: auto, cpu or cuda:<index>; under torchrun each takes its own GPU.

    precision: no (float32), bf16 or fp16, of what runs inside `autocast`.
    """
    if device.startswith("cuda:") and "LOCAL_RANK" not in os.environ:
        torch.cuda.set_device(device)
    # Accelerate keeps the precision of a process' first accelerator and refuses another; a second training may have one
    AcceleratorState._reset_state()
    return Accelerator(cpu=device == "cpu", mixed_precision=precision)
