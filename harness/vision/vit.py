"""AnchorFormer's vision transformers on timm's, with any registered attention by name.

    model = create("anchorformer_tiny", attention="anchor", anchors=30, distilled=True, img_size=224, num_classes=1000)
    logits = model(images)                                      # (b, 3, 224, 224) → (b, 1000)
    model = create("anchorformer_small", attention="flash", distilled=False, dynamic_img_size=True, drop_path_rate=0.1)
    maps = features(model, images)                              # (b, 3, 512, 640) → (b, 384, 32, 40)

Source: Shan et al. 2025, arXiv 2505.16463, on DeiT (Touvron et al. 2021, arXiv 2012.12877). As released: patch 16,
m=30, a class and a distillation token that take part in the attention, and no bias in the shared projection of
query/key and value. timm is imported as a model is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

import attentions
from attentions.hosts import BlockAttention
from harness.errors import Failure, UsageError, unknown
from harness.vision.models import ANCHORS, ARCHITECTURES, MISSING, PATCH, architecture

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

SET_HERE = ("img_size", "num_classes", "attn_layer", "device", "dtype")  # timm's parameters that create() decides


def names() -> list[str]:
    """The models there are."""
    return list(ARCHITECTURES)


def create(
    name: str, *, attention: str = "anchor", anchors: int = ANCHORS, distilled: bool = True,
    img_size: int | tuple[int, int] = 224, num_classes: int = 1000, **options: Any,
) -> VisionTransformer:  # fmt: skip
    """A timm VisionTransformer (VisionTransformerDistilled) whose blocks compute `attention`, with fresh weights.

    Args:
        name: of `names()`: gives width, depth and heads.
        attention: a variant, or `variant:backend`; anchors: its m, ignored by exact variants.
        distilled: with a distillation token and a second head; the heads' outputs are averaged, unless
            `model.set_distilled_training(True)` asks for both as a pair in training mode.
        img_size: the side, or (height, width), in pixels: fixes the tokens of position embedding and attention.
        num_classes: 0 for no head.
        options: the variant's own (`init="orthogonal"`) and timm's (`drop_path_rate`, `dynamic_img_size`, `in_chans`,
            `patch_size`, `depth`, `embed_dim`, `num_heads`, …). qkv_bias defaults to what was published: False for a
            variant with a shared query and key, True, as DeiT has it, otherwise.

    With `dynamic_img_size=True` the model takes every size that patches divide, its position embedding resampled;
    linformer, whose projections have a column a token, takes up to as many tokens as `img_size` has and says so beyond.

    Raises: UsageError for a name or option that does not exist, AttentionError for the variant's own, Failure without
    timm.
    """
    shape = architecture(name)
    timm_model = _timm_class(distilled=distilled)
    spec = attentions.spec(attention)
    own = {key: value for key, value in options.items() if key in spec.defaults}
    rest = {key: value for key, value in options.items() if key not in spec.defaults}
    valid = _timm_parameters()
    for key in rest:
        if key not in valid:
            raise UsageError(unknown(f"option of {name} with {spec.name}", key, [*spec.defaults, *valid]))
    if rest.get("attn_drop_rate"):
        raise UsageError("attn_drop_rate: no variant drops attention weights; proj_drop_rate and drop_path_rate remain")
    sizes = {
        "embed_dim": shape.width, "depth": shape.depth, "num_heads": shape.heads, "patch_size": PATCH,
        "qkv_bias": not spec.shares_query_key,
    }  # fmt: skip
    sizes |= rest
    tokens = _tokens(img_size, sizes["patch_size"], prefix=2 if distilled else 1)
    tokens += int(rest.get("reg_tokens", 0)) - (0 if rest.get("class_token", True) else 1)
    layer = _layer(attention, anchors=anchors if spec.bottleneck else None, tokens=tokens, options=own)
    return timm_model(img_size=img_size, num_classes=num_classes, attn_layer=layer, **sizes)


def features(
    model: VisionTransformer, images: Float[Tensor, "b channels height width"]
) -> Float[Tensor, "b width rows columns"]:
    """The patches' vectors after the last block and norm as a map: (b, 3, H, W) → (b, width, H/16, W/16).

    For dense tasks: create the model with `dynamic_img_size=True`, and `dynamic_img_pad=True` where sides are no
    multiple of the patch (the map then covers the padded image). Class and distillation tokens take part in the
    attention and are left out of the map.
    """
    return model.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[-1]  # pyright: ignore


def _timm_class(*, distilled: bool) -> Any:
    try:
        from timm.models.deit import VisionTransformerDistilled
        from timm.models.vision_transformer import VisionTransformer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "timm":
            raise
        raise Failure(MISSING) from None
    return VisionTransformerDistilled if distilled else VisionTransformer


def _timm_parameters() -> list[str]:
    """The keywords of timm's VisionTransformer that a caller may set. Raises Failure for a timm without attn_layer."""
    from timm.models.vision_transformer import VisionTransformer

    names = [name for name in inspect.signature(VisionTransformer.__init__).parameters if name != "self"]
    if "attn_layer" not in names:
        raise Failure("this timm has no attn_layer in VisionTransformer: pip install 'attention-harness[vision]'")
    return [name for name in names if name not in SET_HERE]


def _tokens(img_size: int | tuple[int, int], patch: int | tuple[int, int], *, prefix: int) -> int:
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    tall, wide = (patch, patch) if isinstance(patch, int) else patch
    if min(height, width, tall, wide) < 1 or height % tall or width % wide:
        raise UsageError(f"img_size={img_size} is not a multiple of the patch of {patch} pixels")
    return (height // tall) * (width // wide) + prefix


def _layer(attention: str, *, anchors: int | None, tokens: int, options: Mapping[str, Any]) -> type:
    """What timm calls as `attn_layer`: a class that makes plain BlockAttention, its own arguments bound."""

    class Layer:
        def __new__(
            cls, dim: int, num_heads: int, *, qkv_bias: bool, proj_bias: bool, proj_drop: float, qk_norm: bool,
            scale_norm: bool, **timm: Any,
        ) -> Any:  # fmt: skip
            if qk_norm or scale_norm:
                raise UsageError("qk_norm and scale_attn_norm belong to timm's own attention; leave them off")
            layer = BlockAttention(
                dim, num_heads, attention=attention, tokens=tokens, anchors=anchors, qkv_bias=qkv_bias,
                proj_drop=proj_drop, **options,
            )  # fmt: skip
            if not proj_bias:
                layer.output = nn.Linear(dim, dim, bias=False)
            return layer

    return Layer
