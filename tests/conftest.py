"""For every test: shapes written in annotations are enforced, as they are nowhere else, where beartype is installed."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

# A shell's background job ignores Ctrl-C, and so would every process started from here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PACKAGE = Path(__file__).parents[1] / "attentions"
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int passes for a float

# Not the kernels: Triton compiles a function's own source and globals, which a wrapper hides.
MODULES = ["attentions.variants", *(f"attentions.{path.stem}" for path in PACKAGE.glob("[!_]*.py"))]


def outside_graphs(decorate: Callable[..., Any]) -> Callable[..., Any]:
    """The decorator that the import hook applies, except that torch.compile sees the function as it is written.

    PyTorch 2.11 traces into the checker, which refuses the tensors of a trace or breaks the graph. What a graph
    computes is checked all the same: called eagerly, the same functions are.
    """

    def jaxtyped(function: Any, *, typechecker: Callable[..., Any]) -> Any:
        checked = decorate(function, typechecker=typechecker)
        if not inspect.isfunction(function):  # a dataclass, whose __init__ is replaced in place
            return checked
        import torch  # not for the tests that need none

        @functools.wraps(function)
        def either(*args: Any, **keywords: Any) -> Any:
            return (function if torch.compiler.is_compiling() else checked)(*args, **keywords)

        return either

    return lambda **keywords: functools.partial(jaxtyped, **keywords)


# A GPU machine may lack beartype: the tests there are about values, and the shapes are enforced where all tests run.
if importlib.util.find_spec("beartype"):
    jaxtyping.jaxtyped = outside_graphs(jaxtyping.jaxtyped)
    jaxtyping.install_import_hook(MODULES, CHECKER)


MOST_TELLING = ("kernels/", "test_agrees_with_float64")  # of what a GPU alone can show, in this order


def _for_a_gpu(config: pytest.Config) -> bool:
    return config.option.markexpr == "gpu"


class AtOnce:
    """Prints each failure as it comes: a GPU is lent for minutes, and a run that is cut off prints no summary."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
            terminal.write_line(f"\nFAILED {report.nodeid}\n{report.longreprtext}")


def pytest_configure(config: pytest.Config) -> None:
    if _for_a_gpu(config) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(AtOnce(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _for_a_gpu(config):
        items.sort(
            key=lambda item: next((i for i, x in enumerate(MOST_TELLING) if x in item.nodeid), len(MOST_TELLING))
        )


@pytest.fixture(autouse=True, scope="module")
def _plugins_end_with_their_module() -> Iterator[None]:
    """What a test module loads as a plugin is not there for the next one."""
    from attentions import registry

    known = dict(registry._plugins)
    yield
    registry._plugins.clear()
    registry._plugins.update(known)
