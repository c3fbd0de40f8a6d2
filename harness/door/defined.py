"""A variant that a script or a notebook defines, as a plugin file that the worker loads: cloudpickle carries it.

    variant = Defined.of(my_attention)               # a function f(q, k, v), a layer's class, or an attentions.Spec
    variant.name, variant.digest                     # "my_attention", twelve digits of what its code says
    variant.write(Path("results/mine"))              # results/mine/variants/my_attention.py, a plugin like any other

The file belongs to the run: it can be resumed from it, and each of the variant's rows names the digest in its note.
The digest is of names, constants and instructions, so comments and blank lines do not change it; another minor version
of Python compiles to other instructions and does.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import inspect
import pickle
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import UsageError, reason
from harness.store import opening
from harness.store.replacing import replacing
from harness.store.runs import VARIANTS, inside

OURS = ("attentions", "harness")
FORM = '''"""The variant `{name}` as it was given to harness.run, with what its functions refer to."""
# code {digest}
{source}
import base64
import dataclasses
import pickle


def _told(spec):
    return dataclasses.replace(spec, note=lambda work: "; ".join(filter(None, [spec.note(work), "code {digest}"])))


SPEC = _told(
    pickle.loads(
        base64.b64decode(
            """
{payload}
"""
        )
    )
)
'''


@dataclass(frozen=True)
class Defined:
    """A variant defined in this process: its Spec, the digest of its code and the Spec as cloudpickle writes it."""

    spec: Any
    digest: str
    payload: bytes

    @property
    def name(self) -> str:
        """As its rows are called."""
        return self.spec.name

    @classmethod
    def of(cls, given: Any) -> Defined:
        """A Spec, a function f(q, k, v) of (b, h, n, d) tensors, or the class of a layer. Raises UsageError."""
        from attentions import Spec

        spec = given if isinstance(given, Spec) else _spec_of(given)
        try:
            payload = _pickled(spec)
        except Exception as error:  # whatever an object of the user's raises as it is pickled
            raise UsageError(
                f"attention {spec.name} cannot be carried to the measuring process: {type(error).__name__}: {error}; "
                "it may refer to open files, locks or the like: make them inside the function, or write a --plugin file"
            ) from None
        return cls(spec=spec, digest=hashlib.sha256("\n".join(_parts(spec, set())).encode()).hexdigest()[:12],
                   payload=payload)  # fmt: skip

    def path(self, folder: Path) -> Path:
        """Where its plugin file is in a run's folder."""
        return folder / VARIANTS / f"{self.name}.py"

    def check_same(self, folder: Path) -> None:
        """Raise UsageError where a run that is to be resumed was begun with other code by this name."""
        path = self.path(folder)
        try:
            inside(folder, VARIANTS)
            text = opening.read(path).decode("utf-8", errors="replace") if opening.present(path) else ""
        except OSError as error:
            raise UsageError(f"cannot read {path}: {reason(error)}") from None
        known = re.search(r"^# code (\w+)$", text, re.MULTILINE)
        if known is None or known[1] != self.digest:
            raise UsageError(
                f"the code of {self.name} ({self.digest}) differs from the run being resumed, which has "
                f"{known[1] if known else 'none'}: start a new run with another out"
            )

    def write(self, folder: Path) -> None:
        """Write the plugin file. Raises UsageError where that cannot be."""
        path = self.path(folder)
        text = FORM.format(
            name=self.name, digest=self.digest, source=_source(self.spec),
            payload=textwrap.fill(base64.b64encode(self.payload).decode(), 116),
        )  # fmt: skip
        try:
            inside(folder, VARIANTS).mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                partial.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {reason(error)}") from None


def named(given: Any) -> str | Defined:
    """An entry of `attention`: a name as it is, a variant of the registry by its name, anything else as Defined."""
    if isinstance(given, str):
        return given
    from attentions import Spec, registry

    if isinstance(given, Spec) and registry.installed(given.name) is given:
        return given.name
    variant = Defined.of(given)
    if known := registry.installed(variant.name):
        raise UsageError(f"attention: the name {variant.name!r} is taken by {known.title!r}; give yours another one")
    return variant


def _spec_of(given: Any) -> Any:
    from attentions import Backend, Spec, plugins

    what = "attention takes names, a Spec or a function f(q, k, v)"
    if isinstance(given, type) and given.__module__.partition(".")[0] != "torch":  # whose layers are none
        if why := plugins.why_no_layer(given):
            raise UsageError(f"{what}, not {given!r}: as a layer it {why}; {plugins.LAYER}")
        name = given.__name__
        return plugins.whole_layers(name.lower(), f"{name}, a layer of the caller's", {name: given})
    if not callable(given) or isinstance(given, type):
        raise UsageError(f"{what}, not {given!r}")
    function: Callable[..., Any] = given
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise UsageError(f"{what} that has a name, made with def, not {function!r}: its rows are called by it")
    try:
        inspect.signature(function).bind("q", "k", "v")
    except TypeError as error:
        raise UsageError(
            f"{what}; {name}{inspect.signature(function)} cannot be called with three tensors: {error}"
        ) from None
    return Spec(
        name=name.lower(), title=f"{name}, a function of the caller's", backends=(Backend("reference", function),)
    )  # fmt: skip


