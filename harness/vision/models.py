"""The vision models there are, and what one costs: from the architecture alone, nothing is built. No torch.

    tiny = architecture("anchorformer_tiny")
    tiny.tokens(224)                                                   # 198: 14 × 14 patches and two tokens beside
    tiny.flops(224, b=1, phase="forward", core=6 * 198 * 30 * 192, shared=True) / 2e9        # 1.03 GMAC

Source: the widths, depths and heads are DeiT's (Touvron et al. 2021, arXiv 2012.12877, table 1); AnchorFormer (Shan et
al. 2025, arXiv 2505.16463) keeps them and replaces the attention.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from harness.errors import UsageError, brief, unknown
from harness.store.record import Case

ANCHORS = 30  # m of the released models, at every size and resolution
PATCH, CHANNELS, CLASSES, MLP_RATIO = 16, 3, 1000, 4
MISSING = "vision models need the package timm, which is not installed: pip install 'attention-harness[vision]'"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A vision transformer: the width of a token, depth and heads; patches of PATCH × PATCH pixels.

    With a class and, where `distilled`, a distillation token, a head for each, and CLASSES classes.
    """

    name: str
    width: int
    depth: int
    heads: int

    @property
    def head_dim(self) -> int:
        """d."""
        return self.width // self.heads

    def tokens(self, resolution: int, *, distilled: bool = True) -> int:
        """n for square images of `resolution` pixels: patches, class token and distillation token."""
        return (resolution // PATCH) ** 2 + (2 if distilled else 1)

    def block_weights(self, *, shared: bool) -> int:
        """Elements of one block's matrices: projections (2·width where query and key are one), output and MLP."""
        return self.width**2 * ((2 if shared else 3) + 1 + 2 * MLP_RATIO)

    def flops(
        self, resolution: int, *, b: int, phase: str, core: int, shared: bool, distilled: bool = True
    ) -> int:  # fmt: skip
        """FLOPs of one call of one phase on b images: matrix products and the patches' convolution; MAC are half.

        core: those of one block's attention in that phase. A product's backward is two of its size; the patches' is
        one, since images have no gradient.
        """
        linear = 2 * b * self.tokens(resolution, distilled=distilled) * self.depth * self.block_weights(shared=shared)
        patches = 2 * b * (resolution // PATCH) ** 2 * CHANNELS * PATCH**2 * self.width
        heads = 2 * b * self.width * CLASSES * (2 if distilled else 1)
        once, again = {"forward": (1, 0), "backward": (0, 1), "train": (1, 1), "step": (1, 1)}[phase]
        return self.depth * core + (once + 2 * again) * (linear + heads) + (once + again) * patches

    def peak_bytes(
        self, resolution: int, *, b: int, phase: str, core: tuple[int, int], shared: bool, itemsize: int
    ) -> int:  # fmt: skip
        """Bytes alive at the worst moment of one call, weights and images included, about.

        core: what the attention of one block holds at its worst in forward, and in forward and backward. Forward: the
        attention beside its input, its norm and projection, or the MLP between its two layers. With gradients every
        block keeps what its backward reads; backward frees that, block by block, as the weights' gradients come up.
        """
        token = b * self.tokens(resolution) * self.width * itemsize
        projected = (2 if shared else 3) * token
        weights = self.depth * self.block_weights(shared=shared) + CHANNELS * PATCH**2 * self.width
        weights = itemsize * (weights + self.width * (2 * CLASSES + self.tokens(resolution)))
        images = b * CHANNELS * resolution**2 * itemsize
        attending, mixing = 2 * token + projected, (2 + 2 * MLP_RATIO) * token
        if phase == "forward":
            return weights + images + max(attending + core[0], mixing)
        kept = projected + (5 + 2 * MLP_RATIO) * token + max(0, core[1] - core[0])
        state = 2 * weights if phase == "step" else 0  # of AdamW: two moments of every gradient
        return weights + state + images + max(self.depth * kept, weights) + mixing


AS_IS = "as-is"  # in the place of a variant: a model of others with the attention that it has
OWN = "own"  # its backend
SOURCES = ("timm", "hf")  # what comes before the colon, or else a plugin's name
VALID = (
    "{own}, timm:NAME, hf:NAME of a configuration or hf:FOLDER with a config.json, FILE.py:FUNCTION that makes a model"
)


def is_foreign(name: str) -> bool:
    """Whether a model is another library's or the user's own: `timm:…`, `hf:…`, `my:tiny`."""
    return ":" in name


def check_name(name: str) -> None:
    """Raise ValueError for what names no model here; whether a foreign one exists, only its library can tell."""
    source, colon, rest = name.partition(":")
    if any(c in name for c in ";\n\r\0"):
        raise ValueError(f"{brief(repr(name))} holds a ';' or a line break")
    if colon and not (rest and (source in SOURCES or source.isidentifier())):
        raise ValueError(f"unknown model {brief(repr(name))}; valid: {VALID.format(own=', '.join(ARCHITECTURES))}")
    if not colon and name not in ARCHITECTURES:
        raise ValueError(f"{unknown('model', name, ARCHITECTURES)}; of others: timm:NAME, hf:NAME, FILE.py:FUNCTION")


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


def of_case(case: Case) -> tuple[Architecture, int]:
    """The model of a case of scope model, and the side of its images in pixels."""
    given = case.model_options
    return architecture(given["model"]), int(given["resolution"])


def missing() -> str | None:
    """What is missing to build a model here, in a sentence, or None."""
    return None if importlib.util.find_spec("timm") else MISSING
