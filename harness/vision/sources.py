"""Where whole models come from: timm, transformers, a function of a plugin. Nothing is downloaded.

    made("timm:vit_tiny_patch16_224", side=224, tokens=None)      # a Whole, in eval mode, with random weights
    made("hf:gpt2", side=None, tokens=512)                        # the configuration that transformers has by that name
    made("my:tiny", side=32, tokens=None)                         # what `tiny` of the plugin my.py makes

Weights are random, from the caller's seed, unless a file is given: `timm:NAME?checkpoint=FILE`, or an `hf:FOLDER` that
holds them. Libraries are imported as a model of theirs is made.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import attentions
from attentions import registry
from harness.errors import UsageError, brief

EXTRAS = {"timm": ("timm", "vision"), "hf": ("transformers", "hf")}  # package, and the extra that has it
INPUTS = {"pixel_values": "images", "input_ids": "tokens"}  # of transformers' models
PARAMETERS = {"resolution": "images", "tokens": "tokens"}  # of a function that makes a model
ROTARY = ("rope_theta", "rope_parameters", "rope_scaling")  # a configuration with one has no last position
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


class Whole(nn.Module):
    """A model as one function: a batch of images, or of token ids, to the first tensor of what it returns."""

    def __init__(self, model: nn.Module, keywords: Mapping[str, Any], *, vocabulary: int, keeps: bool) -> None:
        super().__init__()
        self.model, self.keywords, self.vocabulary, self.keeps = model, dict(keywords), vocabulary, keeps

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, side, side), or (b, n) whole numbers, → (b, …)."""
        return _first(self.model(x, **self.keywords))

    def cast(self, device: torch.device, dtype: torch.dtype) -> Whole:
        """Move it, and give its weights a precision: all buffers, too, or those that are saved (transformers' way:
        rotary frequencies stay in float32)."""
        kept = dict(self.model.named_buffers()) if self.keeps else {}
        saved = self.model.state_dict().keys()
        self.to(device, dtype)
        for name, buffer in kept.items():
            if name not in saved:
                parent, _, own = name.rpartition(".")
                setattr(self.model.get_submodule(parent), own, buffer.to(device))
        return self


def missing(name: str) -> str | None:
    """What is missing to make a model, in a sentence, or None."""
    package, extra = EXTRAS.get(name.partition(":")[0], ("", ""))
    if not package or importlib.util.find_spec(package):
        return None
    return f"{name} needs the package {package}, which is not installed: pip install 'attention-harness[{extra}]'"


def made(name: str, *, side: int | None, tokens: int | None, weighed: bool = True) -> Whole:
    """The model for square images of `side` pixels, or for so many tokens. Raises UsageError, AttentionError.

    weighed: with the weights of a file that is named, where one is.
    """
    source, _, rest = name.partition(":")
    asked = _Asked(name=name, side=side, tokens=tokens, weighed=weighed)
    return {"timm": _of_timm, "hf": _of_transformers}.get(source, _of_plugin)(rest, asked).eval()


@dataclass(frozen=True, kw_only=True)
class _Asked:
    name: str
    side: int | None
    tokens: int | None
    weighed: bool


def _of_timm(rest: str, asked: _Asked) -> Whole:
    import timm

    name, _, setting = rest.partition("?")
    key, _, file = setting.partition("=")
    if setting and (key != "checkpoint" or not file):
        raise UsageError(f"model {asked.name}: after '?' comes checkpoint=FILE, not {brief(repr(setting))}")
    if file and not Path(file).is_file():
        raise UsageError(f"model {asked.name}: checkpoint {file}: no such file")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"unknown model of timm {brief(repr(name))}{hint} (timm.list_models() has all of them)")
    side = _side(asked)
    weights: dict[str, Any] = {}
    if file and asked.weighed:
        weights = {"pretrained": True, "pretrained_cfg_overlay": {"file": file}}  # resampled to this side, as timm does
    try:
        model = timm.create_model(name, img_size=side, **weights)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        model = timm.create_model(name, **weights)  # a model that takes any size, and is told none
    return Whole(model, {}, vocabulary=0, keeps=False)


