"""harness runs: what runs there are; tag, delete, merge, compare and judge them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

VERBS = {
    "tag": "RUN TAG...", "rm": "RUN...", "merge": "RUN RUN... --out FOLDER", "diff": "RUN RUN", "validate": "RUN...",
}  # fmt: skip
MOST_LETTERS = 36  # of a value in a difference


def command(
    words: list[str] = typer.Argument(
        None,
        metavar="[FOLDER | VERB RUN...]",
        show_default=False,
        help="A folder to list (results), or tag, rm, merge, diff, validate and what to do it to.",
    ),
    remove: list[str] = typer.Option([], "--remove", metavar="TAG", help="tag: take these away.", show_default=False),
    out: Path | None = typer.Option(None, "--out", help="merge: the new run's folder.", show_default=False),
    yes: bool = typer.Option(False, "--yes", "-y", help="rm: do not ask."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> int:
    """List runs, newest first; or tag, rm, merge, diff or validate them: harness runs VERB RUN..."""
    from harness.errors import OK, UsageError
    from harness.store.table import write

    verb, given = (words[0], words[1:]) if words and words[0] in VERBS else ("", words or [])
    for option, asked, of in (("--remove", remove, "tag"), ("--out", out, "merge"), ("--yes", yes, "rm")):
        if asked and verb != of:
            raise UsageError(f"{option} belongs to harness runs {of}, not to {verb or 'a list'}")
    if not verb:
        text = _list(given, as_json=as_json)
    elif verb == "tag":
        text = _tag(given, remove, as_json=as_json)
    elif verb == "rm":
        text = _rm(given, yes=yes, as_json=as_json)
    elif verb == "merge":
        text = _merge(given, out, as_json=as_json)
    elif verb == "diff":
        text = _diff(given, as_json=as_json)
    else:
        text, code = _validate(given, as_json=as_json)
        write(text)
        return code
    write(text)
    return OK


def _list(words: Sequence[str], *, as_json: bool) -> str:
    from dataclasses import asdict

    from harness.door.runs import listed
    from harness.errors import NothingToCompare, UsageError, brief, unknown

    if len(words) > 1:
        raise UsageError(unknown("verb", words[0], VERBS))
    folder = words[0] if words else "results"
    if words and not Path(folder).exists() and "/" not in folder:
        raise UsageError(f"{brief(folder)} is no folder, and an {unknown('verb', folder, VERBS)}")
    found = listed(folder)
    if as_json:
        return _json({"folder": folder, "runs": [asdict(one) for one in found]})
    if not found:
        raise NothingToCompare(f"no run in {folder}/; make one with: harness run --n 4096 --m 64")
    head = ("run", "when (UTC)", "device", "commit", "cases ok", "size", "tags")
    rows = [
        (
            one.name, one.ended_utc[:16].replace("T", " "), ",".join(one.devices), _commit(one.commits),
            f"{one.statuses.get('ok', 0)} of {one.cases}", _bytes(one.bytes), ",".join(one.tags),
        )
        for one in found
    ]  # fmt: skip
    told = [f"{one.name}: {one.fault}" for one in found if one.fault]
    return "\n".join([*_columns([head, *rows], right=(5,)), *([""] if told else []), *told]) + "\n"


def _tag(words: Sequence[str], remove: Sequence[str], *, as_json: bool) -> str:
    from harness.door.runs import tag

    folder, *add = _at_least("tag", words, 1 if remove else 2)
    tags = tag(folder, add, remove=remove)
    return _json({"run": folder, "tags": tags}) if as_json else f"{folder}  {', '.join(tags) or 'no tags'}\n"


def _rm(words: Sequence[str], *, yes: bool, as_json: bool) -> str:
    import sys

    from harness.door.runs import remove, size
    from harness.errors import UsageError

    folders = list(dict.fromkeys(_at_least("rm", words, 1)))
    sizes = {folder: size(folder) for folder in folders}  # all are looked at before the first goes
    gone = []
    for folder, (files, held) in sizes.items():
        if not yes:
            if not sys.stdin or not sys.stdin.isatty():
                raise UsageError(f"rm asks before it deletes {folder}, and nobody is there to answer; add --yes")
            print(f"delete {folder} ({files} files, {_bytes(held)})? [y/N] ", end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                continue
        remove(folder)
        gone.append(folder)
    return _json({"deleted": gone}) if as_json else "".join(f"deleted {folder}\n" for folder in gone)


def _merge(words: Sequence[str], out: Path | None, *, as_json: bool) -> str:
    from harness.door.runs import merge
    from harness.errors import UsageError

    runs = _at_least("merge", words, 2)
    if out is None:
        raise UsageError("merge needs --out, the folder of the new run")
    done = merge(runs, out)
    if as_json:
        return _json({"run": str(done.folder), "cases": done.cases, "replaced": done.replaced})
    older = f"; {done.replaced} older ones of the same cases were left out" if done.replaced else ""
    return f"{done.folder}/  {done.cases} cases of {len(runs)} runs{older}\n"


def _diff(words: Sequence[str], *, as_json: bool) -> str:
    from dataclasses import asdict

    from harness.door.runs import diff
    from harness.errors import UsageError

    if len(words) != 2:
        raise UsageError(f"diff takes two runs, not {len(words)}: harness runs diff {VERBS['diff']}")
    found = diff(*words)
    if as_json:
        return _json({"a": words[0], "b": words[1], **asdict(found)})
    lines = []
    for document in ("environment", "sweep"):
        own = [(one.key, _value(one.a), _value(one.b)) for one in found.differences if one.document == document]
        lines += [*_columns([(document, "A", "B"), *own]), ""] if own else [f"{document}: no difference", ""]
    lines.append(f"{found.shared} cases in both, {found.only_a} in A alone, {found.only_b} in B alone")
    return "\n".join(lines) + "\n"


def _validate(words: Sequence[str], *, as_json: bool) -> tuple[str, int]:
    from dataclasses import asdict

    from harness.door.runs import validate
    from harness.errors import OK, REGRESSION

    found = validate(_at_least("validate", words, 1))
    code = REGRESSION if any(found.values()) else OK
    if as_json:
        runs = [{"run": str(path), "faults": [asdict(one) for one in faults]} for path, faults in found.items()]
        return _json({"runs": runs, "ok": code == OK}), code
    lines = []
    for path, faults in found.items():
        lines += [f"{'failed' if faults else 'ok':<6}  {path}", *(f"        {fault}" for fault in faults)]
    failed = sum(bool(faults) for faults in found.values())
    return "\n".join([*lines, "", f"{len(found) - failed} of {len(found)} runs pass"]) + "\n", code


def _at_least(verb: str, words: Sequence[str], count: int) -> list[str]:
    from harness.errors import UsageError

    if len(words) < count:
        raise UsageError(f"harness runs {verb} {VERBS[verb]}: {len(words)} given, {count} needed")
    return [*words]


def _commit(commits: Sequence[str]) -> str:
    """The newest in seven letters, and how many others: `656cb3e-dirty +5`."""
    if not commits:
        return "-"
    digits, dash, dirty = commits[-1].partition("-")
    return f"{digits[:7]}{dash}{dirty}" + (f" +{len(commits) - 1}" if len(commits) > 1 else "")


def _bytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 1 << 20 else f"{count / 2**10:.0f} KiB"


def _value(value: Any) -> str:
    from harness.errors import brief
    from harness.store.selection import printable

    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return "-" if value is None else brief(printable(text), MOST_LETTERS)


def _columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows in columns two spaces apart, the first of them the heading."""
    from rich.cells import cell_len

    from harness.store.selection import printable

    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            " " * (wide - cell_len(text)) + text if at in right else text + " " * (wide - cell_len(text))
            for at, (text, wide) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return [lines[0], "─" * max(map(cell_len, lines)), *lines[1:]]


def _json(document: Any) -> str:
    import json

    return json.dumps(document, indent=2, allow_nan=False, default=str) + "\n"
