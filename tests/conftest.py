"""For every test: shapes written in annotations are enforced, as they are nowhere else, where beartype is installed."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# A shell's background job ignores Ctrl-C, and so would every process started from here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PACKAGE = Path(__file__).parents[1] / "attentions"
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int passes for a float

# Not the kernels: Triton compiles a function's own source and globals, which a wrapper hides.
MODULES = ["attentions.variants", *(f"attentions.{path.stem}" for path in PACKAGE.glob("[!_]*.py"))]

# A GPU machine may lack beartype: the tests there are about values, and the shapes are enforced where all tests run.
if importlib.util.find_spec("beartype"):
    install_import_hook(MODULES, CHECKER)


@pytest.fixture(autouse=True, scope="module")
def _plugins_end_with_their_module() -> Iterator[None]:
    """What a test module loads as a plugin is not there for the next one."""
    from attentions import registry

    known = dict(registry._plugins)
    yield
    registry._plugins.clear()
    registry._plugins.update(known)
