"""What a user's file or package offers: its Specs, or else what it defines by their shape, as cores, layers and models.

    def mine(q, k, v): ...                                  # a core, called `mine`
    class Layer(nn.Module): ...                             # a layer, called `FILE:Layer`, built as Layer(dim, heads)
    Layer = lambda dim, heads: Other(dim, n_head=heads)     # the same of a class that is built otherwise
    def tiny(resolution): ...                               # makes a whole model, called `FILE:tiny`

A file that defines a Spec offers its Specs as variants, and no core or layer beside them: their functions and modules
are of the same shapes. Names that begin with _ are not looked at, nor what was defined elsewhere than in the plugin.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from attentions.base import AttentionError, Backend, Size, Spec

CORE, LAYER = "a core is a function f(q, k, v), (b, h, n, d) each → (b, h, n, d)", (
    "a layer is a torch.nn.Module built as Layer(dim, heads), with tokens= and anchors= where it names them, that maps "
    "(b, n, dim) → (b, n, dim); a class that is built otherwise: Layer = lambda dim, heads: Other(…)"
)  # fmt: skip
TENSORS = (("q", "k", "v"), ("query", "key", "value"))
WIDTHS = (("dim", "heads"), ("dim", "num_heads"))  # of a function that makes a layer
SIZES = ("tokens", "anchors")  # what a layer may ask for beside them
INPUTS = ("resolution", "tokens")  # what a function that makes a model may ask for


@dataclass(frozen=True, kw_only=True)
class Offer:
    """specs: variants; makers: functions that make whole models, by name."""

    specs: tuple[Spec, ...]
    makers: Mapping[str, Callable[..., nn.Module]]


@dataclass(frozen=True)
class Layer:
    """How a layer is built: `made(dim, heads)`, with those of tokens and anchors that it asks for."""

    made: Callable[..., Any]
    asks: tuple[str, ...]

    def __call__(self, size: Size) -> nn.Module:
        """The layer of that size. Raises AttentionError for what is no module."""
        layer = self.made(size.heads * size.head_dim, size.heads, **{name: getattr(size, name) for name in self.asks})
        if not isinstance(layer, nn.Module):
            raise AttentionError(f"{_name(self.made)} made a {type(layer).__name__}, not a torch.nn.Module; {LAYER}")
        return layer


def load(path: Path) -> types.ModuleType:
    """Run a file, or a package's folder, and return the module. Raises AttentionError for one that is not there.

    A package keeps its name, so that its files can import each other; a file is called attentions_plugin_NAME.
    """
    folder = path.resolve()
    if path.is_dir():
        if not (path / "__init__.py").is_file():
            raise AttentionError(f"plugin {path}: no such file as __init__.py in this folder, which a package has")
        name = folder.name
        _check_free(name, folder, path)
        found = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
    elif not path.is_file():
        raise AttentionError(f"plugin {path}: no such file")
    else:
        name = f"attentions_plugin_{path.stem}"
        found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise AttentionError(f"plugin {path}: not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(found)
    _forget(name)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except ModuleNotFoundError as error:
        _forget(name)
        beside = error.name and not path.is_dir() and (path.parent / f"{error.name.partition('.')[0]}.py").is_file()
        if not beside:
            raise
        raise AttentionError(
            f"plugin {path}: it imports {error.name}, which lies beside it, and one file is loaded alone; make the "
            f"folder a package, with an __init__.py that says `from .{path.stem} import …`, and give the folder"
        ) from None
    except BaseException:
        _forget(name)
        raise
    return module


def offered(module: types.ModuleType, path: Path) -> Offer:
    """What the loaded plugin has to measure. Raises AttentionError where that is nothing."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    specs = [value for value in vars(module).values() if isinstance(value, Spec)]
    own = {name: value for name, value in public.items() if _is_own(value, module)}
    makers = {name: value for name, value in own.items() if isinstance(value, types.FunctionType) and _makes(value)}
    if specs:
        return Offer(specs=tuple(specs), makers=makers)
    cores = [value for value in own.values() if isinstance(value, types.FunctionType) and _is_core(value)]
    layers = {
        name: value for name, value in own.items()
        if isinstance(value, type) or (isinstance(value, types.FunctionType) and _names(value)[:2] in WIDTHS)
    }  # fmt: skip
    unfit = {name: why for name, value in layers.items() if (why := why_no_layer(value))}
    if not cores and not makers and len(unfit) == len(layers):
        told = [f"{name} {why}" for name, why in unfit.items()]
        told += [f"{name}{inspect.signature(value)} is neither" for name, value in own.items() if name not in unfit]
        seen = f" ({'; '.join(told[:4])})" if told else ""
        raise AttentionError(
            f"defines no attentions.Spec at its top level, and no core or layer{seen}: {CORE}; {LAYER}"
        )
    found = [core(value) for value in cores]
    if len(layers) > len(unfit):
        found.append(whole_layers(stem(path), f"Layers of {path.name}", layers, unfit))
    return Offer(specs=tuple(found), makers=makers)


