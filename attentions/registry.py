"""Finds variants by name: files in attentions/variants/, entry points of the group "attentions", a user's own file.

attentions.names()                                   # ['anchor', 'flash', 'full', ...]
attentions.spec("anchor")                            # its definition; attentions.building makes a module of it
attentions.load_plugin("mine.py")                    # ['mine']
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

from torch import nn

from attentions import plugins, variants
from attentions.base import AttentionError, Spec, pick_named, unknown

ENTRY_POINTS = "attentions"

_plugins: dict[str, Spec] = {}
_files: dict[str, Path] = {}  # the file that each plugin came from: it may be loaded again
_makers: dict[str, Callable[..., nn.Module]] = {}  # of whole models, as `my:tiny`


def names() -> list[str]:
    """The names of all variants: built in, installed and loaded from files."""
    return sorted(_specs())


def spec(name: str) -> Spec:
    """The definition called `name` (a `name:backend` is read as its name). Raises AttentionError with valid names."""
    return pick_named(split(name)[0], _specs().values(), what="attention")


def installed(name: str) -> Spec | None:
    """The variant of that name where it came with this package or another one, not from a user's file; else None."""
    return _installed().get(name)


def split(name: str) -> tuple[str, str | None]:
    """'anchor:triton' → ('anchor', 'triton'); 'anchor' → ('anchor', None)."""
    variant, _, backend = name.partition(":")
    if ":" in name and not backend:
        raise AttentionError(f"{name!r} names no backend after ':'; write {variant!r} to take the best one")
    return variant, backend or None


def load_plugin(path: str | Path) -> list[str]:
    """Run a user's Python file, or a package's folder, and register what it offers (attentions.plugins): their names.

    It is code and runs with your rights. Raises AttentionError naming the file when it cannot be read, fails, has
    nothing to measure, or takes a name that is already used.
    """
    path = Path(path)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing beside the user's file
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be a document, as with `harness list --json`
            offer = plugins.offered(plugins.load(path), path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a user's file raises, SystemExit included, is the plugin's failure
        text = str(error) if isinstance(error, AttentionError) else f"{type(error).__name__}: {error}"
        raise AttentionError(text if text.startswith(f"plugin {path}: ") else f"plugin {path}: {text}") from error
    finally:
        sys.dont_write_bytecode = written
    for definition in offer.specs:
        known = _specs().get(definition.name)
        if known is not None and _files.get(definition.name) != path.resolve():
            raise AttentionError(f"plugin {path}: the name {definition.name!r} is taken by '{known.title}'")
    for definition in offer.specs:
        _plugins[definition.name], _files[definition.name] = definition, path.resolve()
    _makers.update({f"{plugins.stem(path)}:{name}": maker for name, maker in offer.makers.items()})
    return [definition.name for definition in offer.specs]


def maker(name: str) -> Callable[..., nn.Module]:
    """The function of a loaded plugin that makes a whole model: `my:tiny` is `tiny` of my.py. Raises AttentionError."""
    if name not in _makers:
        raise AttentionError(unknown("model of a plugin", name, _makers))
    return _makers[name]


def _specs() -> dict[str, Spec]:
    return _installed() | _plugins


@cache
def _installed() -> dict[str, Spec]:
    found: dict[str, Spec] = {}
    for info in pkgutil.iter_modules(variants.__path__):
        for definition in _specs_of(importlib.import_module(f"{variants.__name__}.{info.name}")):
            found[definition.name] = definition
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        where = f"entry point {entry.name} = {entry.value}"
        try:
            loaded = entry.load()
        except Exception as error:  # whatever an installed package raises, its name tells the user what to remove
            raise AttentionError(f"{where} does not load: {type(error).__name__}: {error}") from error
        if not isinstance(loaded, Spec):
            raise AttentionError(f"{where} is a {type(loaded).__name__}, not a Spec")
        if loaded.name in found:
            raise AttentionError(f"{where}: the name {loaded.name!r} is taken by '{found[loaded.name].title}'")
        found[loaded.name] = loaded
    return found


def _specs_of(module: ModuleType) -> list[Spec]:
    return [value for value in vars(module).values() if isinstance(value, Spec)]
