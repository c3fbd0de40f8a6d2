"""What a plugin offers, file or package: Specs, or cores, layers and models by their shape; and what it is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import attentions
from attentions import plugins, registry

LAYERS = """
import torch
from torch import nn
from torch.nn import Linear

class Plain(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.inner, self.depth = nn.Linear(width, width), depth
    def forward(self, x):
        return self.inner(x)

class Anchored(Plain):
    def __init__(self, dim, heads, *, tokens, anchors):
        super().__init__(dim, heads)
        self.tokens, self.anchors = tokens, anchors

class Configured(nn.Module):
    def __init__(self, config): ...

class Core(nn.Module):
    def __init__(self, dim, heads): ...
    def forward(self, q, k, v): ...

class Bare(nn.Module): ...
class Plan: ...
Built = lambda dim, num_heads: nn.Sequential(Linear(dim, dim))
Wrong = lambda dim, heads: "no module"
_Hidden = Plain
def helper(x): ...
"""
SIZE = attentions.Size(heads=3, head_dim=4, tokens=9, anchors=5)


@pytest.fixture(autouse=True)
def _forget_plugins() -> Iterator[None]:
    before, loaded = (dict(registry._plugins), dict(registry._makers)), set(sys.modules)
    yield
    for table, known in zip((registry._plugins, registry._makers), before, strict=True):
        table.clear()
        table.update(known)
    for name in set(sys.modules) - loaded:
        if name.partition(".")[0] in ("attentions_plugin_my", "parcel"):
            del sys.modules[name]


def load(folder: Path, text: str, name: str = "my.py") -> list[str]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return attentions.load_plugin(path)


def layer(name: str) -> torch.nn.Module:
    build = attentions.spec(name).backend(registry.split(name)[1] or "").layer
    assert build is not None
    return build(SIZE)


def test_layers_are_the_modules_that_the_file_defines(tmp_path: Path) -> None:
    assert load(tmp_path, LAYERS) == ["my"]
    spec = attentions.spec("my")
    assert [b.name for b in spec.backends] == ["Plain", "Anchored", "Configured", "Core", "Bare", "Built", "Wrong"]
    plain, anchored = layer("my:Plain"), layer("my:Anchored")
    assert (plain.inner.in_features, plain.depth) == (12, 3)
    assert (anchored.tokens, anchored.anchors) == (9, 5)
    assert layer("my:Built")(torch.ones(2, 9, 12)).shape == (2, 9, 12)
    with pytest.raises(attentions.AttentionError, match=r"made a str, not a torch.nn.Module; a layer is"):
        layer("my:Wrong")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("my:Configured", "cannot be built as Layer(dim, heads): "),
        ("my:Bare", "has no __init__ that takes dim and heads"),
        ("my:Core", "cannot be called with x alone: missing a required argument: 'k'"),
    ],
)
def test_a_wrong_signature_is_answered_with_what_a_layer_looks_like(tmp_path: Path, name: str, why: str) -> None:
    load(tmp_path, LAYERS)
    said = attentions.why_unavailable(name, device="cpu")
    assert said is not None
    assert said.startswith(why)
    assert "a layer is a torch.nn.Module built as Layer(dim, heads)" in said
    assert attentions.why_unavailable("my:Plain", device="cpu") is None


def test_a_layer_is_no_core(tmp_path: Path) -> None:
    load(tmp_path, LAYERS)
    with pytest.raises(
        attentions.AttentionError, match="my is a whole layer, with projections of its own, and no core"
    ):
        attentions.MultiHeadAttention(12, 3, attention="my:Plain", tokens=9, anchors=5)


def test_plain_functions_are_cores(tmp_path: Path) -> None:
    text = "def Mean(q, k, v, *, shift=0):\n    return v.mean(-2, keepdim=True).expand_as(v) + shift\n"
    assert load(tmp_path, text + "def other(query, key, value): return value\ndef no(q, k, w): ...\n") == [
        "mean",
        "other",
    ]
    v = torch.randn(1, 2, 6, 4)
    out = attentions.build("mean", heads=2, head_dim=4, tokens=6)(v, v, v)
    torch.testing.assert_close(out, v.mean(dim=-2, keepdim=True).expand_as(v))


def test_a_file_with_a_spec_offers_no_functions_or_layers_beside_it(tmp_path: Path) -> None:
    text = LAYERS + (
        "from attentions import Backend, Spec\n"
        "def mine(q, k, v): return v\n"
        "SPEC = Spec(name='own', title='x', backends=(Backend('reference', mine),))\n"
    )
    assert load(tmp_path, text) == ["own"]
    assert "my" not in attentions.names()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def attend(x): ...", r"no core or layer \(attend\(x\) is neither\): a core is a function f\(q, k, v\)"),
        ("from torch import nn\nclass A(nn.Module):\n    def __init__(self, c): ...", r"\(A cannot be built as Layer"),
        ("import beside", r"it imports beside, which lies beside it.* make the folder a package"),
    ],
)
def test_nothing_to_measure(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "beside.py").touch()
    with pytest.raises(attentions.AttentionError, match=said):
        load(tmp_path, text)


def test_functions_that_make_models_have_their_name(tmp_path: Path) -> None:
    text = "from torch import nn\ndef tiny(): return nn.Linear(2, 2)\ndef sided(resolution, depth=2): ...\n"
    assert load(tmp_path, text) == []
    assert isinstance(registry.maker("my:tiny")(), torch.nn.Linear)
    with pytest.raises(attentions.AttentionError, match="unknown model of a plugin 'my:tinny'; did you mean 'my:tiny'"):
        registry.maker("my:tinny")


def test_the_files_of_a_package_import_each_other_and_are_loaded_anew(tmp_path: Path) -> None:
    load_parts = "from .parts import Plain\n"
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "parts.py").write_text("import parcel.more\n" + LAYERS)
    (tmp_path / "parcel" / "more.py").write_text("VALUE = 1\n")
    (tmp_path / "parcel" / "__init__.py").write_text(load_parts)
    assert attentions.load_plugin(tmp_path / "parcel") == ["parcel"]
    assert [b.name for b in attentions.spec("parcel").backends] == ["Plain"]
    assert sys.modules["parcel.more"].VALUE == 1
    (tmp_path / "parcel" / "more.py").write_text("VALUE = 200\n")
    assert attentions.load_plugin(str(tmp_path / "parcel")) == ["parcel"]
    assert sys.modules["parcel.more"].VALUE == 200


def test_a_package_may_not_take_the_name_of_another(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    with pytest.raises(attentions.AttentionError, match=r"`import torch` already means .*give the folder another name"):
        attentions.load_plugin(tmp_path / "torch")
    assert sys.modules["torch"] is torch


def test_a_plugin_is_called_by_its_file() -> None:
    assert [plugins.stem(Path(name)) for name in ("my.py", "a/My-attention.py", "pack")] == [
        "my", "my_attention", "pack"
    ]  # fmt: skip
