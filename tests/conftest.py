"""For every test: shapes written in annotations are enforced, as they are nowhere else, where beartype is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "attentions"
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int passes for a float

# Not the kernels: Triton compiles a function's own source and globals, which a wrapper hides.
MODULES = ["attentions.variants", *(f"attentions.{path.stem}" for path in PACKAGE.glob("[!_]*.py"))]

# A GPU machine may lack beartype: the tests there are about values, and the shapes are enforced where all tests run.
if importlib.util.find_spec("beartype"):
    install_import_hook(MODULES, CHECKER)