def core(function: Callable[..., Tensor]) -> Spec:
    """A plain function of q, k and v as a variant of its name."""
    name = _name(function)
    return Spec(
        name=name.lower(), title=f"{name}, a function of the user's", backends=(Backend("reference", function),)
    )


def whole_layers(name: str, title: str, layers: Mapping[str, Any], unfit: Mapping[str, str] | None = None) -> Spec:
    """Layers of the user's as one variant, each by its name where another has backends. unfit: why some cannot be."""
    unfit = unfit or {}
    backends = tuple(
        Backend(
            each, no_core, summary="a layer with projections of its own", automatic=each not in unfit,
            missing=_Missing(unfit.get(each)), layer=Layer(made, _asked(made)),
        )
        for each, made in layers.items()
    )  # fmt: skip
    anchored = any("anchors" in backend.layer.asks for backend in backends if isinstance(backend.layer, Layer))
    return Spec(name=name, title=title, backends=backends, bottleneck="anchors" if anchored else "", module=_no_module)


def why_no_layer(made: Any) -> str:
    """Why it cannot be built as Layer(dim, heads), or called with x; an empty text where it can."""
    if isinstance(made, type) and not issubclass(made, nn.Module):
        return "is no torch.nn.Module"
    if isinstance(made, type) and made.__init__ is nn.Module.__init__:
        return "has no __init__ that takes dim and heads"
    try:
        inspect.signature(made).bind(1, 1, **dict.fromkeys(_asked(made), 1))
    except TypeError as error:
        return f"cannot be built as Layer(dim, heads): {error}"
    except ValueError:  # of an extension, which tells no signature: building it shows
        return ""
    if not isinstance(made, type):
        return ""
    try:
        inspect.signature(made.forward).bind(None, None)
    except TypeError as error:
        return f"cannot be called with x alone: {error}"
    return ""


def stem(path: Path) -> str:
    """What a plugin's layers and models are called by: its file's or folder's name as a lower-case identifier."""
    return re.sub(r"\W", "_", path.resolve().name.removesuffix(".py")).lower()


def no_core(*tensors: Any, **keywords: Any) -> Tensor:
    """What stands where a core would be computed."""
    raise AttentionError(NO_CORE)


NO_CORE = "a whole layer, with projections of its own, and no core of q, k and v: it is measured in scope layer"


@dataclass(frozen=True)
class _Missing:
    """Why a layer cannot be built, on any device."""

    why: str | None

    def __call__(self, device: Any) -> str | None:
        return f"{self.why}; {LAYER}" if self.why else None


def _no_module(size: Size, compute: Any, **options: Any) -> nn.Module:
    raise AttentionError(f"{compute.definition.name} is {NO_CORE}")


def _is_own(value: Any, module: types.ModuleType) -> bool:
    """A module class or function that the plugin defines, in this file or another one of its package."""
    if not isinstance(value, types.FunctionType) and not (isinstance(value, type) and issubclass(value, nn.Module)):
        return False
    return value.__module__ == module.__name__ or value.__module__.startswith(f"{module.__name__}.")


def _is_core(function: types.FunctionType) -> bool:
    named, needed = _names(function), _needed(function)
    return named[:3] in TENSORS and len(needed) == 3


def _makes(function: types.FunctionType) -> bool:
    """Whether it can be called with nothing, or with the side of the images, or the number of tokens, alone."""
    return not _names(function) or (_names(function)[0] in INPUTS and len(_needed(function)) <= 1)


def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _needed(function: Callable[..., Any]) -> list[str]:
    """Its parameters that have no default."""
    return [
        name for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]  # fmt: skip


def _asked(made: Any) -> tuple[str, ...]:
    """Which of tokens and anchors it names."""
    try:
        return tuple(name for name in SIZES if name in inspect.signature(made).parameters)
    except (TypeError, ValueError):
        return ()


def _name(made: Any) -> str:
    return getattr(made, "__name__", type(made).__name__)


def _check_free(name: str, folder: Path, path: Path) -> None:
    """Raise AttentionError for a package that something else is imported by."""
    if not name.isidentifier():
        raise AttentionError(f"plugin {path}: {name!r} cannot be imported: a package's name is letters, digits and _")
    known = importlib.util.find_spec(name)
    if known is None or [Path(place).resolve() for place in known.submodule_search_locations or []] == [folder]:
        return
    where = known.origin or "something else"
    raise AttentionError(f"plugin {path}: `import {name}` already means {where}; give the folder another name")


def _forget(name: str) -> None:
    """Let the plugin, and every file of it, be loaded anew."""
    for known in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[known]
