"""results/cpu/recall: its table, at 500 steps, and that of many questions, at 1500."""

from __future__ import annotations

from statistics import mean

from quotes import Page, Row, Rows, option

PAGE = "results/cpu/recall/README.md"
LOADS = (("24", "12"), ("48", "28"), ("96", "56"))
OWN = ("init", "logits", "self", "importance")


def quote(page: Page) -> None:
    rows = page.rows("results/cpu/recall").where(options=option(task="recall", steps="500"))
    top1 = rows.where(metric="top1")
    body = []
    for shapes, items in LOADS:
        load = top1.where(options=option(shapes=shapes, items=items))
        for (name, m), own in sorted(_models(load).items()):
            values = [float(row["value"]) for row in own]
            flops = rows.all(metric="flops", case_id=tuple(row["case_id"] for row in own))[0]
            body.append([
                shapes, items, name, str(m or ""), str(len(own)), *(f"{of(values):.3f}" for of in (mean, min, max)),
                f"{flops / 1e6:.2f}",
            ])  # fmt: skip
    page.table("| shapes | items | attention | m | seeds | top1, mean | lowest | highest | MFLOP |", body)
    many = page.rows("results/cpu/recall").where(options=option(questions="4", steps="1500"), n="64", metric="top1")
    answered = {model: [float(row["value"]) for row in own] for model, own in _models(many).items()}
    page.table(
        "| attention | m | seeds | top1, mean | lowest | highest |",
        [[name, str(m or ""), str(len(values)), *(f"{of(values):.3f}" for of in (mean, min, max))]
         for (name, m), values in sorted(answered.items(), key=lambda one: -mean(one[1]))],
    )  # fmt: skip


def _models(rows: Rows) -> dict[tuple[str, int], list[Row]]:
    """The rows of each model's seeds, by its name and m; 0 where it has none."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((_name(row["attention"], row["options"]), int(row["m"] or 0)), []).append(row)
    return found


def _name(attention: str, options: str) -> str:
    given = dict(part.split("=", 1) for part in options.split(";"))
    return " ".join([attention, *(f"{key}={given[key]}" for key in OWN if key in given)])
