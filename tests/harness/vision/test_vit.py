"""The vision transformers: sizes and costs as published, every attention by name, other resolutions, clear refusals."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest

pytest.importorskip("timm", reason="vision models need timm: pip install 'attention-harness[vision]'")

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import attentions
from attentions import AttentionError, Unavailable, counting
from attentions.hosts import BlockAttention
from harness.errors import Failure, UsageError
from harness.vision import models, vit

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 64, "num_classes": 5, "anchors": 4}


def small(attention: str = "anchor", **changes: Any) -> VisionTransformer:
    """Two blocks of width 48; 16 patches of 64 × 64 pixels."""
    torch.manual_seed(0)
    return vit.create("anchorformer_tiny", attention=attention, **{**SMALL, **changes}).eval()


def images(side: int = 64, wide: int | None = None) -> Tensor:
    return torch.randn(2, 3, side, wide or side, generator=torch.Generator().manual_seed(1))


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def counted(name: str, *, side: int = 224, **how: Any) -> tuple[nn.Module, int]:
    """The model on the meta device, where nothing is computed, and the multiply-adds that the dispatcher sees."""
    with torch.device("meta"), torch.no_grad():
        model = vit.create(name, img_size=side, **how)
        flops = counting.counted(lambda: model(torch.empty(1, 3, side, side)))
    return model, flops // 2


@pytest.mark.parametrize(
    ("name", "millions", "gmac"),
    [("tiny", 5.48, 1.03), ("small", 20.68, 4.00), ("base", 80.26, 15.70)],
)
def test_size_and_cost_as_released(name: str, millions: float, gmac: float) -> None:
    """Distilled, m = 30, at 224²: matrix products and the patches' convolution. small is 3.9946 GMAC."""
    model, macs = counted(f"anchorformer_{name}", attention="anchor:reference")
    assert round(size(model) / 1e6, 2) == millions
    assert macs / 1e9 == pytest.approx(gmac, abs=0.006)


@pytest.mark.parametrize(
    ("name", "millions", "gmac"),
    [("tiny", 5.72, 1.26), ("small", 22.05, 4.61), ("base", 86.57, 17.58)],
)
def test_with_softmax_attention_it_is_timms_deit(name: str, millions: float, gmac: float) -> None:
    """timm's figures count each of the 25 LayerNorms as 5 multiply-adds an element beside the products (fvcore)."""
    model, macs = counted(f"anchorformer_{name}", attention="full", distilled=False)
    assert round(size(model) / 1e6, 2) == millions
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    shape = models.architecture(f"anchorformer_{name}")
    assert len(norms) == 25
    normalising = 5 * len(norms) * shape.width * shape.tokens(224, distilled=False)
    assert round((macs + normalising) / 1e9, 2) == gmac


@pytest.mark.parametrize("distilled", [True, False])
@pytest.mark.parametrize(("attention", "m"), [("anchor", 30), ("full", None)])
def test_the_formula_counts_what_the_dispatcher_counts(attention: str, m: int | None, distilled: bool) -> None:
    _, macs = counted("anchorformer_tiny", attention=f"{attention}:reference", distilled=distilled, side=384)
    shape, spec = models.architecture("anchorformer_tiny"), attentions.spec(attention)
    core = spec.cost(1, 3, shape.tokens(384, distilled=distilled), 64, m).flops
    shared = spec.shares_query_key
    assert shape.flops(384, b=1, phase="forward", core=core, shared=shared, distilled=distilled) == 2 * macs


@pytest.mark.parametrize("attention", attentions.names())
def test_every_attention_by_name(attention: str) -> None:
    """Output finite, every parameter of the model in the graph but what the variant's definition ignores."""
    usable = attentions.why_unavailable(attention, device="cpu") is None
    model = small(attention if usable else f"{attention}:reference").train()
    assert all(isinstance(block.attn, BlockAttention) for block in model.blocks)
    out = model(images())
    assert out.shape == (2, 5)
    out.square().sum().backward()
    assert torch.isfinite(out).all()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_backend_by_name() -> None:
    model = small("anchor:reference", init="orthogonal", scale=2.0)
    with torch.no_grad():
        torch.testing.assert_close(model(images()), copy.deepcopy(model)(images()))
    anchors: Any = model.blocks[0].attn.core.anchors  # type: ignore[union-attr]
    torch.testing.assert_close(anchors @ anchors.mT, 4 * torch.eye(4), atol=1e-5, rtol=0)
    if not torch.cuda.is_available():
        with pytest.raises(Unavailable, match="CUDA"):
            small("flash:cudnn")


@pytest.mark.parametrize("attention", ["anchor", "full", "linformer"])
@pytest.mark.parametrize("token", ["cls_token", "dist_token"])
def test_class_and_distillation_tokens_take_part_in_the_attention(attention: str, token: str) -> None:
    """What either holds reaches every patch."""
    model = small(attention, scale=30.0) if attention == "anchor" else small(attention)
    with torch.no_grad():
        before = vit.features(model, images())
        nn.init.normal_(getattr(model, token))
        moved = (vit.features(model, images()) - before).abs().amax(dim=1)
    assert moved.min() > 0


def test_heads_are_averaged_or_a_pair() -> None:
    model = small(distilled=True).train()
    assert model(images()).shape == (2, 5)
    model.set_distilled_training(True)
    first, second = model(images())
    assert first.shape == second.shape == (2, 5)
    assert isinstance(model, VisionTransformerDistilled)
    assert not isinstance(small(distilled=False), VisionTransformerDistilled)


