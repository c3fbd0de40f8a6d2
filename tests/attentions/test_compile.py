"""torch.compile around a layer: one graph, which holds neither the choice of a backend nor the tests' checker."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

import attentions
from attentions.layer import MultiHeadAttention


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_layer_by_its_bare_name_is_one_graph(variant: Any, dynamic: bool) -> None:
    name = variant.spec.name
    if reason := attentions.why_unavailable(name, device="cpu"):
        pytest.skip(f"{name}: {reason}")
    torch.compiler.reset()
    torch.manual_seed(0)
    layer = MultiHeadAttention(24, 3, attention=name, tokens=10, anchors=4)
    compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=dynamic)
    for b in (2, 3):
        x = torch.randn(b, 10, 24)
        torch.testing.assert_close(compiled(x), layer(x))


def test_what_ran_eagerly_before_is_chosen_again_for_the_graph() -> None:
    seen: list[bool] = []

    def rank(work: attentions.Work, dtype: torch.dtype, device: torch.device) -> tuple[str, ...]:
        seen.append(work.compiled)
        return ("reference",)

    def give(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return 2 * v

    spec = attentions.Spec(name="given", title="twice v", backends=(attentions.Backend("reference", give),), rank=rank)
    attentions.registry._plugins["given"] = spec
    core = attentions.build("given", heads=1, head_dim=4, tokens=8)
    v = torch.randn(1, 1, 8, 4)
    torch.testing.assert_close(core(v, v, v), 2 * v)
    torch.testing.assert_close(torch.compile(core, backend="eager", fullgraph=True)(v, v, v), 2 * v)
    assert seen == [False, True]


def test_shapes_are_checked_outside_graphs_alone() -> None:
    pytest.importorskip("beartype", reason="shapes are enforced where beartype is installed")
    layer = MultiHeadAttention(24, 3, attention="full:reference", tokens=10)
    flat = torch.randn(10, 24)
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        layer(flat)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compile(layer, backend=keep)(torch.randn(2, 10, 24))
    assert len(graphs) == 1
