"""The vision models there are, and what one costs: from the architecture alone, nothing is built. No torch.

    architecture("anchorformer_tiny").tokens(224)    # 198: 14 × 14 patches, class and distillation token

Source: the widths, depths and heads are DeiT's (Touvron et al. 2021, arXiv 2012.12877, table 1); AnchorFormer (Shan et
al. 2025, arXiv 2505.16463) keeps them and replaces the attention.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UsageError, unknown

ANCHORS = 30  # m of the released models, at every size and resolution
CHANNELS, CLASSES, MLP_RATIO = 3, 1000, 4


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A vision transformer: the width of a token, depth and heads, and the side of a patch in pixels."""

    name: str
    width: int
    depth: int
    heads: int
    patch: int = 16

    @property
    def head_dim(self) -> int:
        """d."""
        return self.width // self.heads

    def tokens(self, resolution: int, *, distilled: bool = True) -> int:
        """n for square images of `resolution` pixels: patches, class token and distillation token."""
        return (resolution // self.patch) ** 2 + (2 if distilled else 1)


ARCHITECTURES = {
    model.name: model
    for model in (
        Architecture(name="anchorformer_tiny", width=192, depth=12, heads=3),
        Architecture(name="anchorformer_small", width=384, depth=12, heads=6),
        Architecture(name="anchorformer_base", width=768, depth=12, heads=12),
    )
}


def architecture(name: str) -> Architecture:
    """The model of that name. Raises UsageError with the nearest and all valid names."""
    if name not in ARCHITECTURES:
        raise UsageError(unknown("model", name, ARCHITECTURES))
    return ARCHITECTURES[name]
