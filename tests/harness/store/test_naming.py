"""Short names of cases: what all share once, then what differs."""

from __future__ import annotations

import making

from harness.store.naming import Names, brief


def test_what_all_share_is_told_once() -> None:
    cases = [
        making.case(attention="flash", backend="torch", n=64, m=None),
        making.case(attention="anchor", backend="sdpa", n=128, m=16, phase="train"),
        making.case(attention="anchor", backend="sdpa", n=128, m=32, phase="train"),
    ]
    names = Names(cases)
    assert [names.of(case) for case in cases] == [
        "flash:torch n=64 forward", "anchor:sdpa n=128 m=16 train", "anchor:sdpa n=128 m=32 train",
    ]  # fmt: skip
    first = cases[0]
    assert names.shared == f"b={first.b} h={first.h} d={first.d} {first.dtype} {first.scope} {first.device}"


def test_an_m_that_all_who_have_one_share_is_among_what_is_shared() -> None:
    cases = [making.case(attention="flash", backend="torch", m=None), making.case(m=16)]
    names = Names(cases)
    assert "m=16" in names.shared.split()
    assert "m=" not in names.of(cases[1])


def test_options_of_some_are_told_with_them() -> None:
    cases = [making.case(options=""), making.case(options="init=paper")]
    names = Names(cases)
    assert "init=paper" not in names.shared
    assert [names.of(case).split()[-1] == "init=paper" for case in cases] == [False, True]


def test_a_reason_is_brief() -> None:
    assert brief("needs a thing; get it from nowhere") == "needs a thing; get it from nowhere"
    long = "xformers:xformers runs on a CUDA device only, not on the cpu"
    assert brief(f"{long}; it also needs the package xformers: pip install it") == long
    assert brief(f"{long * 3}; more") == long * 3


def test_keys_of_options_are_told_apart() -> None:
    cases = [making.case(options=f"model=tiny;resolution={side}") for side in (224, 448)]
    names = Names(cases)
    assert names.shared.split()[-1] == "model=tiny"
    assert [names.of(case).split()[-1] for case in cases] == ["resolution=224", "resolution=448"]


def test_without_cases_a_name_is_all_that_a_case_is() -> None:
    assert Names().of(making.CASE) == str(making.CASE)
    assert Names().shared == ""
