"""attentions.parallel on two and four gloo processes, against one process: values, gradients, bytes, failures."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import rank_checks
import torch
from rank_checks import Check, Problem

import attentions
from attentions import parallel

TOLERANCES = {"float64": 1e-12, "float32": 2e-5}
DEADLINE_S = 240.0  # for a machine that has other things to do; far below the group's own patience
EVEN, UNEVEN, SHORT = {2: (20, 20), 4: (10,) * 4}, {2: (31, 6), 4: (3, 17, 1, 16)}, {2: (0, 37), 4: (18, 0, 19, 0)}
VARIANTS: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = (
    ("anchor", ()),
    ("anchor", (("logits", "cosine"),)),
    ("anchor", (("scatter", "separate"), ("bias", True), ("self", "excluded"))),
    ("anchor", (("per_head", True), ("self", "learned"))),
    ("anchor", (("importance", True),)),
    ("anchor", (("importance", True), ("logits", "cosine"), ("self", "excluded"))),
    ("transolver", ()),
    ("transolver", (("mixing", False),)),
    ("flare", ()),
    ("linformer", ()),
    ("linformer", (("sharing", "none"),)),
    ("linformer", (("sharing", "key_value"),)),
    ("nystrom", ()),
    ("nystrom", (("residual_kernel", 0),)),
    ("agent", ()),
    ("performer", ()),
    ("linear", ()),
    ("none", ()),
    ("full", ()),
    ("flash", ()),
)
PHASES = ("forward", "backward", "train")


def problems(ranks: int) -> list[Problem]:
    """Every variant over every kind of shards; a few with shards that the ranks must tell each other, or m ≥ n."""
    found = [
        Problem(variant, dtype, shards[ranks], options, known)
        for variant, options in VARIANTS
        for dtype, shards, known in (
            ("float64", EVEN, True), ("float32", UNEVEN, True), ("float64", UNEVEN, False), ("float64", SHORT, False),
        )
    ]  # fmt: skip
    return [*found, Problem("nystrom", "float64", UNEVEN[ranks], m=64)]


def sending(ranks: int) -> list[tuple[Problem, str]]:
    """Every variant in every phase over equal shards; anchor also in bfloat16 and over more tokens."""
    found = [Problem(variant, "float32", EVEN[ranks], options) for variant, options in VARIANTS]
    found += [Problem("anchor", "bfloat16", EVEN[ranks]), Problem("anchor", "float32", (64,) * ranks)]
    found += [Problem("flash", "float32", (40 // ranks * 2,) * ranks), Problem("nystrom", "float32", (96,) * ranks)]
    return [(problem, phase) for problem in found for phase in PHASES]


def checks_of(ranks: int) -> list[Check]:
    return [
        *[(repr(problem), "agrees", (problem,)) for problem in problems(ranks)],
        *[(repr(case), "sends", case) for case in sending(ranks)],
        ("layer", "layer", (ranks,)),
        ("refuses", "refuses", (UNEVEN[ranks],)),
    ]


def run_group(folder: Path, ranks: int, checks: Sequence[Check], *, absent: int = 0) -> dict[str, list[Any]]:
    """Each check's results by rank (the `absent` last ones give none), from processes that live until all are in."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rank_checks"])
    results, leave = context.Queue(), context.Event()
    store = str(folder / f"store-{ranks}-{absent}")
    processes = [
        context.Process(target=rank_checks.run_rank, args=(rank, ranks, store, checks, results, leave), daemon=True)
        for rank in range(ranks)
    ]
    found: dict[str, list[Any]] = {name: [None] * (ranks - absent) for name, _, _ in checks}
    for process in processes:
        process.start()
    try:
        deadline = time.monotonic() + DEADLINE_S
        for _ in range(len(checks) * (ranks - absent)):
            rank, name, result = results.get(timeout=max(0.1, deadline - time.monotonic()))
            found[name][rank] = result
    except queue.Empty:
        pytest.fail(f"after {DEADLINE_S:g} s these have no result: {[n for n, r in found.items() if None in r][:3]}")
    finally:
        leave.set()
        for process in processes:
            process.join(5)
            process.kill()
    return found


