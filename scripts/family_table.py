"""The table of a family study: a line a problem and member, the mean over the seeds and each seed, what it costs.

    lines = summary(Path("results/cpu/family"), beside=Path("results/cpu/recall"))     # family.csv
    print(table(lines))                                                                # Markdown

Models of a recall study (scripts/recall_study.py) at the same load and length of training are the same models: they
stand in the table too, and are not trained again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
from scipy import stats

import attentions
from harness.figures.pareto import own_options
from harness.store.record import LESS_IS_BETTER, merit, parse_options, stated
from harness.store.runs import MEASUREMENTS, read

JUDGED = ("top1", "miou", "relative_l2")
KEYS = ["problem", "attention", "options", "m"]
BASE = "anchor init=sharp"  # what a member has to beat
POINTS = "256"  # of an equation, that its name leaves out
FEWEST = 3  # seeds of each, for a word on which is better
RECALL = {"task": "recall", "shapes": "96", "items": "56", "colours": "8", "steps": "500"}  # of a recall study


def summary(out: Path, *, beside: Path | None) -> pd.DataFrame:
    """Columns: problem, attention, options, m, metric, seeds, mean, sd, lowest, highest, values, gain (_low, _high,
    _seeds, _better) over the base, params, flops, latency_ms (latency_low, latency_high). Within a problem the best
    first. Raises UsageError where there is no run."""
    rows = pd.concat([part for part in (labelled(read(out)), recalled(beside)) if len(part)], ignore_index=True)
    costs = rows[rows["metric"].isin(["params", "flops"])].pivot_table(index=KEYS, columns="metric", values="value")
    base, lines = rows[rows["attention"] + rows["options"] == BASE], []
    for key, group in rows[rows["metric"].isin(JUDGED)].groupby([*KEYS, "metric"], sort=False):
        judged = group.drop_duplicates("seed", keep="last").sort_values("seed")["value"]
        lines.append({
            **dict(zip([*KEYS, "metric"], key, strict=True)), "seeds": len(judged), "mean": judged.mean(),
            "sd": judged.std(), "lowest": judged.min(), "highest": judged.max(),
            "values": " ".join(f"{value:.4f}" for value in judged), **_gain(group, base),
        })  # fmt: skip
    found = pd.DataFrame(lines).join(costs.astype(int), on=KEYS)
    found = _with_latency(found, latency_folder(out))
    order = {problem: place for place, problem in enumerate(dict.fromkeys(found["problem"]))}
    found["merit"] = [merit(metric, mean) for metric, mean in zip(found["metric"], found["mean"], strict=True)]
    found["place"] = found["problem"].map(order)
    found = found.sort_values(["place", "m", "merit"], ascending=[True, True, False])
    sizes = found["m"].astype("Int64").replace(0, pd.NA)
    return found.drop(columns=["merit", "place"]).assign(m=sizes).reset_index(drop=True)


def table(lines: pd.DataFrame) -> str:
    """Markdown; `sharp` tells whether all seeds are better than all of `anchor init=sharp`, worse, or neither; then the
    gain over it seed by seed, positive where better, with its 95 % interval and in how many seeds."""
    heads = (
        "problem",
        "attention",
        "m",
        "seeds",
        "mean",
        "sd",
        "lowest",
        "highest",
        "sharp",
        "gain, seed by seed",
        "params",
        "MFLOP",
        "ms",
    )
    written = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for line in lines.itertuples():
        m = "" if pd.isna(line.m) else f"{line.m:.0f}"
        taken = "" if pd.isna(line.latency_ms) else f"{line.latency_ms:.2f}"
        cells = (
            f"{line.problem} ({line.metric})", f"{line.attention}{line.options}", m, f"{line.seeds}",
            f"{line.mean:.4f}", "" if pd.isna(line.sd) else f"{line.sd:.4f}", f"{line.lowest:.4f}",
            f"{line.highest:.4f}", _beside(line, lines), _told(line), f"{line.params:,}", f"{line.flops / 1e6:.2f}",
            taken,
        )  # fmt: skip
        written.append(f"| {' | '.join(cells)} |")
    return "\n".join(written)


def _gain(group: pd.DataFrame, base: pd.DataFrame) -> dict[str, float]:
    """Over the base at the same seed, with the same data and the same start of what they share: the mean, positive
    where it is better, its 95 % interval by Student's t, and how many of how many seeds are better."""
    first = group.iloc[0]
    base = base[(base["problem"] == first["problem"]) & (base["metric"] == first["metric"])]
    base = base[base["m"] == first["m"]] if first["m"] else base
    one, other = (part.drop_duplicates("seed", keep="last").set_index("seed")["value"] for part in (group, base))
    apart = (one - other).dropna() if base["m"].nunique() == 1 else one.iloc[:0]
    apart = -apart if first["metric"] in LESS_IS_BETTER else apart
    if len(apart) < FEWEST or first["attention"] + first["options"] == BASE:
        return dict.fromkeys(("gain", "gain_low", "gain_high", "gain_seeds", "gain_better"), math.nan)
    gain, half = interval(apart.tolist())
    return {
        "gain": gain, "gain_low": gain - half, "gain_high": gain + half,
        "gain_seeds": len(apart), "gain_better": int((apart > 0).sum()),
    }  # fmt: skip


