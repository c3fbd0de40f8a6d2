"""The rows of a run that a command line or a Python caller asks for, by the words of a sweep: `--n 1k..4k --m 64`.

frame = only(store.read(folder), attention=["anchor,flash"], n=["4k"])
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.cases.axes import sizes
from harness.errors import UsageError, unknown
from harness.store.selection import Frame


def only(
    frame: Frame, *, attention: Sequence[str] = (), n: Sequence[str] = (), m: Sequence[str] = (),
    batch: Sequence[str] = (), heads: Sequence[str] = (), head_dim: Sequence[str] = (), **texts: Sequence[str],
) -> Frame:  # fmt: skip
    """The rows that a command line asks for: comma-separated words by axis, all where there are none.

    attention: `anchor`, or one implementation, `anchor:sdpa`; n, m, batch, heads, head_dim: 4096 or 4k; m leaves exact
    variants in; texts: phase, dtype, scope, device, machine; the scope `model` is every model. Raises UsageError for
    what the run does not hold, saying what it does.
    """
    own = frame["attention"] + ":" + frame["backend"]
    names = list(dict.fromkeys([*frame["attention"], *own[frame["backend"] != ""]]))
    wanted = words(attention, what="attention in this run", valid=names)
    keep = frame["attention"].isin(wanted or names) | own.isin(wanted)
    for name, given in texts.items():
        held = list(dict.fromkeys(frame[name]))
        firsts = {value: value.partition(" ")[0] for value in held}  # `model anchorformer_tiny` is a `model`
        asked = words(given, what=f"{name} in this run", valid=[*dict.fromkeys([*held, *firsts.values()])])
        keep &= frame[name].isin([value for value in held if not asked or {value, firsts[value]} & set(asked)])
    options = {"n": ("n", n), "m": ("m", m), "b": ("batch", batch), "h": ("heads", heads), "d": ("head_dim", head_dim)}
    for name, (option, given) in options.items():
        wanted = _sizes(given, option, sorted({int(value) for value in frame[name].dropna()}))
        if wanted:
            keep &= frame[name].isin(wanted) | frame[name].isna()
    return frame[keep]


def words(texts: Sequence[str], *, what: str, valid: Sequence[str]) -> list[str]:
    """The comma-separated words in `texts`, once each. Raises UsageError for one that is not valid."""
    found = list(dict.fromkeys(word.strip() for text in texts for word in text.split(",")))
    for word in found:
        if word not in valid:
            raise UsageError(unknown(what, word, valid))
    return found


def _sizes(texts: Sequence[str], option: str, held: Sequence[int]) -> list[int]:
    try:
        wanted = [value for text in texts for value in sizes(text, axis="n")]
    except ValueError as error:
        raise UsageError(f"--{option}: {error}") from None
    for value in wanted:
        if value not in held:
            raise UsageError(f"--{option} {value} is not in this run; it holds {', '.join(map(str, held)) or 'none'}")
    return wanted
