"""harness plan: what a sweep would measure, whether it fits, how long it would take on this device. Runs no case."""

from __future__ import annotations

from typing import Any

import typer

from harness.cli._axes import with_axes


@with_axes
def command(
    given: dict[str, Any],
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout instead of the table."),
) -> None:
    """List the cases of a sweep with backend, memory fit and estimated time; measure none of them."""
    from harness.cases.catalogue import kinds
    from harness.cases.sharing import one_process
    from harness.cases.space import Sweep
    from harness.engines.local import Engine
    from harness.sweep import conduct as sweep
    from harness.sweep.plan import Speed, estimate, render

    wanted = Sweep.parse(given)
    one_process(wanted.sequence_parallel, "harness plan")
    sweep.check_names(wanted)
    with Engine(plugins=wanted.plugin, device=wanted.device) as engine:
        session, resolutions, warnings = sweep.prepare(wanted, engine)
        warnings += sweep.examined(engine, wanted, resolutions)
        free = engine.free_bytes()
        speed = Speed.of(engine, session, sorted({r.case.dtype for r in resolutions}), patience_s=wanted.patience)
    exact = {name for name, kind in kinds(session["catalogue"]).items() if kind == "exact"}
    plan = estimate(
        wanted, resolutions, device=session["device"], free=free, speed=speed, exact=exact, warnings=warnings
    )
    render(plan, as_json=as_json)
