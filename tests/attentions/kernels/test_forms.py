"""scripts/anchor_forms: values under the interpreter, and what the compiler makes of them without a device."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

ahead = pytest.importorskip("attentions.kernels.ahead", reason="needs Triton with its compiler for NVIDIA GPUs")

from attentions.kernels.anchor import devices  # noqa: E402
from attentions.kernels.anchor.tiles import Tile  # noqa: E402

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))
from anchor_forms import forms  # noqa: E402  # pyright: ignore[reportMissingImports]

not_interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here")
REPORTS = sorted((ROOT / "results" / "compiler").glob("forms_triton_*.csv"))


@not_interpreted
def test_values_under_the_interpreter_begin(interpreted: Callable[[], None]) -> None:
    """They take about as long as compiling does, on the other core; the last test here waits for them."""


def launches(form: str, n: int) -> tuple[forms.Launch, ...]:
    k, anchors = torch.empty(8, 12, n, 64, dtype=torch.bfloat16, device="meta"), torch.empty(64, 64, device="meta")
    return forms.FORMS[form](k, k, anchors, devices.H100).launches


@not_interpreted
@pytest.mark.parametrize(("form", "n", "instructions"), [
    ("early", 16384, ("griddepcontrol.launch_dependents", "griddepcontrol.wait")),
    ("mapped", 16384, ("cp.async.bulk.tensor", "cp.async.bulk.tensor")),
    ("skewed", 16384, ("", "cp.async.cg")),
])  # fmt: skip
def test_compiles_without_spills_to_the_instructions_it_is_about(
    form: str, n: int, instructions: tuple[str, str]
) -> None:  # fmt: skip
    for launch, instruction in zip(launches(form, n), instructions, strict=True):
        found = ahead.compile_launch(launch, capability=90)
        assert found.spilled_bytes == 0, found
        assert found.shared_bytes <= ahead.SHARED_LIMIT[90], found
        assert instruction in ahead.compiled(launch, capability=90).asm["ptx"]
        if form.startswith("skewed") and instruction:
            assert found.resident >= 1, found
            assert found.warp_products == 0, found


@pytest.mark.parametrize("form", ["skewed", "skewed deep"])
def test_a_skewed_launchs_programs_are_all_there_at_once_or_it_is_refused(form: str) -> None:
    """Twice: the driver is asked for a cooperative launch, and the plan counts what the compiler said fits."""
    longest = 65536 if form == "skewed" else 16384
    with pytest.raises(ValueError, match="on the device at once"):
        launches(form, 2**17)
    for n in (1000, 1024, 4096, longest):
        _, launch = launches(form, n)
        item = launch.constants["TILES"] * launch.constants["BLOCK_N"]
        assert launch.options["launch_cooperative_grid"] is True
        assert launch.programs <= 132
        assert launch.programs % launch.constants["SPLITS"] == 0
        assert n <= launch.constants["SPLITS"] * item < n + item


def test_only_the_second_of_two_launches_begins_early() -> None:
    assert [launch.options.get("launch_pdl", False) for launch in launches("early", 4096)] == [False, True]
    assert [launch.options.get("launch_pdl", False) for launch in launches("mapped", 4096)] == [False, False]


@pytest.mark.parametrize(("tiles", "lag", "reduce"), [(2, 4, 0), (2, 3, 2), (2, 1, 0), (3, 4, 2), (2, 2, -1)])
def test_an_order_that_would_not_end_is_refused(tiles: int, lag: int, reduce: int) -> None:
    k, anchors = torch.empty(1, 2, 256, 64, dtype=torch.bfloat16, device="meta"), torch.empty(64, 64, device="meta")
    with pytest.raises(ValueError, match="no order that ends"):
        forms.one(k, k, anchors, devices.H100, tile=Tile(64, 0, 4, 3, 2), tiles=tiles, lag=lag, reduce=reduce)


def test_other_shapes_are_refused() -> None:
    k, anchors = torch.empty(1, 2, 256, 64, dtype=torch.bfloat16, device="meta"), torch.empty(64, 64, device="meta")
    for keys, others in (
        (k.float(), anchors), (k, anchors[:30]), (k[..., :32], anchors[:, :32]), (k, anchors.expand(2, 64, 64)),
    ):  # fmt: skip
        for form in ("early", "skewed"):
            with pytest.raises(ValueError, match="16-bit inputs and anchors"):
                forms.FORMS[form](keys, keys, others, devices.H100)
    long = torch.empty(1, 12, 2**20, 64, dtype=torch.bfloat16, device="meta")
    with pytest.raises(ValueError, match="up to 8 splits"):
        forms.FORMS["early"](long, long, anchors, devices.H100)


def test_the_committed_reports_are_of_these_forms_and_nothing_spills() -> None:
    assert [path.stem for path in REPORTS] == ["forms_triton_3.6.0", "forms_triton_3.9.0"]
    for path in REPORTS:
        report = pd.read_csv(path)
        assert (report.spilled_bytes == 0).all()
        assert (report.resident >= 1).all()
        for form in forms.FORMS:
            for launch in launches(form, 16384):
                if "BLOCK_N" in launch.constants:
                    alike = (report.kernel == launch.kernel.__name__) & (report.warps == launch.warps)
                    tile = (report.tokens == launch.constants["BLOCK_N"]) & (report.stages == launch.stages)
                    assert (alike & tile).any(), (form, launch.kernel.__name__)


@not_interpreted
def test_values_under_the_interpreter(interpreted: Callable[[], None]) -> None:
    interpreted()
