"""For every test: shapes written in annotations are enforced, as they are nowhere else."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "attentions"
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int passes for a float

# Not the kernels: Triton compiles a function's own source and globals, which a wrapper hides.
install_import_hook(
    [f"attentions.{path.stem}" for path in [*PACKAGE.glob("*.py"), PACKAGE / "variants"] if path.stem != "__init__"],
    CHECKER,
)
