"""attentions.parallel on one GPU: a group of one rank by NCCL, whose kernels and merging are those of many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from agreement import disagreements, results

import attentions
from attentions import parallel

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


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
    plain = attentions.build(f"{of}:reference", **size).cuda().bfloat16()
    over, exact = attentions.build(of, **size).cuda().bfloat16(), attentions.build(f"{of}:reference", **size).cuda()
    over.load_state_dict(plain.state_dict())
    exact.double().load_state_dict(plain.state_dict())
    parallel.parallelise(over)
    *inputs, upstream = (torch.randn(2, 2, 300, 64, device="cuda").bfloat16() for _ in range(4))

    def run(core: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return results(core, *(tensor.to(dtype, copy=True).requires_grad_() for tensor in inputs), upstream)

    found, own = run(over, torch.bfloat16), run(plain, torch.bfloat16)
    right = run(exact, torch.float64)
    assert not disagreements(found, own, right, dtype=torch.bfloat16, upstream=upstream)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ring_says_what_its_gpu_kernel_takes(dtype: torch.dtype, group: None) -> None:
    over = parallel.parallelise(attentions.build("flash", heads=2, head_dim=64, tokens=64))
    q = torch.zeros(1, 2, 64, 64, device="cuda", dtype=dtype)
    with pytest.raises(attentions.AttentionError, match="in float16 or bfloat16"):
        over(q, q, q)
