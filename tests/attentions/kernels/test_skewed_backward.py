"""scripts/anchor_forms/skewed_backward.py: values under the interpreters, and what becomes of it without a device."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from driverless import launched

ahead = pytest.importorskip("attentions.kernels.ahead", reason="needs Triton with its compiler for NVIDIA GPUs")

from attentions.kernels.anchor import devices, plan, plan_backward  # noqa: E402
from attentions.kernels.anchor.plan import Launch, kept_places  # noqa: E402
from attentions.kernels.anchor.tiles import Tile  # noqa: E402

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted here", allow_module_level=True)

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))
from anchor_forms import backward_forms  # noqa: E402  # pyright: ignore[reportMissingImports]

REPORTS = sorted((ROOT / "results" / "compiler").glob("forms_triton_*.csv"))
SKEWED = [form for form in backward_forms.FORMS if form != "split"]


def test_values_under_the_interpreters_begin(interpreted: Callable[[], None]) -> None:
    """They take about as long as compiling does, on the other core; the last test here waits for them."""


def tokens(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(8, 12, n, 64, dtype=torch.bfloat16, device="meta"), torch.empty(64, 64, device="meta")


def skewed(form: str, n: int) -> Launch:
    k, anchors = tokens(n)
    _, launch, _ = backward_forms.FORMS[form](k, k, k, anchors, devices.H100).launches
    return launch


@pytest.mark.parametrize(("form", "n"), [("skewed", 16384), ("skewed", 65536), ("skewed fine", 65536)])
def test_compiles_without_spills_and_reads_tokens_by_maps_alone(form: str, n: int) -> None:
    launch = skewed(form, n)
    found = ahead.compile_launch(launch, capability=90)
    assert (found.spilled_bytes, found.resident, found.threads, found.warp_products) == (0, 1, 512, 0)
    assert found.shared_bytes <= ahead.SHARED_LIMIT[90], found
    code = ahead.compiled(launch, capability=90).asm
    kept = launch.constants["KEPT"]
    assert len(re.findall(r"cp\.async\.bulk\.tensor\.4d\.shared::\S+complete_tx", code["ptx"])) == 3 + (not kept)
    assert len(re.findall(r"cp\.async\.bulk\.tensor\.4d\.global", code["ptx"])) == 2, "dK and dV"
    assert "cp.async.cg" not in code["ptx"]
    # The anchors; the sums that are reduced with W's rows and δ; W, dM and dδ.
    assert code["ttgir"].count("= tt.load") == 7
    registers = {int(each) for each in re.findall(r"setmaxnreg\.\w+\.sync\.aligned\.u32\s+(\d+)", code["ptx"])}
    works, relates, produces = (208, 64, 32) if launch.constants["BLOCK_N"] == 64 else (216, 48, 32)
    assert {works, relates, produces} < registers
    assert 256 * works + 128 * relates + 128 * produces <= 65536
    # A product's instructions follow each other: S, A's two and the last three are waited for five times in all.
    assert code["ptx"].count("wgmma.wait_group") == 5


@pytest.mark.parametrize("form", SKEWED)
def test_a_launch_whose_programs_wait_has_all_there_at_once_or_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match="up to 67584 tokens, which are on the device at once"):
        skewed(form, 2**17)
    for n in (1, 1000, 4096, 16384, 33792, 65536, 67584):
        launch = skewed(form, n)
        sizes = launch.constants
        item = sizes["TILES"] * sizes["BLOCK_N"]
        assert launch.options["launch_cooperative_grid"] is True
        assert launch.programs <= 132
        splits = launch.arguments["splits"]
        assert launch.programs % splits == 0
        assert n <= splits * item < n + item
        assert sizes["PLACES"] >= sizes["LAG"] + 2
        assert sizes["KEPT"] or (form == "skewed" and n > 33792), "G is read once"


def test_what_would_not_end_or_has_no_map_is_refused() -> None:
    k, anchors = tokens(256)
    right = {"tile": Tile(64, 0, 8, 1, 1), "tiles": 2, "lag": 3, "places": 5, "kept": True}

    def one(device: devices.Device = devices.H100, keys: torch.Tensor = k, **other: Any) -> plan.Plan:
        return backward_forms.one(keys, keys, keys, anchors, device, **{**right, **other})

    assert len(one().launches) == 3
    for lag in (1, 4):
        with pytest.raises(ValueError, match="no order that ends"):
            one(lag=lag)
    with pytest.raises(ValueError, match="a lag of 3 tiles takes 5 places, not 4"):
        one(places=4)
    with pytest.raises(ValueError, match=r"compute capability 9\.0, not 8\.0"):
        one(devices.A100)
    with pytest.raises(ValueError, match="16-bit inputs and anchors"):
        one(keys=k.float())
    odd = torch.empty(1, 2, 256, 68, dtype=torch.bfloat16, device="meta")[..., :64]
    with pytest.raises(ValueError, match=r"multiples of 8 elements, not 8, 17408, 68"):
        one(keys=odd)


def test_a_plan_runs_through_tritons_own_launcher_all_programs_together() -> None:
    k, v, g = (torch.randn(2, 3, 600, 64).to(torch.bfloat16) for _ in range(3))
    anchors, kept = torch.randn(64, 64), torch.empty(kept_places(6, 64, 64)[2])
    found = backward_forms.FORMS["skewed"](g, k, v, anchors, devices.H100)
    filled = [torch.empty_like(x) for x in (k, v, anchors)]
    given = zip(plan_backward.TENSORS, (g, k, v, anchors, kept, *filled), strict=True)
    programs, ran, scratch = launched(found, dict(given))
    assert programs == [launch.programs for launch in found.launches]
    assert [each.launch_cooperative_grid for each in ran] == [False, True, False]
    assert ran[1].num_warps == 16
    assert scratch == [5 * 128 * found.launches[1].programs], "five tensor maps a program"


def test_the_committed_reports_have_these_forms_and_nothing_spills() -> None:
    assert [path.stem for path in REPORTS] == ["forms_triton_3.6.0", "forms_triton_3.9.0"]
    for path in REPORTS:
        report = pd.read_csv(path)
        report = report[report.phase == "backward"]
        assert set(report.form) == set(backward_forms.FORMS)
        assert (report.spilled_bytes == 0).all()
        assert (report.resident >= 1).all()
        assert (report.shared_bytes <= ahead.SHARED_LIMIT[90]).all()
        for form in SKEWED:
            for n in (16384, 65536):
                launch = skewed(form, n)
                of_form = report[(report.form == form) & (report.n == n)]
                assert list(of_form.tokens) == [launch.constants["BLOCK_N"]]
                assert list(of_form.programs) == [launch.programs]


def test_values_under_the_interpreters(interpreted: Callable[[], None]) -> None:
    interpreted()