def interval(gains: Sequence[float]) -> tuple[float, float]:
    """The mean of gains and half its 95 % interval by Student's t."""
    half = stats.t.ppf(0.975, len(gains) - 1) * stdev(gains) / math.sqrt(len(gains))
    return mean(gains), float(half)


def _told(line: Any) -> str:
    if pd.isna(line.gain):
        return ""
    half = (line.gain_high - line.gain_low) / 2
    return f"{line.gain:+.4f} ± {half:.4f} ({line.gain_better:.0f} of {line.gain_seeds:.0f})"


def _beside(line: Any, lines: pd.DataFrame) -> str:
    """better or worse where FEWEST seeds of a line and of the base do not overlap, within where they do; else empty."""
    base = lines[(lines["problem"] == line.problem) & (lines["attention"] + lines["options"] == BASE)]
    base = base if pd.isna(line.m) else base[base["m"] == line.m]
    if len(base) != 1 or line.attention + line.options == BASE:
        return ""
    one, less = base.iloc[0], line.metric in LESS_IS_BETTER
    if min(line.seeds, one.seeds) < FEWEST:
        return "few seeds"
    above, below = line.lowest > one.highest, line.highest < one.lowest
    return "within" if not (above or below) else "better" if above != less else "worse"


def latency_folder(out: Path) -> Path:
    """Beside a study's folder: the run that holds what a call of its models takes."""
    return out.with_name(f"{out.name}_latency")


def labelled(rows: Any) -> pd.DataFrame:
    """Rows that are ok with the keys of a line; m is 0 for what has none."""
    parsed = rows["options"].map(parse_options)
    own = [_own(name, options) for name, options in zip(rows["attention"], parsed, strict=True)]
    rows = rows.assign(problem=parsed.map(_problem), own=own, m=rows["m"].fillna(0).astype(int))
    return rows[rows["status"] == "ok"].drop(columns="options").rename(columns={"own": "options"})


def recalled(folder: Path | None) -> pd.DataFrame:
    """The same of a recall study's models at the hard load, or no rows where there is none."""
    if folder is None or not (folder / MEASUREMENTS).exists():
        return pd.DataFrame(columns=[*KEYS, "seed", "metric", "value"])
    rows = read(folder)
    return labelled(rows[rows["options"].map(lambda text: parse_options(text).items() >= RECALL.items())])


def _own(attention: str, options: dict[str, str]) -> str:
    """The member's options without those at their defaults, but for the base's start, which the table names."""
    usual = {name: str(value) for name, value in attentions.spec(attention).defaults.items()}
    plain = {name: value.lower() if value in ("True", "False") else value for name, value in options.items()}
    told = own_options(stated(plain, usual))
    return told or (BASE.removeprefix(attention) if BASE.startswith(f"{attention} ") else "")


def _problem(options: dict[str, str]) -> str:
    if options["task"] == "operator":
        points = options.get("model.points", POINTS)
        return options.get("model.equation", "darcy") + (f"-{points}" if points != POINTS else "")
    return {"classification": "digits", "segmentation": "legend"}.get(options["task"], options["task"])


def _with_latency(lines: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The lines with latency_ms, latency_low and latency_high, empty where nothing was measured."""
    names = {"value": "latency_ms", "ci_low": "latency_low", "ci_high": "latency_high"}
    if not (folder / MEASUREMENTS).exists():
        return lines.assign(**dict.fromkeys(names.values(), math.nan))
    rows = labelled(read(folder))
    return lines.join(rows[rows["metric"] == "latency"].set_index(KEYS)[[*names]].rename(columns=names), on=KEYS)
