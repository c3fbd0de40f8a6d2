"""A policy takes what was measured to be fastest among equals, and never changes what is computed."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import attentions
from attentions import policy as policies

EXACT = {
    "among": "exact", "m": None, "options": "", "device": "cpu", "machine": "here", "dtype": "float32",
    "phase": "forward", "b": 1, "h": 2, "n": 64, "d": 16, "choice": "flash:torch", "fallback": "full:reference",
    "margin": 3.0, "margin_low": 2.9, "margin_high": 3.1, "ms": 1.0, "contended": "",
}  # fmt: skip
ANCHOR = EXACT | {"among": "anchor", "m": 8, "choice": "anchor:sdpa", "fallback": "anchor:reference"}
SIZE: dict[str, Any] = {"heads": 2, "head_dim": 16, "tokens": 4096}


def written(path: Path, *classes: dict[str, Any], **changes: Any) -> Path:
    document = {"format": "attention-policy", "schema": 1, "classes": list(classes), **changes}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def policy(tmp_path: Path) -> attentions.Policy:
    """Small inputs: full; large ones: flash; gradients: flash; anchors by sdpa, which `triton` would beat on no CPU."""
    classes = [
        EXACT | {"choice": "full:reference", "fallback": "flash:torch"}, EXACT | {"n": 1024},
        EXACT | {"phase": "train", "choice": "flash:reference"}, ANCHOR, ANCHOR | {"options": "init=paper", "n": 256},
        ANCHOR | {"n": 1024, "choice": "anchor:triton"},
    ]  # fmt: skip
    return attentions.Policy(written(tmp_path / "policy.json", *classes))


def inputs(n: int, *, b: int = 1, dtype: torch.dtype = torch.float32, grad: bool = False) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(n)
    return [torch.randn(b, 2, n, 16, generator=source).to(dtype).requires_grad_(grad) for _ in range(3)]


def taken(core: Any) -> list[str]:
    return [line.split(": ", 1)[1].split(",")[0] for line in policies.says(core)]


@pytest.mark.parametrize("asked", ["flash", "full", "xformers"])
def test_exact_variants_stand_in_for_each_other(policy: attentions.Policy, asked: str) -> None:
    core = policy.build(asked, **SIZE)
    for n in (64, 100, 1024, 700):
        q, k, v = inputs(n)
        out = core(q, k, v)
        expected = torch.softmax(q.double() @ k.double().mT / 4, dim=-1) @ v.double()
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    assert taken(core) == ["full:reference", "full:reference", "flash:torch", "flash:torch"]
    assert policies.says(core)[0] == (
        "b=1 h=2 n=64 d=16 float32 forward on cpu: full:reference, 3× as fast as flash:torch, "
        "measured at b=1 h=2 n=64 d=16"
    )


def test_parameters_that_want_gradients_make_it_a_training_step(policy: attentions.Policy) -> None:
    core = policy.build("anchor", anchors=8, **SIZE)
    core(*inputs(64))
    (line,) = policies.says(core)
    assert line.startswith("b=1 h=2 n=64 d=16 float32 train on cpu: anchor:")
    assert "what the bare name takes: no class" in line


def test_gradients_are_those_of_the_function(policy: attentions.Policy) -> None:
    core = policy.build("full", **SIZE)
    q, k, v = inputs(64, grad=True)
    core(q, k, v).square().sum().backward()
    mine = [x.grad for x in (q, k, v)]
    q, k, v = inputs(64, grad=True)
    (torch.softmax(q @ k.mT / 4, dim=-1) @ v).square().sum().backward()
    for own, other in zip(mine, (q, k, v), strict=True):
        torch.testing.assert_close(own, other.grad, rtol=1e-4, atol=1e-5)
    assert taken(core) == ["flash:reference"]


@torch.no_grad()
def test_the_backends_of_a_variant_keep_its_parameters_and_values(policy: attentions.Policy) -> None:
    core = policy.build("anchor", anchors=8, **SIZE)
    plain = attentions.build("anchor:reference", anchors=8, **SIZE)
    assert dict(plain.state_dict()).keys() == dict(core.state_dict()).keys()
    plain.load_state_dict(core.state_dict())
    for n in (64, 40, 1024):
        q, k, v = inputs(n)
        torch.testing.assert_close(core(q, k, v), plain(q, k, v), rtol=1e-5, atol=1e-5)
    assert taken(core)[:2] == ["anchor:sdpa", "anchor:sdpa"]
    line = policies.says(core)[2]  # triton runs on no CPU: the next best of that class does
    assert "anchor:reference, the next best, measured at b=1 h=2 n=1024 d=16; anchor:triton " in line


@torch.no_grad()
def test_other_options_and_m_are_other_functions(policy: attentions.Policy) -> None:
    for more in ({"anchors": 16}, {"anchors": 8, "logits": "cosine"}):
        core = policy.build("anchor", **SIZE, **more)
        core(*inputs(64))
        (line,) = policies.says(core)
        assert line.endswith("what the bare name takes: no class of its device, precision, phase and size")
    core = policy.build("anchor", anchors=8, init="paper", **SIZE)
    core(*inputs(200))
    assert taken(core) == ["anchor:sdpa"]


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 64), torch.float64), ((1, 8), torch.float32), ((1, 4097), torch.float32),
                         ((64, 64), torch.float32), ((0, 64), torch.float32)],
)  # fmt: skip
def test_what_is_far_from_every_class_takes_what_the_bare_name_takes(
    policy: attentions.Policy, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    core = policy.build("flash", heads=2, head_dim=16, tokens=5000)
    b, n = shape
    q, k, v = inputs(n, b=b, dtype=dtype)
    torch.testing.assert_close(core(q, k, v), attentions.build("flash", heads=2, head_dim=16, tokens=5000)(q, k, v))
    (line,) = policies.says(core)
    assert ": flash:torch, what the bare name takes: no class" in line


@torch.no_grad()
def test_a_policy_cannot_change_the_function(tmp_path: Path) -> None:
    """Whatever a file says, an exact variant stays exact, and anchors of m stay that."""
    classes = [EXACT | {"choice": "linear:reference", "fallback": "none:reference"},
               ANCHOR | {"choice": "full:reference", "fallback": "nowhere:at_all"}]  # fmt: skip
    policy = attentions.Policy(written(tmp_path / "p.json", *classes))
    q, k, v = inputs(64)
    core = policy.build("full", **SIZE)
    torch.testing.assert_close(core(q, k, v), torch.softmax(q @ k.mT / 4, dim=-1) @ v)
    assert "linear:reference does not compute the same as full here; none:reference does not" in policies.says(core)[0]
    core = policy.build("anchor", anchors=8, **SIZE)
    plain = attentions.build("anchor:reference", anchors=8, **SIZE)
    plain.load_state_dict(core.state_dict())
    torch.testing.assert_close(core(q, k, v), plain(q, k, v), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_core_is_copied_saved_and_compiled(policy: attentions.Policy) -> None:
    core = policy.build("anchor", anchors=8, **SIZE)
    q, k, v = inputs(64)
    expected = core(q, k, v)
    for other in (copy.deepcopy(core), pickle.loads(pickle.dumps(core))):
        torch.testing.assert_close(other(q, k, v), expected)
        assert taken(other) == ["anchor:sdpa"]
    compiled = torch.compile(policy.build("full", **SIZE), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), torch.softmax(q @ k.mT / 4, dim=-1) @ v, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_layer_takes_such_a_core(policy: attentions.Policy) -> None:
    layer = attentions.MultiHeadAttention(32, 2, attention="anchor", tokens=64, anchors=8)
    expected = layer(x := torch.randn(1, 64, 32))
    core = policy.build("anchor", heads=2, head_dim=16, tokens=64, anchors=8)
    core.load_state_dict(layer.core.state_dict())
    layer.core = core
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert taken(layer.core) == ["anchor:sdpa"]


def test_names_and_cores_that_leave_nothing_to_choose_are_refused(policy: attentions.Policy) -> None:
    with pytest.raises(attentions.AttentionError, match="'flash:torch' names a backend, which a policy chooses"):
        policy.build("flash:torch", **SIZE)
    with pytest.raises(attentions.AttentionError, match="unknown attention 'flush'"):
        policy.build("flush", **SIZE)
    with pytest.raises(attentions.AttentionError, match="unknown option of flash 'windows'"):
        policy.build("flash", windows=3, **SIZE)
    with pytest.raises(attentions.AttentionError, match="Linear was not built by a policy"):
        policies.says(torch.nn.Linear(1, 1))


def spoiled(**changes: Any) -> str:
    return json.dumps({"format": "attention-policy", "schema": 1, "classes": [EXACT | changes]})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON: it nests too deep"),
        ('{"a": NaN}', "NaN is no number"),
        ("[]", "is no policy: harness recommend RUN --emit"),
        ('{"attention": "flash"}', "is no policy"),
        ('{"format": "attention-policy", "schema": 2}', "has schema '2'; this version reads 1"),
        ('{"format": "attention-policy", "schema": 1, "classes": []}', "classes is no list of 1 to 10000"),
        ('{"format": "attention-policy", "schema": 1, "classes": [3]}', r"classes\[0\] is no object"),
        (spoiled(n=0), r"classes\[0\].n is '0', not a whole number from 1"),
        (spoiled(n=True), r"n is 'True', not a whole number"),
        (spoiled(b=1.5), r"b is '1.5', not a whole number"),
        (spoiled(h=10**400), r"h is '1000.*not a whole number"),
        (spoiled(m="8"), r"m is '8', not a whole number"),
        (spoiled(choice="../x"), r"choice is '../x', not the name"),
        (spoiled(choice=None), r"choice is 'None', not a short text"),
        (spoiled(device="c" * 201), "not a short text"),
        (spoiled(margin=-1), "margin is '-1', not a number more than 0"),
        (spoiled().replace("3.0", "1e999"), "margin is 'inf', not a number"),
        (" " * (1 << 20) + "{}", "has more than 1048576 bytes"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_clear_error(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(attentions.AttentionError, match=told) as error:
        attentions.Policy(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(attentions.AttentionError, match="no such file"):
            attentions.Policy(path)
    (tmp_path / "p.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(attentions.AttentionError, match="is not valid JSON"):
        attentions.Policy(tmp_path / "p.json")
