"""scripts/anchor_forms: values under the interpreter, and what the compiler makes of them without a device."""

from __future__ import annotations

import os
import re
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
    ("specialised", 16384, ("", "cp.async.bulk.tensor")),
])  # fmt: skip
def test_compiles_without_spills_to_the_instructions_it_is_about(
    form: str, n: int, instructions: tuple[str, str]
) -> None:  # fmt: skip
    for launch, instruction in zip(launches(form, n), instructions, strict=True):
        found = ahead.compile_launch(launch, capability=90)
        assert found.spilled_bytes == 0, found
        assert found.shared_bytes <= ahead.SHARED_LIMIT[90], found
        assert instruction in ahead.compiled(launch, capability=90).asm["ptx"]
        if form in ("skewed", "specialised") and instruction:
            assert found.resident >= 1, found
            assert found.warp_products == 0, found


@not_interpreted
def test_a_specialised_launchs_tokens_come_by_maps_alone_and_its_roles_share_the_registers() -> None:
    _, launch = launches("specialised", 16384)
    code = ahead.compiled(launch, capability=90).asm
    assert code["ttgir"].count("ttng.tensormap_create") == 3, "K, V and O"
    assert code["ttgir"].count("= tt.load") == 4, "anchors, sums, degrees and means"
    assert "cp.async.cg" not in code["ptx"]
    loads = re.findall(r"cp\.async\.bulk\.tensor\.4d\.shared::\S+complete_tx", code["ptx"])
    assert len(loads) == 2 * launch.constants["TILES"], "the loop over an item's tiles is unrolled"
    assert len(re.findall(r"cp\.async\.bulk\.tensor\.4d\.global", code["ptx"])) == 1
    assert code["ptx"].count("mbarrier.try_wait") == launch.constants["TILES"] + 2, "stages, loads, places"
    registers = {int(each) for each in re.findall(r"setmaxnreg\.\w+\.sync\.aligned\.u32\s+(\d+)", code["ptx"])}
    gathers, scatters, produces = 168, 152, 24
    assert {gathers, scatters, produces} < registers
    assert 256 * gathers + 128 * scatters + 128 * produces == 65536
    assert ahead.compile_launch(launch, capability=90).threads == 512, "a warp that produces holds a warpgroup's place"


@pytest.mark.parametrize(("form", "longest"), [("skewed", 65536), ("skewed deep", 16384), ("specialised", 132 * 1024)])
def test_a_launch_whose_programs_wait_has_all_there_at_once_or_is_refused(form: str, longest: int) -> None:
    """Twice: the driver is asked for a cooperative launch, and the plan counts what the compiler said fits."""
    with pytest.raises(ValueError, match="on the device at once"):
        launches(form, 2**18)
    for n in (1000, 1024, 4096, longest):
        _, launch = launches(form, n)
        item = launch.constants["TILES"] * launch.constants["BLOCK_N"]
        assert launch.options["launch_cooperative_grid"] is True
        assert launch.programs <= 132
        assert launch.programs % launch.constants["SPLITS"] == 0
        assert n <= launch.constants["SPLITS"] * item < n + item


@not_interpreted
def test_where_the_compiler_puts_sums_before_the_wait_there_is_another_place_for_them() -> None:
    """In the loop's code, which Triton's pipeliner has put in order, a release first: the sums of this round. Then what
    waits for the round before: acquire, release for the reduction, acquire for the means."""
    _, launch = launches("skewed", 16384)
    code = ahead.compiled(launch, capability=90).asm["ttgir"]
    loop = code[code.index("scf.for") :]
    assert re.findall(r"tt\.atomic_rmw add, (\w+)", loop)[:4] == ["release", "acquire", "release", "acquire"]
    for n, sums in ((16384, 2), (65536, 1)):
        sizes = launches("skewed", n)[1].constants
        assert sizes["SUMS"] == sums
        step_of_wait, step_of_sums = sizes["LAG"], (sums + 1) * sizes["TILES"] - 1  # since the round's first
        assert step_of_wait < step_of_sums


def test_only_the_second_of_two_launches_begins_early() -> None:
    assert [launch.options.get("launch_pdl", False) for launch in launches("early", 4096)] == [False, True]
    assert [launch.options.get("launch_pdl", False) for launch in launches("mapped", 4096)] == [False, False]


@pytest.mark.parametrize(("tiles", "lag", "reduce"), [(2, 4, 0), (2, 3, 2), (2, 1, 0), (3, 4, 2), (2, 2, -1)])
def test_an_order_that_would_not_end_is_refused(tiles: int, lag: int, reduce: int) -> None:
    k, anchors = torch.empty(1, 2, 256, 64, dtype=torch.bfloat16, device="meta"), torch.empty(64, 64, device="meta")
    with pytest.raises(ValueError, match="no order that ends"):
        forms.one(k, k, anchors, devices.H100, tile=Tile(64, 0, 4, 3, 2), tiles=tiles, lag=lag, reduce=reduce)


def test_places_that_would_not_end_or_have_no_map_are_refused() -> None:
    k, anchors = torch.empty(1, 2, 256, 64, dtype=torch.bfloat16, device="meta"), torch.empty(64, 64, device="meta")
    cut = {"tile": Tile(64, 0, 8, 2, 1), "tiles": 2}
    for places in (1, 3):
        with pytest.raises(ValueError, match="no multiple of the 2 tiles"):
            forms.roles(k, k, anchors, devices.H100, places=places, **cut)
    with pytest.raises(ValueError, match=r"compute capability 9\.0, not 8\.0"):
        forms.roles(k, k, anchors, devices.A100, places=2, **cut)
    odd = torch.empty(1, 2, 256, 68, dtype=torch.bfloat16, device="meta")[..., :64]
    with pytest.raises(ValueError, match="multiples of 8 elements, not 8, 17408, 68"):
        forms.roles(odd, odd, anchors, devices.H100, places=2, **cut)


def test_other_shapes_are_refused() -> None:
    k, anchors = torch.empty(1, 2, 256, 64, dtype=torch.bfloat16, device="meta"), torch.empty(64, 64, device="meta")
    for keys, others in (
        (k.float(), anchors), (k, anchors[:30]), (k[..., :32], anchors[:, :32]), (k, anchors.expand(2, 64, 64)),
    ):  # fmt: skip
        for form in ("early", "skewed", "specialised"):
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