def _pickled(spec: Any) -> bytes:
    """By value what the worker could not import; the rest by name."""
    import cloudpickle

    with ExitStack() as stack:
        for module in _modules_of_the_caller():
            cloudpickle.register_pickle_by_value(module)
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        return cloudpickle.dumps(spec, protocol=pickle.DEFAULT_PROTOCOL)


def _modules_of_the_caller() -> list[types.ModuleType]:
    """Modules that a fresh interpreter, such as the worker, does not find; __main__ is by value anyway."""
    import cloudpickle

    known = cloudpickle.list_registry_pickle_by_value()
    tops = {name.partition(".")[0] for name in sys.modules} - {"__main__", *OURS}
    own = {top for top in tops if not _found_by_all(top)}
    return [
        module for name, module in list(sys.modules.items())
        if name.partition(".")[0] in own and name not in known and getattr(module, "__name__", "") == name
    ]  # fmt: skip


def _found_by_all(top: str) -> bool:
    """Whether a module or package of that name is where a fresh interpreter looks for it; what has no file is."""
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    places = (
        [Path(file).parent if Path(file).stem == "__init__" else Path(file)]
        if file
        else getattr(module, "__path__", [])
    )
    folders = {Path(place).resolve().parent for place in places}
    return not folders or bool(folders & _searched())


@cache
def _searched() -> frozenset[Path]:
    """Where a fresh interpreter looks for modules, as the worker is: without the script's folder or this one."""
    asked = [sys.executable, "-P", "-c", "import sys; print(*sys.path, sep=chr(10))"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return frozenset(Path(line).resolve() for line in told.splitlines() if line)


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    """What makes up an object, in an order that does not depend on the process; functions by what they do."""
    if id(value) in seen:
        return
    if isinstance(value, types.FunctionType):
        seen.add(id(value))
        yield f"def {value.__qualname__}"
        if value.__module__.partition(".")[0] in OURS:
            return
        yield from _code(value.__code__)
        yield from _parts((value.__defaults__, value.__kwdefaults__), seen)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            yield f"cell {name}"
            with suppress(ValueError):  # it is empty as yet
                yield from _parts(cell.cell_contents, seen)
        for name in sorted(_names(value.__code__) & value.__globals__.keys()):
            yield f"global {name}"
            yield from _parts(value.__globals__[name], seen)
    elif isinstance(value, types.ModuleType):
        yield f"module {value.__name__}"
    elif isinstance(value, type):
        seen.add(id(value))
        yield f"class {value.__module__}.{value.__qualname__}"
        if value.__module__ == "__main__" or sys.modules.get(value.__module__) in _modules_of_the_caller():
            for name in sorted(value.__dict__.keys() - {"__dict__", "__weakref__", "__doc__", "__module__"}):
                yield f"attribute {name}"
                yield from _parts(value.__dict__[name], seen)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        seen.add(id(value))
        for each in dataclasses.fields(value):
            yield f"field {each.name}"
            yield from _parts(getattr(value, each.name), seen)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield f"key {key!r}"
            yield from _parts(value[key], seen)
    elif isinstance(value, tuple | list):
        yield f"{type(value).__name__} of {len(value)}"
        for each in value:
            yield from _parts(each, seen)
    elif isinstance(value, str | bytes | int | float | complex | bool | None | types.EllipsisType):
        yield repr(value)
    elif hasattr(value, "__qualname__") and hasattr(value, "__module__"):  # of an extension: torch.sigmoid
        yield f"{value.__module__}.{value.__qualname__}"
    else:
        yield type(value).__qualname__
        with suppress(Exception):  # an object of any kind: its bytes, where pickle can tell them
            yield hashlib.sha256(pickle.dumps(value)).hexdigest()


def _code(code: types.CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {code.co_argcount}"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        else:
            yield repr(sorted(constant, key=repr)) if isinstance(constant, frozenset) else repr(constant)


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return {*code.co_names}.union(*inner)


def _source(spec: Any) -> str:
    """The text of its backends as comments, where there is a text: for who reads the run later."""
    functions: list[Callable[..., Any]] = [getattr(b.layer, "made", b.compute) for b in spec.backends]
    lines: list[str] = []
    for function in functions:
        with suppress(OSError, TypeError):
            lines += [
                "#",
                *(f"# {line}".rstrip() for line in textwrap.dedent(inspect.getsource(function)).splitlines()),
            ]
    return "\n".join(lines)
