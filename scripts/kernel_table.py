"""The anchor kernels against everything else, and issue 4's acceptance lines, from the runs of scripts/gpu_suite.

    python scripts/kernel_table.py results/h100/kernels results/h100/more results/h100/long \\
        --crossover results/h100/crossover.json --tests results/h100/tests.xml

A line is one implementation at one n, m and phase: median ms; minimal bytes over latency as a share of the copy
bandwidth measured in that run; how many times faster than the eager reference, torch.compile and the best exact
attention at that n; peak memory above inputs and outputs as a share of the inputs. Missing files are skipped.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from harness.store import runs as store  # noqa: E402
from harness.store.ceilings import of_row  # noqa: E402
from harness.store.selection import size  # noqa: E402
from harness.store.table import write  # noqa: E402

KERNELS = ("triton", "split", "single")  # backends of anchor that are the Triton kernels
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
REPEATS_TEST = "test_repeats_bit_for_bit_on_a_device"
ACCEPTED = {"b": 8, "h": 12, "d": 64, "dtype": "bfloat16"}  # where the issue sets its limits, at m = 64
UNITS = "ms, share of copy bandwidth, times faster than reference, compile and best exact, memory above as % of inputs"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One implementation at one size: its metrics where they are ok, else its status; m is None for exact attention."""

    name: str
    setting: tuple[Any, ...]  # b, h, d, dtype, device
    n: int
    m: int | None
    phase: str
    status: str
    copy_gb_per_s: float | None
    values: dict[str, float] = field(default_factory=dict)

    @property
    def ms(self) -> float:
        return self.values.get("latency", math.nan)

    @property
    def share(self) -> float:
        """Of the copy bandwidth, counting each input read once and each result written once."""
        moved = self.values.get("bytes_moved", math.nan) * 2**20
        return moved / (self.ms * 1e-3) / (self.copy_gb_per_s * 1e9) if self.copy_gb_per_s else math.nan

    @property
    def above(self) -> float:
        """Peak memory above inputs and outputs, over the inputs: k and v (exact attention: and q)."""
        b, h, d, dtype, _ = self.setting
        tensor, inputs = b * h * self.n * d * ITEMSIZE[dtype], 3 if self.m is None else 2
        outputs = tensor if self.phase == "forward" else (1 + inputs) * tensor + (self.m or 0) * d * ITEMSIZE[dtype]
        return (self.values.get("peak_memory", math.nan) * 2**20 - outputs) / (inputs * tensor)


def entries(folders: Sequence[Path]) -> list[Entry]:
    """Every forward and train case of the runs; of one that was measured twice, the latest."""
    import pandas

    found: dict[tuple[Any, ...], Entry] = {}
    for folder in folders:
        environment = store.read_environment(folder)
        for _, rows in store.read(folder).groupby("case_id", sort=False):
            first = rows.iloc[0]
            if first["phase"] == "backward" or first["scope"] != "core":
                continue
            ok = rows[(rows["status"] == "ok") & rows["value"].notna()]
            backend = f":{first['backend']}" if first["backend"] else ""
            entry = Entry(
                name=first["attention"] + backend,
                setting=(*(int(first[x]) for x in "bhd"), first["dtype"], first["device"]),
                n=int(first["n"]), m=None if pandas.isna(first["m"]) else int(first["m"]), phase=first["phase"],
                status="ok" if "latency" in set(ok["metric"]) else first["status"],
                copy_gb_per_s=of_row(environment, first)[0],
                values=dict(zip(ok["metric"], ok["value"].astype(float), strict=True)),
            )  # fmt: skip
            found[entry.setting, entry.n, entry.m, entry.phase, entry.name] = entry
    return list(found.values())


def faster(entry: Entry, among: Sequence[Entry], than: str) -> float:
    """How many times faster an entry is than `reference`, `compile` or the best `exact` at its size; NaN if unknown."""
    rivals = [x for x in among if (x.setting, x.n, x.phase) == (entry.setting, entry.n, entry.phase)]
    if than == "exact":
        times = [x.ms for x in rivals if x.m is None and x.status == "ok"]
    else:
        times = [x.ms for x in rivals if x.name == f"anchor:{than}" and x.m == entry.m and x.status == "ok"]
    return min(times, default=math.nan) / entry.ms


def table(among: Sequence[Entry]) -> Iterator[str]:
    """The lines of the table, a block for each setting."""
    head = ("n", "m", "phase", "implementation", "ms", "copy", "x ref", "x comp", "x exact", "above")
    form = "{:>5} {:>4} {:<8}{:<18}{:>10}{:>7}{:>8}{:>8}{:>9}{:>9}"
    for setting in sorted({x.setting for x in among}, key=str):
        b, h, d, dtype, device = setting
        yield f"b={b} h={h} d={d} {dtype} {device}: {UNITS}"
        yield form.format(*head)
        of = [x for x in among if x.setting == setting]
        for x in sorted(of, key=lambda x: (x.n, x.m or math.inf, x.phase, x.status != "ok", x.ms, x.name)):
            place = (size(x.n), "-" if x.m is None else x.m, x.phase, x.name)
            ratios = [_figure(faster(x, among, than), "{:.2f}") for than in ("reference", "compile", "exact")]
            if x.m is None:
                ratios[:2] = ["", ""]
            figures = (_figure(x.ms, "{:.4g}"), _figure(x.share, "{:.2f}"), *ratios, _figure(x.above, "{:.2%}"))
            yield form.format(*place, *(figures if x.status == "ok" else (x.status, *[""] * 5))).rstrip()
        yield ""


