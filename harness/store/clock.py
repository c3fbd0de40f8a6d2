"""Which time of a call is meant where a device works behind its host: its own, the host's, or a lone eager call's.

    frame = timed_by(frame, "eager")      # `latency` and what is made of it, by that clock
    told("eager", "cuda:0")               # the sentence that says so

latency: the device's own time; host: what the host takes to enqueue the call; eager: the longer of the two, which is
what each call takes where one follows the other. On a CPU all three are the latency. pandas only.
"""

from __future__ import annotations

from typing import Any

from harness.errors import UsageError, unknown
from harness.store.selection import NUMBERS, Frame

CLOCKS = ("latency", "host", "eager")
RATES = ("throughput", "flops_rate", "roofline_fraction")  # an amount over the latency
KEY = ["machine", "case_id"]
UNKNOWN = "the host's time was not measured: measure with the metric host"
TOLD = {
    "latency": "Times are the device's own (latency); called alone and eagerly, a call may wait for its host.",
    "host": "Times are what the host takes to enqueue a call (host); the device may take longer.",
    "eager": "Times are of eager calls, one after the other: the longer of the device's (latency) and the host's.",
}


def check(clock: str) -> str:
    """The clock, if there is such a one. Raises UsageError."""
    if clock not in CLOCKS:
        raise UsageError(unknown("clock", clock, CLOCKS))
    return clock


def told(clock: str, device: str) -> str:
    """Which clock times on a device are by; nothing where a device has only one."""
    return TOLD[clock] if device != "cpu" else ""


def timed_by(frame: Frame, clock: str) -> Frame:
    """The rows with latency, and rates made of it, by a clock. Column `clock`: the metric whose samples a row has.

    A row whose time by that clock is not known loses its value and says why. Raises UsageError for an unknown clock.
    """
    if check(clock) == "latency":
        return frame
    frame = frame.assign(clock="latency")
    hosts = {(row.machine, row.case_id): row for row in frame[frame["metric"] == "host"].itertuples()}
    timed = (frame["metric"] == "latency") & (frame["status"] == "ok") & (frame["device"] != "cpu")
    rates = frame[frame["metric"].isin(RATES) & (frame["status"] == "ok")].groupby(KEY).indices
    at = frame[frame["metric"].isin(RATES) & (frame["status"] == "ok")].index
    for own in frame[timed].itertuples():
        key = (own.machine, own.case_id)
        host = hosts.get(key)
        if host is not None and host.status != "ok" and clock == "eager":
            continue  # the wall clock's time, which holds the host's
        derived = [at[place] for place in rates.get(key, ())]
        if host is None or host.status != "ok":
            why = {"status": "unsupported", "note": UNKNOWN if host is None else host.note}
            for index in (own.Index, *derived):
                _put(frame, index, why | dict.fromkeys(NUMBERS))
        elif clock == "host" or host.value > own.value:
            for index in derived:
                _put(frame, index, _rate(frame.loc[index, "value"] * own.value, host))
            note = f"the host's time: {host.note}"
            same = {name: getattr(host, name) for name in (*NUMBERS, "samples")}
            _put(frame, own.Index, same | {"note": note, "clock": "host"})
    return frame


def _rate(amount: float, time: Any) -> dict[str, Any]:
    """An amount over a time, the ends of its interval and spread changing places."""
    ends = {"value": "value", "ci_low": "ci_high", "ci_high": "ci_low", "p20": "p80", "p80": "p20"}
    return {name: amount / getattr(time, of) for name, of in ends.items()}


def _put(frame: Frame, index: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        frame.loc[index, name] = value