@pytest.mark.parametrize("attention", ["anchor", "flash", "nystrom", "none"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 48), (128, 160)])
def test_features_of_any_size(attention: str, height: int, width: int) -> None:
    model = small(attention, dynamic_img_size=True, num_classes=0)
    with torch.no_grad():
        assert vit.features(model, images(height, width)).shape == (2, 48, height // 16, width // 16)


def test_features_are_the_patches_in_their_places() -> None:
    """Row by row as the image is: with attention removed, only the map's own column sees a changed patch most."""
    model = small("none", dynamic_img_size=True)
    one, other = images(64, 96), images(64, 96)
    other[:, :, 32:48, 64:80] += 5.0
    with torch.no_grad():
        moved = (vit.features(model, other) - vit.features(model, one)).norm(dim=1).mean(dim=0)
    assert divmod(int(moved.argmax()), 6) == (2, 4)


def test_padded_features() -> None:
    model = small("anchor", dynamic_img_size=True, dynamic_img_pad=True)
    with torch.no_grad():
        assert vit.features(model, images(70, 100)).shape == (2, 48, 5, 7)


def test_linformer_takes_what_it_was_built_for_and_says_so() -> None:
    model = small("linformer", dynamic_img_size=True)
    with torch.no_grad():
        assert vit.features(model, images(48)).shape == (2, 48, 3, 3)
        with pytest.raises(AttentionError, match="38 tokens and the projection was built for at most 18"):
            model(images(96))


@pytest.mark.parametrize("attention", ["full", "flash"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [VisionTransformer, VisionTransformerDistilled])
def test_swapped_into_timms_model_it_computes_the_same(attention: str, bias: bool, kind: Any) -> None:
    """And the swapped weights are those of `create`: a trained DeiT loads into it."""
    torch.manual_seed(0)
    given = {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 5, "qkv_bias": bias}
    model = kind(**given).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        before = model(images())
        report = attentions.swap(model, attention)
        torch.testing.assert_close(model(images()), before, rtol=1e-4, atol=1e-4)
        made = small(attention, qkv_bias=bias, distilled=kind is VisionTransformerDistilled)
        made.load_state_dict(model.state_dict())
        torch.testing.assert_close(made(images()), before, rtol=1e-4, atol=1e-4)
    assert [module.was for module in report.modules] == ["Attention", "Attention"]


def test_anchors_in_a_trained_vit() -> None:
    """timm tells its tokens itself; what the blocks' norms, MLPs and heads learned stays as it is."""
    torch.manual_seed(0)
    model = VisionTransformer(img_size=64, depth=2, embed_dim=48, num_heads=3, num_classes=5)
    kept = {name: p.clone() for name, p in model.named_parameters() if ".attn." not in name}
    report = attentions.swap(model, "linformer", anchors=4)
    assert report.modules[0].fresh == ("key_projection (4, 17)", "value_projection (4, 17)")
    assert all(torch.equal(dict(model.named_parameters())[name], old) for name, old in kept.items())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"name": "anchorformer_tinny"}, UsageError, "did you mean 'anchorformer_tiny'"),
        ({"attention": "anchr"}, AttentionError, "did you mean 'anchor'"),
        ({"drop_path": 0.1}, UsageError, "unknown option of anchorformer_tiny with anchor 'drop_path'; did you mean"),
        ({"init": "papr"}, AttentionError, "init='papr' is not valid"),
        ({"anchors": 0}, AttentionError, "at least 1"),
        ({"img_size": 100}, UsageError, "img_size=100 is not a multiple of the patch of 16 pixels"),
        ({"num_heads": 5}, AttentionError, "heads must divide"),
        ({"qk_norm": True}, UsageError, "qk_norm"),
        ({"attn_drop_rate": 0.1}, UsageError, "no variant drops attention weights"),
    ],
)
def test_what_cannot_be_is_answered(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vit.create(**{"name": "anchorformer_tiny", **SMALL, **given})


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.models.deit", None)
    with pytest.raises(Failure, match=r"pip install 'attention-harness\[vision\]'"):
        small()


def test_no_variant_has_an_option_that_timm_has() -> None:
    """create() tells them apart by name."""
    taken = set(vit._timm_parameters())
    assert {name: sorted(taken & set(attentions.spec(name).defaults)) for name in attentions.names()} == {
        name: [] for name in attentions.names()
    }


@pytest.mark.parametrize(
    ("options", "spread"),
    [({}, 1.1), ({"init": "paper"}, 0.020), ({"weight_init": "jax"}, 3.3), ({"embed_dim": 64, "num_heads": 4}, 0.64)],
    ids=str,
)
def test_logits_inside_a_fresh_model_spread_as_the_page_says(options: dict[str, Any], spread: float) -> None:
    """docs/anchor.md: by the linear layers' start, not by that of the anchors alone."""
    torch.manual_seed(0)
    model: Any = vit.create(
        "anchorformer_tiny", attention="anchor:reference", anchors=30, img_size=96, depth=3, **options
    )
    found: list[float] = []

    def look(core: Any, inputs: tuple[Tensor, ...]) -> None:
        found.append((inputs[1] @ core.anchors.T / inputs[1].shape[-1] ** 0.5).std().item())

    for block in model.blocks:
        block.attn.core.register_forward_pre_hook(look)
    with torch.no_grad():
        model(torch.randn(2, 3, 96, 96))
    assert found == pytest.approx([spread] * 3, rel=0.06)
