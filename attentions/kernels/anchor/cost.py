"""What the kernels execute and allocate, from plans over tensors without memory."""

from __future__ import annotations

import torch

from attentions.kernels.anchor.choices import class_of, default_choice, padded, shape_class
from attentions.kernels.anchor.devices import H100, Device, device_of
from attentions.kernels.anchor.plan import Plan, kept_places
from attentions.kernels.anchor.plan_backward import backward
from attentions.kernels.anchor.plan_forward import forward


def sketch(
    *, b: int, h: int, n: int, d: int, m: int, dtype: torch.dtype, phase: str, device: Device,
    schedule: str | None = None,
) -> Plan:  # fmt: skip
    """A forward or backward pass, untuned, on a device that need not be there.

    schedule: None for the heuristic's; where one does not fit, the plan's choice says `split`.
    """
    k, anchors = torch.empty(b, h, n, d, dtype=dtype, device="meta"), torch.empty(m, d, device="meta")
    choice = default_choice(shape_class(k, anchors, phase), n=n, m=m, parts=b * h, device=device, schedule=schedule)
    if phase == "forward":
        return forward(k, k, anchors, device=device, choice=choice)
    return backward(k, k, k, anchors, device=device, choice=choice)


def flops(*, tokens: int, d: int, m: int, dtype: torch.dtype, phase: str) -> int:
    """What the launches of a forward or backward pass execute, a multiply-add counted as two; tokens = b·h·n.

    In units of 2·tokens·m·d, whole: gather 2, scatter 2; backward gather 2 and 6 more (logits, dA twice, dV, dK, dU).
    Blocked adds the denominators, and the split of the backward pass into tokens (8) and anchors (4).
    """
    d = padded(d)
    whole = class_of(d=d, m=m, dtype=dtype, phase=phase).whole
    units = {("forward", True): 4, ("forward", False): 5, ("backward", True): 8, ("backward", False): 15}
    return 2 * tokens * m * d * units[phase, whole]


def peak(
    *, b: int, h: int, n: int, d: int, m: int, dtype: torch.dtype, phase: str, schedule: str | None = None
) -> int:  # fmt: skip
    """Bytes of results and workspace of a phase of the harness, for the first CUDA device here, else an H100.

    Where d is padded also the copies: of k and v, and in a backward pass of g and of the two gradients cut to size.
    """
    device = device_of(torch.device("cuda", 0)) if torch.cuda.is_available() else H100
    narrow, d = d, padded(d)
    tensor, kept = b * h * n * d * dtype.itemsize, 4 * kept_places(b * h, m, d)[2]
    results = {"forward": tensor + kept, "backward": 2 * tensor, "train": 3 * tensor + kept}[phase]
    one = "forward" if phase == "forward" else "backward"
    plan = sketch(b=b, h=h, n=n, d=d, m=m, dtype=dtype, phase=one, device=device, schedule=schedule)
    copies = 0 if narrow == d else tensor * (2 if phase == "forward" else 5)
    return results + plan.workspace_bytes + copies
