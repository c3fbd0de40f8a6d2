"""Small shapes of every kind through the anchor kernels, forward and backward, for compute-sanitizer.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python scripts/sanitize_anchor.py

Values are the tests' business; this only runs the kernels, with few others beside them. Without PyTorch's caching
allocator every tensor is an allocation of its own, so that an access beyond its end is seen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import attentions  # noqa: E402
from attentions.kernels.anchor import plan_staged  # noqa: E402
from attentions.kernels.anchor.choices import SCHEDULES  # noqa: E402
from attentions.kernels.anchor.operators import anchor_attention, anchor_attention_fused  # noqa: E402

# b, h, n, d, m, dtype: whole tiles; ragged n, m and d; one token; blocks of anchors; float32, always in blocks here;
# heads that are padded.
SHAPES = (
    (1, 2, 256, 64, 64, torch.bfloat16),
    (2, 3, 301, 80, 30, torch.float16),
    (1, 1, 1, 32, 1, torch.bfloat16),
    (1, 2, 150, 128, 300, torch.bfloat16),
    (1, 2, 100, 64, 40, torch.float32),
    (2, 3, 90, 33, 20, torch.bfloat16),
)


# What gather and scatter of their own take.
OPTIONS: tuple[dict[str, object], ...] = (
    {"scatter": "separate", "bias": True, "per_head": True, "importance": True},
    {"self": "excluded", "bias": True, "importance": True},
)


def main() -> None:
    """Run every shape with both schedules, apart and fused, one that does not lie on 16 bytes, and with options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    for b, h, n, d, m, dtype in SHAPES:
        anchors = torch.randn(m, d).to(device).requires_grad_()
        for schedule in SCHEDULES:
            k, v, g = (torch.randn(b, h, n, d).to(dtype).to(device) for _ in range(3))
            out = anchor_attention(k.requires_grad_(), v.requires_grad_(), anchors, schedule=schedule)
            torch.autograd.grad(out, (k, v, anchors), g)
            kv, g = torch.randn(b, n, 2, h, d).to(dtype).to(device), torch.randn(b, n, h, d).to(dtype).to(device)
            out = anchor_attention_fused(kv.requires_grad_(), anchors, schedule=schedule)
            torch.autograd.grad(out, (kv, anchors), g)
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            odd = torch.randn(1 + b * h * n * d).to(dtype).to(device)[1:].view(b, h, n, d)
            anchor_attention(odd, odd, anchors, schedule=schedule)
            print(f"b={b} h={h} n={n} d={d} m={m} {dtype} {schedule}", flush=True)
        for options in OPTIONS if plan_staged.limits(n=n, d=d, m=m, dtype=dtype) is None else ():
            core = attentions.build("anchor:triton", heads=h, head_dim=d, tokens=n, anchors=m, **options).to(device)
            k, v, g = (torch.randn(b, h, n, d).to(dtype).to(device) for _ in range(3))
            out = core(k.requires_grad_(), k, v.requires_grad_())
            torch.autograd.grad(out, (k, v, *core.parameters()), g)
            print(f"b={b} h={h} n={n} d={d} m={m} {dtype} {' '.join(map(str, options))}", flush=True)


if __name__ == "__main__":
    main()
