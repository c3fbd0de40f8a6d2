"""The tables of the two vision studies' pages: a line a problem and attention."""

from __future__ import annotations

from statistics import mean, median

from quotes import Row, Rows

HEADER = "| problem | attention | seeds | | mean | lowest | highest | GMAC | ms |"
OWN = ("init", "logits")


def body(rows: Rows) -> list[list[str]]:
    """Problems and attentions in the order of the rows."""
    judged = rows.where(metric=("top1", "miou", "map"))
    lines = []
    for problem in dict.fromkeys(_problem(row) for row in judged):
        own = [row for row in judged if _problem(row) == problem]
        for name in dict.fromkeys(_name(row) for row in own):
            seeds = [row for row in own if _name(row) == name]
            cases = tuple(row["case_id"] for row in seeds)
            values = [float(row["value"]) for row in seeds]
            lines.append([
                problem, name, str(len(seeds)), seeds[0]["metric"], *(f"{of(values):.3f}" for of in (mean, min, max)),
                f"{rows.all(metric='flops', case_id=cases)[0] / 2e9:.4f}",
                f"{median(rows.all(metric='latency', case_id=cases)):.2f}",
            ])  # fmt: skip
    return lines


def _options(row: Row) -> dict[str, str]:
    return dict(part.split("=", 1) for part in row["options"].split(";") if part)


def _problem(row: Row) -> str:
    options = _options(row)
    return " ".join(filter(None, [options["task"], options.get("data", "")]))


def _name(row: Row) -> str:
    options = _options(row)
    return " ".join([row["attention"], *(f"{key}={options[key]}" for key in OWN if key in options)])
