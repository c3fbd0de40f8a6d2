"""The rows of a run that a command line or a Python caller asks for, by the words of a sweep: `--n 1k..4k --m 64`.

frame = only(store.read(folder), attention=["anchor,flash"], n=["4k"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.cases.axes import sizes
from harness.cases.problems import truth
from harness.errors import UsageError, unknown
from harness.store import problem
from harness.store.record import dtype_named
from harness.store.selection import Frame


def only(
    frame: Frame, *, attention: Sequence[str] = (), n: Sequence[str] = (), m: Sequence[str] = (),
    batch: Sequence[str] = (), heads: Sequence[str] = (), head_dim: Sequence[str] = (), causal: Sequence[str] = (),
    kv_heads: Sequence[str] = (), kv_tokens: Sequence[str] = (), **texts: Sequence[str],
) -> Frame:  # fmt: skip
    """The rows that a command line asks for: comma-separated words by axis, all where there are none.

    attention: `anchor`, or one implementation, `anchor:sdpa`; n, m, batch, heads, head_dim: 4096 or 4k; m leaves exact
    variants in; causal: true or false; kv_heads, kv_tokens: of any row, where it has none of its own its h and n;
    texts: phase, dtype, scope, device, machine; the scope `model` is every model. Raises UsageError for what the run
    does not hold, saying what it does.
    """
    own = frame["attention"] + ":" + frame["backend"]
    names = list(dict.fromkeys([*frame["attention"], *own[frame["backend"] != ""]]))
    wanted = words(attention, what="attention in this run", valid=names)
    keep = frame["attention"].isin(wanted or names) | own.isin(wanted)
    for name, given in texts.items():
        held = list(dict.fromkeys(frame[name]))
        firsts = {value: value.partition(" ")[0] for value in held}  # `model anchorformer_tiny` is a `model`
        if name == "dtype":
            given = [dtype_named(word.strip()) for text in given for word in text.split(",")]
        asked = words(given, what=f"{name} in this run", valid=[*dict.fromkeys([*held, *firsts.values()])])
        keep &= frame[name].isin([value for value in held if not asked or {value, firsts[value]} & set(asked)])
    options = {"n": ("n", n), "m": ("m", m), "b": ("batch", batch), "h": ("heads", heads), "d": ("head_dim", head_dim)}
    columns = {name: frame[name] for name in options} | {
        "kv_heads": _own(frame, "kv_heads", "h"), "kv_tokens": _own(frame, "kv_tokens", "n")
    }  # fmt: skip
    options |= {"kv_heads": ("kv_heads", kv_heads), "kv_tokens": ("kv_tokens", kv_tokens)}
    for name, (option, given) in options.items():
        column = columns[name]
        wanted = _sizes(given, option.replace("_", "-"), sorted({int(value) for value in column.dropna()}))
        if wanted:
            keep &= column.isin(wanted) | column.isna()
    return frame[keep & _causal(frame, causal)]


def words(texts: Sequence[str], *, what: str, valid: Sequence[str]) -> list[str]:
    """The comma-separated words in `texts`, once each. Raises UsageError for one that is not valid."""
    found = list(dict.fromkeys(word.strip() for text in texts for word in text.split(",")))
    for word in found:
        if word not in valid:
            raise UsageError(unknown(what, word, valid))
    return found


def _own(frame: Frame, key: str, default: str) -> Any:
    """A number of the problem of each row: its options', else its column `default`."""
    import pandas

    told = {text: problem.number(problem.told(text), key) for text in frame["options"].unique()}
    own: Any = pandas.to_numeric(frame["options"].map(told))
    return own.fillna(frame[default].astype(float))


def _causal(frame: Frame, given: Sequence[str]) -> Any:
    """Whether each row is of the causal kind asked for; every one where none is."""
    try:
        wanted = {truth(word) for text in given for word in text.split(",")}
    except ValueError as error:
        raise UsageError(f"--causal: {error}") from None
    told = {text: "causal" in problem.parts_of(problem.told(text)) for text in frame["options"].unique()}
    held = frame["options"].map(told).astype(bool)
    if wanted == {True} and len(frame) and not held.any():
        raise UsageError("--causal: this run holds no causal case")
    return held.isin(wanted or {True, False})


def _sizes(texts: Sequence[str], option: str, held: Sequence[int]) -> list[int]:
    try:
        wanted = [value for text in texts for value in sizes(text, axis="n")]
    except ValueError as error:
        raise UsageError(f"--{option}: {error}") from None
    for value in wanted:
        if value not in held:
            raise UsageError(f"--{option} {value} is not in this run; it holds {', '.join(map(str, held)) or 'none'}")
    return wanted
