"""Which rows a table or a figure is made of: one row a case and metric, failures included. pandas only.

frame = labelled(store.read(folder))          # adds `label` and `series` to every row
rows = metric_rows(frame, "latency")          # value is empty wherever status is not ok
for key, group in settings(rows, FILE): ...   # unlike things apart, never averaged
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from harness.store import problem
from harness.store.record import DTYPES, MODEL_KEYS, PHASES

Frame = Any  # a pandas.DataFrame: type checkers lose track of one at the first boolean index

FILE = ("machine", "device", "scope", "problem", "b", "h", "d")
PANEL = ("phase", "dtype")
ORDER = ("full", "flash", "xformers", "linformer", "nystrom", "anchor")
MODEL = ("model", "task", "data")  # keys of `options` that say which whole model it is
WEIGHTS = "trained.weights"  # the key of `options` that differs with the seed of a training
NUMBERS = ("value", "ci_low", "ci_high", "p20", "p80")
SEEDLESS = (
    "machine", "attention", "backend", "scope", "phase", "b", "h", "n", "d", "dtype", "device", "options",
)  # fmt: skip  # a case without its m, which may be empty, and its seed


def labelled(frame: Frame) -> Frame:
    """The latest row of every machine, case and metric, with the columns `label`, `series` and `problem`.

    label: `anchor:sdpa`, with the options and the seed of which the run holds several for that variant; `anchor` where
    the bare name took several backends, each for other cases;
    series: the same without the backend unless the run holds a case of the variant by more than one;
    problem: `causal kv_heads=2`, or `default` (harness.store.problem): two of these are never ranked or drawn together.
    Scope model is told with the model's name, `model anchorformer_tiny`, or with what it was trained for,
    `model classification digits`: two of these are never in one table or figure.
    """
    frame = frame.drop_duplicates(["machine", "case_id", "metric"], keep="last").copy()
    models = [scope == "model" for scope in frame["scope"]]
    frame.loc[models, "scope"] = [
        " ".join(filter(None, ["model", *map(_options(text).get, MODEL)])) for text in frame.loc[models, "options"]
    ]
    frame["problem"] = frame["options"].map({text: problem.told(text) for text in frame["options"].unique()})
    named = frame["attention"].where(frame["backend"] == "", frame["attention"] + ":" + frame["backend"])
    extra = _distinction(frame)
    known = frame[frame["backend"] != ""]
    several = known.groupby("attention")["backend"].nunique() > 1
    case = [name for name in (*SEEDLESS, "m", "seed") if name != "backend"]
    met = known.groupby(case, dropna=False)["backend"].nunique().groupby("attention").max() > 1
    several, met = (frame["attention"].map(found).fillna(False).astype(bool) for found in (several, met))
    frame["label"] = frame["attention"].where(several & ~met, named) + extra
    frame["series"] = frame["attention"].where(~met, named) + extra
    return frame


def metric_rows(frame: Frame, metric: str) -> Frame:
    """The rows of a metric; a case that failed as a whole stands in with its status. Failed rows carry no value."""
    rows = frame[frame["metric"] == metric]
    if frame.empty:
        return rows
    key = ["machine", "case_id"]
    measured = frame.groupby(key)["status"].transform(lambda status: (status == "ok").any())
    failed = frame[~measured].drop_duplicates(key)
    present = set(map(tuple, rows[key].to_numpy()))
    failed = failed[[tuple(pair) not in present for pair in failed[key].to_numpy()]]
    if len(failed):
        import pandas

        units = dict(zip(rows["scope"], rows["unit"], strict=True))
        first = next(iter(units.values()), "")
        failed = failed.assign(metric=metric, unit=[units.get(scope, first) for scope in failed["scope"]])
        rows = pandas.concat([rows, failed]) if len(rows) else failed
    rows = rows.copy()
    broken = (rows["status"] == "ok") & ~rows["value"].map(lambda value: math.isfinite(value))
    rows.loc[broken, "note"] = "the value is not finite"
    rows.loc[broken, "status"] = "error"
    rows.loc[rows["status"] != "ok", list(NUMBERS)] = math.nan
    return rows


def pool_seeds(frame: Frame) -> Frame:
    """Trained models that differ in nothing but the seed as one: seeds repeat a training, they are no alternatives.

    The value is the median over the seeds, the interval goes from the lowest end to the highest, the case is the first
    seed's. Rows of one seed keep their index, pooled ones follow with new ones. To be labelled again afterwards.
    """
    import pandas

    trained = frame["scope"].str.startswith("model") & frame["options"].map(lambda text: "task" in _options(text))
    rows = frame[trained].assign(options=lambda rows: rows["options"].map(_seedless))
    keys = [*(rows[name] for name in SEEDLESS), rows["m"].fillna(-1)]
    rows = rows[rows.groupby(keys)["seed"].transform("nunique") > 1].sort_values("seed", kind="stable")
    if rows.empty:
        return frame
    keys = [*(rows[name] for name in SEEDLESS), rows["m"].fillna(-1)]
    rows = rows.assign(case_id=rows.groupby(keys)["case_id"].transform("first"))
    pooled = pandas.DataFrame([_pooled(group) for _, group in rows.groupby([*keys, rows["metric"]], sort=False)])
    pooled.index = range(int(frame.index.max()) + 1, int(frame.index.max()) + 1 + len(pooled))
    return pandas.concat([frame.drop(index=rows.index), pooled.astype(frame.dtypes.to_dict())])


def _pooled(seeds: Frame) -> Any:
    """One metric of one case over its seeds; the first failure where all failed."""
    good = seeds[(seeds["status"] == "ok") & seeds["value"].notna()]
    row = (good if len(good) else seeds).iloc[0].copy()
    if len(good):
        row["value"], row["ci_low"], row["ci_high"] = (
            good["value"].median(),
            good["ci_low"].min(),
            good["ci_high"].max(),
        )
        row["p20"] = row["p80"] = math.nan
        row["samples"], row["note"] = (
            None,
            f"median of {len(good)} seeds, its interval from the lowest end to the highest",
        )
    row["seed"], row["time_utc"] = seeds["seed"].min(), seeds["time_utc"].max()
    return row


def settings(rows: Frame, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], Frame]]:
    """The rows split by the columns `names`: ({name: value}, rows), phases and dtypes in record's order."""
    for key, group in sorted(rows.groupby(list(names), sort=False), key=lambda item: _in_order(names, item[0])):
        yield dict(zip(names, key, strict=True)), group


