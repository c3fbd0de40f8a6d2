"""Packages that others ship: found without an import, and asked by a small case for what they can do."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attentions
from attentions.shipped import Package, cannot, trial

CPU, FORWARD, TRAIN = torch.device("cpu"), *(attentions.Work(b=1, h=1, n=8, d=8, phase=x) for x in ("forward", "train"))


class ForwardOnly(torch.autograd.Function):
    """Softmax attention as a wheel without backward kernels has it: it fails in backward, and in float16."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.dtype == torch.float16:
            raise RuntimeError("This flash attention build does not support FP16.")
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("This flash attention build does not support backward.")


def forward_only(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ForwardOnly.apply(q, k, v)


def broken(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    raise RuntimeError("no kernel image\nfor this device")


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda q, k, v: q * 0 + v, None),
        (lambda q, k, v: v, "is installed and fails forward and backward in float32 on cpu: .*does not require grad"),
        (broken, "is installed and fails forward and backward in float32 on cpu: RuntimeError: no kernel image$"),
        (lambda q, k, v: q * 0 + 2, "is installed and gives wrong results forward and backward in float32 on cpu"),
        (lambda q, k, v: q * float("nan"), "wrong results"),
    ],
)
def test_a_trial_says_what_went_wrong(compute: Any, message: str | None) -> None:
    found = trial(compute, CPU, torch.float32, backward=True)
    assert (found is None) if message is None else re.search(message, str(found))


def test_a_trial_is_made_once_and_leaves_random_numbers_and_gradients_as_they_are() -> None:
    calls: list[bool] = []

    def compute(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return q * 0 + v

    state = torch.get_rng_state()
    with torch.inference_mode():
        assert trial(compute, CPU, torch.float32, backward=True) is None
    assert trial(compute, CPU, torch.float32, backward=True) is None
    assert trial(compute, CPU, torch.float32) is None
    assert calls == [True, False]
    assert torch.equal(torch.get_rng_state(), state)


def test_each_phase_and_precision_is_tried_for_itself() -> None:
    assert cannot(forward_only, FORWARD, torch.bfloat16, CPU) is None
    assert "support backward" in str(cannot(forward_only, TRAIN, torch.bfloat16, CPU))
    assert "support FP16" in str(cannot(forward_only, FORWARD, torch.float16, CPU))


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def able(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)


def deaf(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@pytest.mark.parametrize("phase", ["forward", "train"])
def test_each_problem_is_tried_for_itself(phase: str) -> None:
    def said(compute: Any, **problem: Any) -> str:
        work = attentions.Work(b=1, h=4, n=64, d=64, phase=phase, **problem)
        return str(cannot(compute, work, torch.float32, CPU))

    for problem in ({}, {"causal": True}, {"kv_heads": 2}, {"kv_tokens": 9}, {"causal": True, "kv_heads": 1}):
        assert said(able, **problem) == "None"
    assert said(plain, kv_tokens=9) == "None"
    assert "in float32 on cpu causal: TypeError: " in said(plain, causal=True)
    assert "in float32 on cpu with grouped heads: RuntimeError: " in said(plain, kv_heads=2)
    assert said(deaf, kv_heads=2) == "None"
    assert "gives wrong results" in said(deaf, causal=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_what_a_device_that_is_not_here_can_do_is_untold() -> None:
    assert cannot(broken, TRAIN, torch.bfloat16, torch.device("cuda")) is None


def test_a_backend_with_a_forward_pass_alone_runs_it_and_leaves_the_rest_to_others() -> None:
    """Named, it is unsupported for a backward pass, with the kernel's own words; by the bare name the next one runs."""

    def limits(work: attentions.Work, dtype: torch.dtype, device: torch.device) -> str | None:
        return cannot(forward_only, work, dtype, device)

    missing = partial(trial, forward_only, dtype=torch.bfloat16)
    backends = (
        attentions.Backend("wheel", forward_only, missing=missing, limits=limits),
        attentions.Backend("reference", torch.nn.functional.scaled_dot_product_attention),
    )
    attentions.registry._plugins["half"] = attentions.Spec(name="half", title="x", backends=backends)
    assert attentions.why_unavailable("half:wheel", device="cpu") is None
    case = {"device": "cpu", "dtype": torch.bfloat16}
    assert attentions.resolve("half:wheel", **case, work=FORWARD).name == "wheel"
    with pytest.raises(attentions.Unavailable, match=r"fails forward and backward in bfloat16 on cpu: .* backward"):
        attentions.resolve("half:wheel", **case, work=TRAIN)
    assert attentions.resolve("half", **case, work=FORWARD).name == "wheel"
    assert attentions.resolve("half", **case, work=TRAIN).name == "reference"
    core = attentions.build("half", heads=1, head_dim=8, tokens=8)
    q = torch.randn(1, 1, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    core(q, q, q).sum().backward()
    with torch.no_grad():
        core(q, q, q)
    assert [backend.name for backend in core.compute.chosen.values()] == ["reference", "wheel"]


def test_a_package_is_found_without_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-attn-4 alone leaves a folder flash_attn that is no package of its own."""
    for file in ("whole/__init__.py", "parent/part/__init__.py", "parent/file.py"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise ImportError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    there = {module: Package("x", module, "pip install x").is_installed() for module in (
        "whole", "parent", "parent.part", "parent.file", "parent.absent", "absent", "absent.part",
    )}  # fmt: skip
    assert there == {
        "whole": True, "parent": False, "parent.part": True, "parent.file": True, "parent.absent": False,
        "absent": False, "absent.part": False,
    }  # fmt: skip
    assert not {"whole", "parent"} & set(sys.modules)


def test_a_package_says_how_to_get_it() -> None:
    assert str(Package("x", "x", "pip install x")) == "x: pip install x"
    assert str(Package("x", "x", "pip install x", "forward only")) == "x (forward only): pip install x"