def _of_transformers(rest: str, asked: _Asked) -> Whole:
    import transformers

    folder = Path(rest)
    if folder.is_dir():
        config = _config(transformers, folder, asked)
    elif rest in transformers.CONFIG_MAPPING:
        config = transformers.CONFIG_MAPPING[rest]()
    else:
        near = difflib.get_close_matches(rest, list(transformers.CONFIG_MAPPING.keys()), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "."
        raise UsageError(
            f"unknown model of transformers {brief(repr(rest))}{hint} It takes the name of a configuration, such as "
            "vit, dinov2 or gpt2, or a folder with a config.json: nothing is downloaded"
        )
    config.use_cache = False
    weighed = folder.is_dir() and any(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if asked.side is not None and isinstance(getattr(config, "image_size", None), int) and not weighed:
        config.image_size = asked.side
    named = (config.architectures or [None])[0]
    cls = getattr(transformers, named, None) if named else None
    kind: Any = cls or transformers.AutoModel
    if weighed and asked.weighed:
        model = kind.from_pretrained(folder, config=config, local_files_only=True, dtype=torch.float32)
    else:
        model = kind._from_config(config) if cls else kind.from_config(config)
    takes = INPUTS.get(model.main_input_name)
    if takes is None:
        raise UsageError(f"model {asked.name} takes {model.main_input_name}; valid: {', '.join(INPUTS)}")
    _check_inputs(asked, takes)
    if takes == "tokens":
        most = getattr(config, "max_position_embeddings", None)
        rotary = any(getattr(config, name, None) is not None for name in ROTARY)
        if isinstance(most, int) and (asked.tokens or 0) > most and not rotary:
            raise UsageError(f"model {asked.name} has positions for {most} tokens, not for {asked.tokens}")
        return Whole(model, {}, vocabulary=_vocabulary(model), keeps=True)
    resampled = weighed and asked.side != getattr(config, "image_size", None)
    can = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    return Whole(model, {"interpolate_pos_encoding": True} if resampled and can else {}, vocabulary=0, keeps=True)


def _config(transformers: Any, folder: Path, asked: _Asked) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"model {asked.name}: its config.json cannot be taken: {brief(said[0], 300)}") from None


def _of_plugin(rest: str, asked: _Asked) -> Whole:
    try:
        make = registry.maker(asked.name)
    except attentions.AttentionError as error:
        raise UsageError(f"{error}; a model is made by a function of a --plugin file, without parameters, or of "
                         "`resolution` or `tokens`") from None  # fmt: skip
    takes = next(iter(inspect.signature(make).parameters), "")
    if takes:
        _check_inputs(asked, PARAMETERS[takes])
    model = make(asked.side if asked.side is not None else asked.tokens) if takes else make()
    if not isinstance(model, nn.Module):
        raise UsageError(f"model {asked.name}: the function made a {type(model).__name__}, not a torch.nn.Module")
    return Whole(model, {}, vocabulary=0 if asked.side is not None else _vocabulary(model), keeps=False)


def _check_inputs(asked: _Asked, takes: str) -> None:
    """Raise UsageError where a model of images is to be measured at token counts, or the reverse."""
    if takes == "images":
        _side(asked)
    elif asked.tokens is None:
        raise UsageError(f"model {asked.name} takes tokens: give --n, such as --n 512,1024, and no --resolution")


def _side(asked: _Asked) -> int:
    if asked.side is None:
        raise UsageError(
            f"model {asked.name} takes images: give --resolution, such as --resolution 224,448, and no --n"
        )
    return asked.side


def _vocabulary(model: nn.Module) -> int:
    """How many token ids there are: the rows of the first table of embeddings."""
    table = next((module for module in model.modules() if isinstance(module, nn.Embedding)), None)
    if table is None:
        raise UsageError(
            f"{type(model).__name__} takes tokens and has no torch.nn.Embedding to tell how many there are"
        )
    return table.num_embeddings


def _first(found: Any) -> Tensor:
    """The first tensor in whatever a model returns."""
    while not isinstance(found, Tensor):
        try:
            found = next(iter(found.values() if isinstance(found, Mapping) else found))
        except (TypeError, StopIteration):
            raise UsageError(f"the model returns a {type(found).__name__}, which holds no tensor") from None
    return found
