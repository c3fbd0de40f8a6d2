"""The vision transformer inside every task's model: options that describe it, and its construction.

class Options(Backbone): ...                 # a task's options: these and its own
vit = build(options, mechanism, classes=10)  # harness.vision.vit.create, weights from a file where asked for
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from harness.errors import UsageError
from harness.vision import checkpoint, vit
from harness.vision.task import Mechanism, Options


class Backbone(Options):
    """What every task's transformer has.

    model: of harness.vision.vit.names(); width, depth, heads and patch override it. size: side of the images.
    drop_path: the share of dropped paths in the last block, rising linearly from 0 in the first. position: standard
    deviation of the fresh position embedding; None is timm's 0.02. weight_init: how the other weights start,
    by timm's name: truncated normals of 0.02 by default, for widths of some hundred; jax, Xavier's, suits narrow
    models. weights: a checkpoint to start from.
    """

    model: str = "anchorformer_tiny"
    size: int = Field(default=224, ge=1, le=1 << 14)
    patch: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    depth: int | None = Field(default=None, ge=1, le=1000)
    heads: int | None = Field(default=None, ge=1)
    distilled: bool = False
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    position: float | None = Field(default=None, gt=0)
    weight_init: Literal["", "jax", "moco"] = ""
    weights: str = ""


def build(options: Backbone, mechanism: Mechanism, *, classes: int, **timm: Any) -> nn.Module:
    """The transformer; classes=0 for no head. Raises UsageError and AttentionError for what cannot be."""
    sizes = {
        "patch_size": options.patch,
        "embed_dim": options.width,
        "depth": options.depth,
        "num_heads": options.heads,
    }
    try:
        model = vit.create(
            options.model, attention=mechanism.attention, anchors=mechanism.anchors, distilled=options.distilled,
            img_size=options.size, num_classes=classes, drop_path_rate=options.drop_path,
            weight_init=options.weight_init,
            **{name: value for name, value in sizes.items() if value is not None}, **mechanism.options, **timm,
        )  # fmt: skip
    except (AssertionError, ZeroDivisionError) as error:  # timm's own way to refuse sizes
        raise UsageError(f"{options.model} cannot be built with {sizes}: {error}") from None
    if options.position is not None:
        nn.init.normal_(_tensor(model, "pos_embed"), std=options.position)
    if options.weights:
        _start_from(model, Path(options.weights))
    return model


def _start_from(model: nn.Module, path: Path) -> None:
    """Take over every tensor that fits, the position embedding resampled; another task's head stays fresh.

    Of a run with averaged weights those: they are what its accuracy is that of.
    Raises UsageError where a tensor of a block is absent or has another shape: it would start from noise unnoticed.
    """
    from timm.layers import resample_abs_pos_embed

    parts, facts = checkpoint.load(path)
    found = _transformer(checkpoint.judged(parts))
    own = model.state_dict()
    for name in ("pos_embed",):
        if name in found and found[name].shape != own[name].shape:
            grid = _tensor(model, "patch_embed").grid_size
            found[name] = resample_abs_pos_embed(
                found[name], new_size=list(grid), num_prefix_tokens=_tensor(model, "num_prefix_tokens")
            )
    kept = {name: tensor for name, tensor in found.items() if name in own and tensor.shape == own[name].shape}
    lost = sorted(name for name in own if name not in kept and not name.startswith(("head", "fc_norm")))
    if lost:
        trained = facts["plan"]["mechanism"]["attention"]
        raise UsageError(
            f"weights {path} (trained with {trained}) do not fit this model: {lost[0]} and {len(lost) - 1} more "
            "tensors are absent or have another shape; use the same architecture, attention and anchors"
        )
    model.load_state_dict(kept, strict=False)


def _transformer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformer's own tensors, out of whatever model it was trained in: `….blocks.0.…` → `blocks.0.…`."""
    start = next((name.partition("patch_embed.")[0] for name in tensors if "patch_embed." in name), "")
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _tensor(model: nn.Module, name: str) -> Any:
    return getattr(model, name)
