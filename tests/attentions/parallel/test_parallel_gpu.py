"""attentions.parallel on one GPU: a group of one rank by NCCL, whose kernels and merging are those of many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

import attentions
from attentions import parallel

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
TOLERANCE = 5e-2  # of bfloat16, gradients included


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    torch.cuda.set_device(0)
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("of", parallel.names())
def test_one_rank_on_a_gpu_computes_the_definition(of: str, group: None) -> None:
    torch.manual_seed(0)
    size = {"heads": 2, "head_dim": 64, "tokens": 300, "anchors": 16}
    core = attentions.build(f"{of}:reference", **size).cuda().double()
    over = attentions.build(of, **size).cuda()
    over.load_state_dict(core.state_dict())
    parallel.parallelise(over.bfloat16())
    core.load_state_dict(over.state_dict())
    whole = [torch.randn(2, 2, 300, 64, device="cuda").bfloat16() for _ in range(4)]
    exact = [tensor.double().requires_grad_() for tensor in whole[:3]]
    mine = [tensor.clone().requires_grad_() for tensor in whole[:3]]
    expected, out = core(*exact), over(*mine)
    expected.backward(whole[3].double())
    out.backward(whole[3])
    pairs = [(out, expected), *[(a.grad, b.grad) for a, b in zip(mine, exact, strict=True)]]
    for got, wanted in pairs:
        assert (got is None) == (wanted is None)
        if got is not None and wanted is not None:
            assert (got.double() - wanted).norm() <= TOLERANCE * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ring_says_what_its_gpu_kernel_takes(dtype: torch.dtype, group: None) -> None:
    over = parallel.parallelise(attentions.build("flash", heads=2, head_dim=64, tokens=64))
    q = torch.zeros(1, 2, 64, 64, device="cuda", dtype=dtype)
    with pytest.raises(attentions.AttentionError, match="in float16 or bfloat16"):
        over(q, q, q)