def acceptance(among: Sequence[Entry], *, crossover: Path | None, tests: Path | None) -> Iterator[tuple[str, str, str]]:
    """(line of the issue, met / not met / not measured, the figures)."""
    at = [x for x in among if dict(zip(("b", "h", "d", "dtype"), x.setting, strict=False)) == ACCEPTED]
    ours = [x for x in at if x.status == "ok" and x.name in {f"anchor:{name}" for name in KERNELS}]
    main = [x for x in ours if x.m == 64]

    for n in (16384, 65536):
        here = [x for x in main if x.n == n]
        yield _least(f"forward >= 0.80 of the copy bandwidth, n={n}", 0.80, here, "forward", lambda x: x.share)
        split = [x for x in here if x.name == "anchor:split"]
        yield _least(f"forward >= 0.70 from two launches, n={n}", 0.70, split, "forward", lambda x: x.share)
        yield _least(f"train >= 0.60 of its minimal bytes, n={n}", 0.60, here, "train", lambda x: x.share)
    worst = max((x for x in main if x.n == 65536 and not math.isnan(x.above)), key=lambda x: x.above, default=None)
    text = f"{worst.above:.2%} ({worst.name}, {worst.phase})" if worst else ""
    yield "peak above inputs and outputs < 1 % of inputs, n=65536", _verdict(worst and worst.above < 0.01), text
    for phase in ("forward", "train"):
        for than, least in (("reference", 5.0), ("compile", 1.5)):
            yield _everywhere(f"{phase} >= {least:g}x over {than}, every n >= 4096", least, main, at, phase, than)
    exact = [x for x in main if x.n == 16384]
    yield _least("forward >= 40x over the best exact, n=16384", 40, exact, "forward", lambda x: faster(x, at, "exact"))
    yield "crossover against flash below n=1024", *_crossover(crossover)
    yield "two runs bit-equal", *_repeats(tests)
    yield "bf16 error no worse than the eager reference's", *_errors(ours, at)


def _least(
    line: str, least: float, among: Sequence[Entry], phase: str, figure: Any
) -> tuple[str, str, str]:  # fmt: skip
    """Whether the fastest of some implementations reaches a figure."""
    found = [x for x in among if x.phase == phase and not math.isnan(figure(x))]
    best = max(found, key=figure, default=None)
    text = f"{figure(best):.3g} ({best.name})" if best else ""
    return line, _verdict(best and figure(best) >= least), text


def _everywhere(
    line: str, least: float, among: Sequence[Entry], rivals: Sequence[Entry], phase: str, than: str
) -> tuple[str, str, str]:  # fmt: skip
    """Whether at every n from 4096 on the fastest implementation is so many times faster."""
    best: dict[int, float] = {}
    for x in among:
        ratio = faster(x, rivals, than)
        if x.n >= 4096 and x.phase == phase and not math.isnan(ratio):
            best[x.n] = max(ratio, best.get(x.n, 0.0))
    text = ", ".join(f"n={size(n)}: {best[n]:.2f}" for n in sorted(best))
    return line, _verdict(all(x >= least for x in best.values()) if best else None), text


def _crossover(path: Path | None) -> tuple[str, str]:
    if path is None or not path.is_file() or not path.stat().st_size:
        return _verdict(None), ""
    answer = json.loads(path.read_text(encoding="utf-8"))
    n = answer["high"] if answer["kind"] != "found" else answer["n"]
    return _verdict(answer["kind"] != "never" and n < 1024), answer["answer"]


def _repeats(path: Path | None) -> tuple[str, str]:
    """From pytest's JUnit file."""
    if path is None or not path.is_file() or not path.stat().st_size:
        return _verdict(None), ""
    cases = [x for x in ElementTree.parse(path).iter("testcase") if x.get("name", "").startswith(REPEATS_TEST)]
    ran = [x for x in cases if x.find("skipped") is None]
    failed = [x.get("name", "") for x in ran if x.find("failure") is not None or x.find("error") is not None]
    return _verdict(not failed if ran else None), f"{len(ran)} tests ran" + "".join(
        f", {name} failed" for name in failed
    )


def _errors(ours: Sequence[Entry], among: Sequence[Entry]) -> tuple[str, str]:
    worst, where = math.nan, ""
    for x in ours:
        same = (x.setting, x.n, x.m, x.phase)
        eager = [y for y in among if y.name == "anchor:reference" and (y.setting, y.n, y.m, y.phase) == same]
        if eager and "numeric_error" in eager[0].values and "numeric_error" in x.values:
            ratio = x.values["numeric_error"] / eager[0].values["numeric_error"]
            if not ratio <= worst:
                worst, where = ratio, f"{x.name} n={size(x.n)} m={x.m} {x.phase}"
    return _verdict(
        None if math.isnan(worst) else worst <= 1
    ), f"at most {worst:.3f} times it ({where})" if where else ""


def _verdict(met: object) -> str:
    return "not measured" if met is None else "met" if met else "not met"


def _figure(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and the acceptance list. Exit code 5 where no folder holds a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="run folders")
    parser.add_argument("--crossover", type=Path, help="what `harness crossover anchor flash --json` printed")
    parser.add_argument("--tests", type=Path, help="JUnit file of the GPU tests")
    given = parser.parse_args(arguments)
    found = entries([folder for folder in given.run if (folder / store.MEASUREMENTS).is_file()])
    if not found:
        print(f"kernel_table: no run in {', '.join(map(str, given.run))}", file=sys.stderr)
        return 5
    lines = [*table(found), "acceptance, at b=8 h=12 d=64 m=64 bfloat16"]
    for line, verdict, figures in acceptance(found, crossover=given.crossover, tests=given.tests):
        lines.append(f"  {verdict:<13}{line}{': ' + figures if figures else ''}")
    write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