def sort_key(attention: str, label: str = "", m: int | None = None) -> tuple[Any, ...]:
    """Exact variants first, then those of ORDER, then plugins by name; a variant's backends together, m ascending."""
    return place(attention, ORDER), label, -1 if m is None else m


def usual(backends: Sequence[str]) -> str:
    """The backend that the most of a line's points are by, of several the first: what the others are told against."""
    return max(dict.fromkeys(backends), key=list(backends).count)


def size(n: int) -> str:
    """A token count as text that reads back exactly: 4096 → 4k, 1536 → 1.5k, 1048576 → 1M, 200000 → 200000."""
    for unit, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if n >= unit and n * 2 % unit == 0:
            return f"{n / unit:g}{letter}"
    return str(n)


def printable(text: str, *, limit: int = 120) -> str:
    """Text for one line of a terminal or a figure: control characters replaced, the middle of a long one left out."""
    text = "".join(c if c.isprintable() else "�" for c in text)
    if len(text) <= limit:
        return text
    return f"{text[: limit - limit // 3 - 1]}…{text[-(limit // 3) :]}"


def _in_order(names: Sequence[str], values: Sequence[Any]) -> tuple[Any, ...]:
    orders = {"phase": PHASES, "dtype": DTYPES}
    return tuple(
        problem.order(v) if n == "problem" else place(v, orders[n]) if n in orders else v
        for n, v in zip(names, values, strict=True)
    )


def _distinction(frame: Frame) -> Any:
    """` key=value` for each option, and for the seed, that takes several values within a variant and scope of the run.

    Of a model's options not those that its scope and n tell, nor its weights where the seed and the others do.
    """
    import pandas

    text = pandas.Series("", index=frame.index, dtype=object)
    for (_, scope), group in frame.groupby(["attention", "scope"]):
        untold = {*problem.PROBLEM_KEYS, *((*MODEL_KEYS, *MODEL) if scope.startswith("model") else ())}
        if not group.groupby([group["options"].map(_seedless), "seed"])["options"].nunique().gt(1).any():
            untold.add(WEIGHTS)
        parsed = {
            options: {key: value for key, value in _options(options).items() if key not in untold}
            for options in group["options"].unique()
        }
        keys = sorted({key for options in parsed.values() for key in options})
        telling = [key for key in keys if len({options.get(key) for options in parsed.values()}) > 1]
        for options, values in parsed.items():
            told = "".join(f" {key}={values[key]}" for key in telling if key in values)
            text[group.index[group["options"] == options]] = told
        if group["seed"].nunique() > 1:
            text[group.index] += " seed=" + group["seed"].astype(str)
    return text


def _seedless(options: str) -> str:
    """The options without what a training's seed decides."""
    return ";".join(part for part in options.split(";") if not part.startswith(f"{WEIGHTS}="))


def _options(text: str) -> dict[str, str]:
    """key=value;… as record.canonical_options writes it, and whatever else a file may hold."""
    parts = (part.partition("=") for part in text.split(";") if part)
    return {key: value for key, _, value in parts}


def place(name: str, order: Sequence[str]) -> tuple[int, str]:
    """A sort key: the names of `order` first, in its order, then the rest by name."""
    return (order.index(name), "") if name in order else (len(order), name)
