"""docs/models.md: what whole models take on two CPU cores."""

from __future__ import annotations

from quotes import Page, option

PAGE = "docs/models.md"
FOREIGN = ("timm:vit_small_patch16_224", "timm:vit_base_patch16_dinov3", "hf:gpt2")


def quote(page: Page) -> None:
    tiny = page.rows("results/cpu/models").where(options=option(model="anchorformer_tiny"), phase="forward")
    page.table(
        "| tiny | m | 224² | 448² | 896² |",
        [[name, m, *(tiny.where(options=option(resolution=side)).cell(attention=name, m=m)
                     for side in ("224", "448", "896"))]
         for name, m in (("full", ""), ("flash", ""), ("anchor", "30"))],
    )  # fmt: skip
    ratios = [
        tiny.one(metric="latency", attention="anchor", options=option(resolution=side))
        / tiny.one(metric="latency", attention="flash", options=option(resolution=side))
        for side in ("896", "224")
    ]
    page.say("anchors take {:.2f} times flash's time at 896², {:.2f} times at 224².", *ratios)
    foreign = page.rows("results/cpu/foreign")
    page.table(
        "| model | phase | as-is | flash | anchor, m = 30 |",
        [[f"`{name}`", phase, *(foreign.where(options=option(model=name), phase=phase, attention=attention).cell()
                                for attention in ("as-is", "flash", "anchor"))]
         for name in FOREIGN for phase in ("forward", "step")],
    )  # fmt: skip
    shares = [100 * _by_query(heads) for heads in (3, 12)]
    page.say("{:.0f} % (tiny) to {:.0f} % (base) of that saving is the query projection", *shares)


def _by_query(heads: int, *, n: int = 198, d: int = 64, m: int = 30) -> float:
    """The query projection's share of the multiply-adds that m anchors save in a block at 224²."""
    width = heads * d
    query, softmax, anchors = n * width**2, 2 * n**2 * width, 3 * n * m * width
    return query / (query + softmax - anchors)
