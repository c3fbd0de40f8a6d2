"""What attentions.swap makes of every family of timm: which attentions are taken, and by how much the logits move.

    python scripts/swap_timm.py                      # writes docs/swapping.md; eight minutes on two cores
    python scripts/swap_timm.py --family davit --family pit      # prints their rows

Of each family (a module of timm.models) the smallest model stands for each set of attention classes that occur in it,
cut to depth 2 where it is large and its constructor knows a depth. No weights are fetched: linear layers are drawn with
std 1/√inputs and layer scales are 1, so that attention matters to the logits; how much is shown by `none`, attention
removed, in the same places. A family whose attention is kept must move by less than 1e-5.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import attentions
from attentions import AttentionError
from attentions.hosts import Source, read
from attentions.proof import proven

PAGE = Path(__file__).parents[1] / "docs" / "swapping.md"
LARGE = 12e6  # parameters, above which a model is cut
KEPT = 1e-5
TOKENS = 1 << 16  # the longest input that any of them has
HEAD = """# What a swap takes, over timm

Which models of timm {version} `attentions.swap(model, "full")` can change, and by how much their logits then move. Of
{count} models {taken} have attention that is taken, and move by at most {worst}; {left} have none.

Of each family the smallest model stands for each set of attention classes in it, with random weights, in float64, on
one random image. *Moved* is the largest change of the logits as a share of the largest logit; beside it is the change
when attention is removed (`none`) in the same places. What agreed with softmax attention
[when it was tried](models.md#swap-it-into-a-trained-model) is taken; the rest stays as it was, for the reason given.
`python scripts/swap_timm.py` writes this page.

| family | model | taken | moved | `none` moves | left as it was |
|---|---|---|---:|---:|---|
"""
TAIL = """
Families in which nothing is called attention or has the parts `qkv` and `proj`: {without}.
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One model's row. taken: classes and their number; moved, removed: of the logits; left: reasons."""

    family: str
    model: str
    taken: str
    moved: float | None
    removed: float | None
    left: str

    def __str__(self) -> str:
        shares = [f"{share:.1g}" if share is not None else "" for share in (self.moved, self.removed)]
        cells = (self.family, f"`{self.model}`", self.taken, *shares, self.left.replace("|", "\\|"))
        return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> int:
    """Exit code 1 where a kept model moved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", default=[], help="one module of timm.models; repeatable")
    parser.add_argument("--out", type=Path, default=PAGE)
    chosen = parser.parse_args(arguments)
    families = chosen.family or timm.list_modules()
    outcomes, without = [], []
    for family in families:
        models = smallest(family)
        if not models:
            without.append(family)
        for name in models:
            outcomes.append(outcome(family, name))
            print(outcomes[-1], file=sys.stdout if chosen.family else sys.stderr, flush=True)
    if not chosen.family:
        chosen.out.write_text(page(outcomes, without), encoding="utf-8")
    return int(any(each.moved is not None and not each.moved <= KEPT for each in outcomes))


def page(outcomes: list[Outcome], without: list[str]) -> str:
    """The document."""
    moves = [each.moved for each in outcomes if each.moved is not None]
    head = HEAD.format(
        version=timm.__version__, count=len(outcomes), taken=len(moves), worst=f"{max(moves):.0e}",
        left=len(outcomes) - len(moves),
    )  # fmt: skip
    return head + "".join(f"{each}\n" for each in outcomes) + TAIL.format(without=", ".join(without))


def smallest(family: str) -> list[str]:
    """The model of fewest parameters for each set of attention classes in a family."""
    best: dict[frozenset[str], tuple[int, str]] = {}
    for name in timm.list_models(module=family):
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            model = timm.create_model(name)
        classes = frozenset(type(part).__name__ for part in attention_of(model).values())
        size = sum(parameter.numel() for parameter in model.parameters())
        if classes:
            best[classes] = min(best.get(classes, (size, name)), (size, name))
    return [name for _, name in sorted(best.values())]


def attention_of(model: nn.Module) -> dict[str, nn.Module]:
    """What a swap looks at: everything that it recognises as attention, replaceable or not."""
    return {name: part for name, part in model.named_modules() if read(part) is not None}


def outcome(family: str, name: str) -> Outcome:
    """Swap in `full` and `none`, and compare the logits of one image."""
    torch.manual_seed(0)
    model = create(name)
    try:
        removed = copy.deepcopy(model)
        swapped = copy.deepcopy(model)
        report = attentions.swap(swapped, "full", tokens=TOKENS)
    except AttentionError:
        left = ((part, f"{type(module).__name__} {why}") for part, module, why in refusals(model))
        return Outcome(family=family, model=name, taken="", moved=None, removed=None, left=_reasons(left))
    attentions.swap(removed, "none", tokens=TOKENS)
    image = torch.randn(1, *model.pretrained_cfg["input_size"], dtype=torch.float64)
    with torch.no_grad():
        before, after, without = (logits(each(image)) for each in (model, swapped, removed))
    was = [module.was for module in report.modules]
    return Outcome(
        family=family, model=name, taken=", ".join(f"{each} × {was.count(each)}" for each in dict.fromkeys(was)),
        moved=_share(after, before), removed=_share(without, before), left=_reasons(report.left),
    )  # fmt: skip


def create(name: str) -> Any:
    """The model in float64 with random weights that let attention matter, in eval mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.device("meta"):
            cut = dict[str, int]()
            if sum(parameter.numel() for parameter in timm.create_model(name).parameters()) > LARGE:
                try:
                    timm.create_model(name, depth=2)
                    cut = {"depth": 2}
                except TypeError:  # its constructor knows no depth
                    pass
        model = timm.create_model(name, **cut)
    for part in model.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
        for own, parameter in part.named_parameters(recurse=False):
            if own.startswith(("gamma", "ls")) or type(part).__name__.startswith("LayerScale"):
                nn.init.ones_(parameter)
    return model.double().eval()


def logits(output: Any) -> Tensor:
    """The tensor of a model's answer; the first of several heads'."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output


def refusals(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(name, module, why) of all that a swap refuses."""
    for name, module in attention_of(model).items():
        source = read(module)
        verdict = proven(module, source, tokens=TOKENS) if isinstance(source, Source) else source
        if isinstance(verdict, str):
            yield name, module, verdict


def _share(changed: Tensor, before: Tensor) -> float:
    return ((changed - before).abs().max() / before.abs().max()).item()


def _reasons(left: Iterable[tuple[str, str]]) -> str:
    """Each reason once, in order; of those that differ in their figures alone, the first."""
    said: dict[str, str] = {}
    for _, why in left:
        said.setdefault(re.sub(r"[\d.e+-]+", "", why), why)
    return "; ".join(said.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
