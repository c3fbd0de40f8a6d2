"""results/cpu/recall: its table, at 500 steps, those of longer sequences, and that of many questions, at 1500."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from quotes import Page, Row, Rows, option

PAGE = "results/cpu/recall/README.md"
LOADS = (("24", "12"), ("48", "28"), ("96", "56"))
LENGTHS = ((64, 500), (64, 1500), (128, 500), (128, 1500), (256, 500), (512, 500))  # tokens, steps
SHARES = (16, 8, 4, 2)  # of the tokens, that are anchors
SHARP = option(init="sharp", self="", importance="")
COUNTED = option(logits="cosine", self="excluded", importance="true")
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
    _longer(page)
    many = page.rows("results/cpu/recall").where(options=option(questions="4", steps="1500"), n="64", metric="top1")
    answered = {model: [float(row["value"]) for row in own] for model, own in _models(many).items()}
    page.table(
        "| attention | m | seeds | top1, mean | lowest | highest |",
        [[name, str(m or ""), str(len(values)), *(f"{of(values):.3f}" for of in (mean, min, max))]
         for (name, m), values in sorted(answered.items(), key=lambda one: -mean(one[1]))],
    )  # fmt: skip


def _longer(page: Page) -> None:
    """Seven tokens of eight are items; a blank was not trained."""
    heads = " | ".join(f"m=n/{share}" for share in SHARES)
    page.table(
        f"| | full | anchor {heads} |",
        [[f"n = {n}, {steps} steps", _kept(page, n, steps, attention="full"), *_by_share(page, n, steps, SHARP)]
         for n, steps in LENGTHS],
    )  # fmt: skip
    page.table(
        f"| with importance | anchor {heads} |",
        [[f"n = {n}, {steps} steps", *told] for n, steps in LENGTHS if any(told := _by_share(page, n, steps, COUNTED))],
    )


def _by_share(page: Page, n: int, steps: int, options: Callable[[str], bool]) -> list[str]:
    return [_kept(page, n, steps, attention="anchor", m=str(n // share), given=options) for share in SHARES]


def _kept(
    page: Page, n: int, steps: int, *, given: Callable[[str], bool] = lambda options: True, **wanted: str
) -> str:  # fmt: skip
    load = option(items=str(7 * n // 8), shapes=str(3 * n // 2), steps=str(steps), questions="")
    rows = page.rows("results/cpu/recall").where(metric="top1", n=str(n), options=load, **wanted)
    values = [float(row["value"]) for row in rows if given(row["options"])]
    return f"{mean(values):.3f}" if values else ""


def _models(rows: Rows) -> dict[tuple[str, int], list[Row]]:
    """The rows of each model's seeds, by its name and m; 0 where it has none."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((_name(row["attention"], row["options"]), int(row["m"] or 0)), []).append(row)
    return found


def _name(attention: str, options: str) -> str:
    given = dict(part.split("=", 1) for part in options.split(";"))
    return " ".join([attention, *(f"{key}={given[key]}" for key in OWN if key in given)])
