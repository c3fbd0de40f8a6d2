"""A feature pyramid from the one map of a plain vision transformer.

    backbone = vit.create("anchorformer_tiny", num_classes=0, img_size=512, dynamic_img_size=True)
    pyramid = Pyramid(backbone, width=256)
    maps = pyramid(images)             # (b, 3, 512, 640) → {"2": (b, 256, 128, 160), "3": …, "6": (b, 256, 8, 10)}

Level l has stride patch · 2^(l − 4): 4, 8, 16, 32, 64 pixels for patches of 16.
Source: Li et al. 2022, "Exploring Plain Vision Transformer Backbones for Object Detection", arXiv 2203.16527, section
3: the last map alone is scaled by deconvolutions and pooling, without lateral connections. Ours attends globally in
every block where ViTDet has windows in most of them.
"""

from __future__ import annotations

import math
from typing import Any

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from harness.errors import UsageError
from harness.vision import vit
from harness.vision.models import PATCH

FINEST, COARSEST = 2, 6
NATIVE = 4  # the level of the transformer's own map


class Pyramid(nn.Module):
    """Levels `finest` … `coarsest` of a backbone, `width` channels each.

    The backbone is a model of harness.vision.vit (or timm's VisionTransformer) that takes images of any size.
    Beside the backbone's, the cost is at the finest level: 9 · width² multiplications a place of it.
    """

    def __init__(self, backbone: Any, *, width: int = 256, finest: int = FINEST, coarsest: int = COARSEST) -> None:
        super().__init__()
        if not FINEST <= finest <= NATIVE <= coarsest <= COARSEST:
            raise UsageError(f"levels {finest} … {coarsest}: valid are {FINEST} … {NATIVE} to {NATIVE} … {COARSEST}")
        self.backbone = backbone
        self.out_channels = width  # the name by which torchvision's detectors ask
        self.patch = patch_side(backbone)
        self.levels = tuple(range(finest, coarsest + 1))
        computed = [level for level in self.levels if level < COARSEST]
        self.scales = nn.ModuleDict({str(level): _scaled(backbone.embed_dim, level, width) for level in computed})

    def strides(self) -> tuple[int, ...]:
        """Pixels between neighbours of each level's map."""
        return tuple(self.patch * 2**level // 2**NATIVE for level in self.levels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(b, 3, H, W) → {level: (b, width, H / stride, W / stride)}; H and W multiples of the coarsest stride."""
        native = vit.features(self.backbone, images)
        maps = {level: scale(native) for level, scale in self.scales.items()}
        if COARSEST in self.levels:
            maps[str(COARSEST)] = max_pool2d(maps[str(COARSEST - 1)], kernel_size=1, stride=2)
        return maps


def build_backbone(backbone: str | nn.Module, *, img_size: int, multiple: int, options: dict[str, Any]) -> nn.Module:
    """A model as it is, or one made by name for images of `img_size` made up to a multiple of `multiple` patches."""
    if not isinstance(backbone, str):
        if options:
            raise UsageError(f"{', '.join(options)}: options of a backbone made by name, and this one is made already")
        return backbone
    patch = options.get("patch_size", PATCH)
    side = padded(img_size, (patch if isinstance(patch, int) else max(patch)) * multiple)
    return vit.create(backbone, img_size=side, num_classes=0, dynamic_img_size=True, **options)


def at_least_one(**sizes: int) -> None:
    """Raises UsageError for the first of these that is below 1."""
    for what, value in sizes.items():
        if value < 1:
            raise UsageError(f"{what}={value}: must be at least 1")


def padded(size: int, multiple: int) -> int:
    """The least multiple that is not less than size."""
    return -(-size // multiple) * multiple


def patch_side(backbone: Any) -> int:
    """The side of a backbone's square patches, in pixels."""
    height, width = backbone.patch_embed.patch_size
    if height != width:
        raise UsageError(f"patches of {height}×{width}: the pyramid's strides need square ones")
    return height


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups as the heads' papers have, fewer where they would have under 8 channels: one value has no variance."""
    return nn.GroupNorm(math.gcd(32, max(1, channels // 8)), channels)


def _scaled(dim: int, level: int, width: int) -> nn.Sequential:
    """From the native map to a level: deconvolutions up, or pooling down, then 1×1 and 3×3 convolutions."""
    steps: list[nn.Module] = []
    for number in range(NATIVE - level):
        if number:
            steps += [LayerNorm2d(dim), nn.GELU()]
        steps.append(nn.ConvTranspose2d(dim, dim // 2, kernel_size=2, stride=2))
        dim //= 2
    if level > NATIVE:
        steps.append(nn.MaxPool2d(2**level // 2**NATIVE))
    return nn.Sequential(
        *steps,
        nn.Conv2d(dim, width, kernel_size=1, bias=False), LayerNorm2d(width),
        nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False), LayerNorm2d(width),
    )  # fmt: skip
