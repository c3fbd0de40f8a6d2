"""Puts the page together: the template, the data island, Plotly's own file, and a policy that lets nothing else run.

    html = render([figures.load(Path("results/cpu/sweep"))], kinds={"flash": "exact"})

The policy names the two scripts by their hash: text that found its way out of the data would still not be run, and
nothing on the page may fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.answers.candidates import known_kinds
from harness.errors import Failure, reason
from harness.figures import Run
from harness.figures._style import device_name
from harness.report import accuracies, answers, facts, island, looks
from harness.report.rows import Rows, Setting, gather
from harness.store import problem
from harness.store.selection import FILE, PANEL, printable

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = (
    "words.js",
    "data.js",
    "frame.js",
    "lines.js",
    "maps.js",
    "spreads.js",
    "answer.js",
    "table.js",
    "address.js",
    "main.js",
)
USUAL_M = 64
MOST_NAMES = 60


def render(runs: Sequence[Run], *, kinds: Mapping[str, str], defaults: Mapping[str, Mapping[str, str]]) -> str:
    """The page as HTML, without the mark that names it a report."""
    rows = gather(runs)
    found = answers.of_settings(rows.groups, rows.settings, kinds=kinds, defaults=defaults)
    named = [facts.of_run(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    titles = [" + ".join(named[at].name for at in group.of) for group in rows.groups]
    first = _first(rows, found)
    charted = rows.frame[rows.frame["setting"].notna()]
    about = {
        "settings": [_setting(rows, titles, s, a) for s, a in zip(rows.settings, found, strict=True)],
        "runs": [fact.name for fact in named],
        "series": looks.series_looks(charted),
        "sizes": looks.size_looks(charted),
        "exact": sorted(name for name, kind in known_kinds(runs, kinds).items() if kind == "exact"),
        "first": first,
        "listed": rows.listed,
        "accuracies": accuracies.of_runs(runs, [fact.name for fact in named]),
    }
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    plotly = _plotly()
    gaps = [facts.gaps(run, at) for at, run in enumerate(runs)]
    template = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html")
    return template.render(
        policy=_policy(script.encode(), plotly), script=Markup(script),
        style=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),
        island=island.pack(rows.columns(), about=about), plotly=island.squeeze(plotly), runs=named,
        whole=[gap for wholes, _ in gaps for gap in wholes], partial=[gap for _, partials in gaps for gap in partials],
        answer=found[first["setting"]].get(first["answer"]) if first else None,
        setting=about["settings"][first["setting"]] if first else None,
        doubts=[doubt for run, fact in zip(runs, named, strict=True) if (doubt := facts.contention(run, fact.name))],
        cases=sum(run.frame["case_id"].nunique() for run in runs), rows=rows.listed,
        clock=runs[0].clock, default_alone={s.values["problem"] for s in rows.settings} <= {problem.DEFAULT},
    )  # fmt: skip


def _first(rows: Rows, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page opens with: the setting and n with the most candidates, the larger n among equals, and m = 64."""
    ranked = [
        (len(answer["ranking"]), int(key.partition("|")[0]), -at, at)
        for at, own in enumerate(found)
        for key, answer in own.items()
        if key.endswith("|all")
    ]
    if not ranked:
        return {}
    _, n, _, at = max(ranked)
    sizes = sorted({int(m) for m in rows.settings[at].latency["m"].dropna()})
    m = "all" if not sizes else str(min(sizes, key=lambda size: (abs(size - USUAL_M), size)))
    return {"setting": at, "n": n, "m": m, "answer": f"{n}|{m}"}


def _setting(rows: Rows, titles: Sequence[str], setting: Setting, own: Mapping[str, Any]) -> Any:
    """A setting as the page's script takes it."""
    values, latency = setting.values, setting.latency
    return {
        "run": titles[setting.run], "values": {name: values[name] for name in (*FILE, *PANEL)},
        "shape": f"b={values['b']} h={values['h']} d={values['d']}",
        "place": device_name(rows.groups[setting.run].run, values["device"], values["machine"]),
        "n": sorted({int(n) for n in latency["n"]}), "m": sorted({int(m) for m in latency["m"].dropna()}),
        "base": setting.base, "roof": setting.roof, "answers": own, "seeds": setting.seeds,
        "crossings": [
            {"series": series, "m": m, "kind": c.kind, "n": c.n, "low": c.low, "high": c.high,
             "first": c.probes[0].n, "last": c.probes[-1].n,
             "sentence": c.sentence(series + (f" m={m}" if m is not None else ""), setting.base or "")}
            for series, m, c in setting.crossings
        ],
    }  # fmt: skip


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, with as much of their path as tells them apart."""
    parts = [run.folder.resolve().parts for run in runs]
    for count in range(1, max(map(len, parts)) + 1):
        names = [printable("/".join(part[-count:])[-MOST_NAMES:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    again = [names[:at].count(name) for at, name in enumerate(names)]
    return [f"{name} ({times + 1})" if times else name for name, times in zip(names, again, strict=True)]


def _plotly() -> bytes:
    """plotly.js as the Python package ships it. Raises Failure where that file is gone."""
    try:
        return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    except OSError as error:
        raise Failure(f"plotly.js is not in the installed plotly: {reason(error)}; plotly 6 or newer has it") from None


def _policy(*scripts: bytes) -> str:
    """The Content-Security-Policy: these scripts, inline style, pictures made on the page, and nothing else."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
