"""A row is read against what its own session's machine was measured to do, in environments of every age."""

from __future__ import annotations

from typing import Any

import pytest

from harness.store.ceilings import rates, sessions_of


def ceiling(copy: float, **products: float) -> dict[str, Any]:
    return {"cpu": {"copy_gb_per_s": copy, "matmul_tflops": products}}


def session(hour: int, machine: str, own: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"started_utc": f"2026-01-01T{hour:02}:00:00Z", "ceilings": {machine: own}, **more}


RESUMED = {
    "machine": "b",
    "ceilings": ceiling(9.0, float32=0.9),
    "sessions": [
        session(1, "a", ceiling(1.0, float32=0.1)), session(3, "a", ceiling(2.0, float32=0.2)),
        session(5, "b", ceiling(9.0, float32=0.9)),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "at", "found"),
    [
        ("a", "2026-01-01T02:00:00Z", (1.0, 0.1)), ("a", "2026-01-01T04:00:00Z", (2.0, 0.2)), ("a", "", (2.0, 0.2)),
        ("a", "2026-01-01T00:00:00Z", (1.0, 0.1)), ("b", "2026-01-01T06:00:00Z", (9.0, 0.9)), ("c", "", (None, None)),
    ],
)  # fmt: skip
def test_the_session_is_the_last_on_the_machine_that_had_begun(
    machine: str, at: str, found: tuple[float | None, float | None]
) -> None:
    assert rates(RESUMED, machine=machine, device="cpu", dtype="float32", time_utc=at) == found


def test_of_several_runs_each_has_its_own_sessions_and_dtypes() -> None:
    both = {
        "sessions": [
            session(1, "a", ceiling(1.0, float32=0.1), run_id="x"),
            session(2, "a", ceiling(2.0, float32=0.2), run_id="y"),
            session(3, "a", ceiling(3.0, bfloat16=0.3), run_id="z"),
        ]
    }  # fmt: skip
    of = {"machine": "a", "device": "cpu", "time_utc": "2026-01-01T09:00:00Z"}
    assert rates(both, **of, dtype="float32", run_id="x") == (1.0, 0.1)
    assert rates(both, **of, dtype="float32", run_id="y") == (2.0, 0.2)
    assert rates(both, **of, dtype="float32") == (2.0, 0.2)
    assert rates(both, **of, dtype="bfloat16") == (3.0, 0.3)
    assert rates(both, **of)[0] == 3.0


def test_environments_of_earlier_versions() -> None:
    """One machine's ceilings for all of a run; of several places each one's."""
    alone = {"machine": "a", "ceilings": ceiling(1.0, float32=0.1), "sessions": [{"wall_s": 1.0}]}
    assert rates(alone, machine="a", device="cpu", dtype="float32") == (1.0, 0.1)
    assert rates(alone, machine="b", device="cpu", dtype="float32") == (None, None)  # another machine's say nothing
    assert rates({"ceilings": alone["ceilings"]}, machine="a", device="cpu", dtype="float32") == (1.0, 0.1)
    places = {"n1": {"machine": "a", "ceilings": ceiling(1.0, float32=0.1)},
              "n2": {"machine": "b", "ceilings": ceiling(2.0, float32=0.2)}}  # fmt: skip
    assert rates({"machine": "a", "places": places}, machine="b", device="cpu", dtype="float32") == (2.0, 0.2)


@pytest.mark.parametrize(
    "strange",
    [
        {}, {"sessions": None},
        {"sessions": [3, {"ceilings": 3}, {"ceilings": {"a": 3}}, {"ceilings": {"a": {"cpu": 3}}}]},
        {"ceilings": 3, "places": {"x": 3}}, {"ceilings": {"cpu": {"copy_gb_per_s": "fast", "matmul_tflops": 3}}},
    ],
)  # fmt: skip
def test_what_anybody_may_have_written_is_no_ceiling(strange: dict[str, Any]) -> None:
    assert rates(strange, machine="a", device="cpu", dtype="float32") == (None, None)


def test_a_run_of_an_earlier_version_that_goes_on_keeps_what_it_knew() -> None:
    own = ceiling(1.0, float32=0.1)
    before = {"machine": "a", "ceilings": own, "sessions": [{"wall_s": 1.0}, {"wall_s": 2.0}]}
    assert sessions_of(before) == [{"wall_s": 1.0}, {"wall_s": 2.0, "ceilings": {"a": own}}]
    assert before["sessions"] == [{"wall_s": 1.0}, {"wall_s": 2.0}]
    assert sessions_of({"machine": "a", "ceilings": own}) == [{"ceilings": {"a": own}}]  # killed in its first session
    assert sessions_of(RESUMED) == RESUMED["sessions"]
    assert sessions_of({}) == []