@pytest.fixture(scope="module", params=(2, 4))
def group(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    ranks = request.param
    return ranks, run_group(tmp_path_factory.mktemp("group"), ranks, checks_of(ranks))


def told(results: Sequence[Any]) -> Sequence[Any]:
    """The results of all ranks; the test fails with what a rank failed with."""
    failures = [result for result in results if isinstance(result, str)]
    assert not failures, failures
    return results


@pytest.mark.parametrize("at", range(len(problems(2))), ids=lambda at: str(problems(2)[at]))
def test_values_and_gradients_are_those_of_one_process(group: tuple[int, dict[str, Any]], at: int) -> None:
    ranks, results = group
    problem = problems(ranks)[at]
    for rank, errors in enumerate(told(results[repr(problem)])):
        assert {"out"} < set(errors)
        for name, error in errors.items():
            assert error <= TOLERANCES[problem.dtype], f"rank {rank}: {name}"


@pytest.mark.parametrize("at", range(len(sending(2))), ids=lambda at: str(sending(2)[at]))
def test_bytes_sent_are_those_of_the_model(group: tuple[int, dict[str, Any]], at: int) -> None:
    ranks, results = group
    case = sending(ranks)[at]
    counted = told(results[repr(case)])
    mean = sum(result["wire"] for result in counted) / ranks
    assert mean == counted[0]["model"]
    assert mean > 0


def test_anchor_sends_the_same_whatever_n_is_in_one_float32_buffer(group: tuple[int, dict[str, Any]]) -> None:
    ranks, results = group
    """And, forward with importance, each head's largest of it before."""
    heads = rank_checks.B * rank_checks.H
    size = heads * rank_checks.M * (rank_checks.D + 1) * 4
    for phase, calls in (("forward", 1), ("backward", 1), ("train", 2)):
        for problem, of in sending(ranks):
            if problem.variant == "anchor" and of == phase:
                before = ("importance", True) in problem.options and phase != "backward"
                sent = (calls * size + before * heads * 4, {"allreduce": calls + before})
                for result in told(results[repr((problem, phase))]):
                    assert (result["payload"], result["calls"]) == sent


def test_the_ring_sends_in_proportion_to_n(group: tuple[int, dict[str, Any]]) -> None:
    ranks, results = group
    small, large = (
        told(results[repr((problem, "forward"))])[0]["wire"]
        for problem in (
            Problem("flash", "float32", EVEN[ranks]),
            Problem("flash", "float32", (40 // ranks * 2,) * ranks),
        )
    )
    assert large == 2 * small


def test_a_layer_computes_over_all_ranks_and_keeps_its_parameters(group: tuple[int, dict[str, Any]]) -> None:
    for result in told(group[1]["layer"]):
        assert result["same_names"]
        assert result["error"] <= 1e-12
        assert result["gradients"] <= 1e-12


def test_the_impossible_is_refused_with_what_is_valid(group: tuple[int, dict[str, Any]]) -> None:
    ranks, results = group
    for rank, said in enumerate(told(results["refuses"])):
        assert f"a token count for each of {ranks} ranks" in said["count"]
        assert said["core"] == "no attention core in this Linear; build it with attentions.build"
        shards = UNEVEN[ranks]
        assert f"rank {rank} got 2 tokens; shards={list(shards)} says {shards[rank]}" in said["promise"]
        assert f"the ranks hold {sum(shards)} tokens" in said["columns"]


@pytest.mark.parametrize("ranks", [2, 4])
def test_when_a_rank_is_killed_the_others_fail_at_once(tmp_path: Path, ranks: int) -> None:
    checks: list[Check] = [("dies", "dies", (ranks - 1,))]
    for result in told(run_group(tmp_path, ranks, checks, absent=1)["dies"]):
        assert f"of {ranks} lost the others" in result["lost"]
        assert result["seconds"] < DEADLINE_S


def test_without_a_process_group_the_message_says_what_to_do() -> None:
    core = attentions.build("anchor", heads=2, head_dim=8, tokens=8, anchors=4)
    with pytest.raises(attentions.AttentionError, match="torchrun"):
        parallel.parallelise(core)


def test_variants_without_a_form_say_which_have_one() -> None:
    assert parallel.names() == [
        "agent",
        "anchor",
        "flare",
        "flash",
        "full",
        "linear",
        "linformer",
        "none",
        "nystrom",
        "performer",
        "transolver",
    ]
    assert parallel.why_not("anchor") is None
    assert "agent, anchor, flare, flash, full, linear, linformer, none, nystrom, performer, transolver have one" in (
        parallel.why_not("xformers") or ""
    )
    assert "ask for anchor" in (parallel.why_not("anchor:sdpa") or "")
    with pytest.raises(attentions.AttentionError, match="no sequence-parallel form"):
        parallel.volume("xformers", attentions.Work(b=1, h=1, n=8, d=8), ranks=2)


def test_tokens_are_split_as_evenly_as_can_be() -> None:
    assert parallel.split(10, 4) == (3, 3, 2, 2)
    assert parallel.split(2, 4) == (1, 1, 0, 0)


def test_traffic_does_not_count_what_it_does_not_know() -> None:
    with pytest.raises(NotImplementedError, match="broadcast_"):
        parallel.Traffic()._count("c10d::broadcast_", (torch.zeros(1),))
