"""A sweep's description: every form of every axis, TOML there and back, one sentence for what is wrong, the cases."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cases.axes import EXAMPLES, LARGEST, MOST_VALUES
from harness.cases.space import MOST_CASES, Sweep, expand, read_toml, sizes
from harness.door.measure import over_file
from harness.errors import UsageError
from harness.store.record import DTYPES, PHASES, SCOPES, UNITS
from harness.sweep.conduct import stored_sweep
from harness.vision.models import ARCHITECTURES, PATCH


def variant(*backends: str, bottleneck: str = "", **options: Any) -> dict[str, Any]:
    return {"backends": {name: {} for name in backends}, "bottleneck": bottleneck, "options": options}


CATALOGUE = {
    "anchor": variant("reference", "sdpa", bottleneck="anchors", init={}, scale={}),
    "full": variant("reference"),
    "linformer": variant("reference", bottleneck="projected length"),
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4096", [4096]), ("16k", [16384]), ("2M", [2 << 20]), (" 1K ", [1024]), ("1k,2k", [1024, 2048]),
        ("1k..8k", [1024, 2048, 4096, 8192]), ("3..13", [3, 6, 12]), ("7..7", [7]), ("1,4..16, 2", [1, 4, 8, 16, 2]),
        (64, [64]), ("0064", [64]),
    ],
)  # fmt: skip
def test_sizes_take_lists_and_ranges(text: Any, found: list[int]) -> None:
    assert sizes(text, axis="n") == found


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_a_range_doubles_up_to_its_end(low: int, high: int) -> None:
    if low > high:
        with pytest.raises(ValueError, match=f"write {high}..{low}"):
            sizes(f"{low}..{high}", axis="n")
        return
    found = sizes(f"{low}..{high}", axis="n")
    assert found[0] == low
    assert all(b == 2 * a for a, b in pairwise(found))
    assert found[-1] <= high < 2 * found[-1]


@given(st.text(max_size=12), st.sampled_from(sorted(LARGEST)))
def test_any_text_is_sizes_in_range_or_one_sentence(text: str, axis: str) -> None:
    answer = ""
    try:
        found = sizes(text, axis=axis)
    except ValueError as error:
        answer, found = str(error), []
    assert found or f"{axis} takes whole numbers from 1 to" in answer or "runs downwards" in answer
    assert all(1 <= size <= LARGEST[axis] for size in found)


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "1e3", "4.0", "abc", "1k2", "k", "..", "1..", "..5", "8..4", "5,", "٣", "nan", "9" * 40]
)
@pytest.mark.parametrize("axis", sorted(LARGEST))
def test_what_is_no_size_names_the_value_and_the_rule(axis: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sweep.parse({axis: [text]})
    assert str(caught.value).startswith(f"{axis}: ")
    assert text in str(caught.value)


def test_the_largest_size_is_taken_and_the_next_is_not() -> None:
    for axis, most in LARGEST.items():
        assert getattr(Sweep.parse({axis: str(most)}), axis) == (most,)
        with pytest.raises(UsageError, match="out of range"):
            Sweep.parse({axis: str(most + 1)})


def test_axes_are_lists_without_repeats_in_their_order() -> None:
    sweep = Sweep.parse({"n": ["4k", "1k..4k", 2048], "attention": ["full, anchor", "full"], "phase": "train,forward"})
    assert sweep.n == (4096, 1024, 2048)
    assert sweep.attention == ("full", "anchor")
    assert sweep.phase == ("train", "forward")


def test_an_endless_list_is_refused() -> None:
    with pytest.raises(UsageError, match=f"at most {MOST_VALUES}"):
        Sweep.parse({"n": ",".join(["64"] * (MOST_VALUES + 1))})
    many = Sweep.parse({"n": list(range(1000, 1900)), "m": list(range(1, 900))})
    with pytest.raises(UsageError, match=f"multiply to .* at most {MOST_CASES}"):
        expand(many, CATALOGUE, device="cpu")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": []}, "n: an empty list; n takes whole numbers"),
        ({"dtype": "flaot64"}, "did you mean 'float64'? valid: auto, " + ", ".join(DTYPES)),
        ({"dtype": "fp8"}, "unknown dtype 'fp8'; valid: auto, " + ", ".join(DTYPES)),
        ({"causal": "maybe"}, "causal: 'maybe' is not valid: causal takes true, false or both"),
        ({"causal": []}, "causal: an empty list; causal takes true, false or both"),
        ({"kv_heads": "0"}, "kv_heads takes whole numbers from 1 to 4096, such as 1, 1..8"),
        ({"set": {"anchor.init": []}}, "set: anchor.init is an empty list; leave it out for its default"),
        ({"set": {"anchor.init": {"a": 1}}}, "anchor.init takes a value or a list of values"),
        ({"set": {"anchor.init": '"paper'}}, "set: '\"paper' cannot be read"),
        ({"phase": "fwd"}, "phase: unknown phase 'fwd'; did you mean 'forward'? valid: " + ", ".join(PHASES)),
        ({"scope": "modle"}, "scope: unknown scope 'modle'; did you mean 'model'? valid: " + ", ".join(SCOPES)),
        ({"model": "anchorformer_tny"}, "model: unknown model 'anchorformer_tny'; did you mean 'anchorformer_tiny'?"),
        ({"resolution": "224,230"}, "resolution: 230 is no multiple of the 16 pixels of a patch"),
        ({"resolution": "0"}, "resolution takes whole numbers from 1 to 16384, such as 224, 448, 224..1792"),
        ({"metrics": "latencyy"}, "did you mean 'latency'? valid: " + ", ".join(UNITS)),
        ({"metrics": []}, "metrics is empty; valid: latency"),
        ({"attention": ","}, "attention: ',' names nothing"),
        ({"attention": ""}, "attention: '' names nothing; leave attention out for its default"),
        ({"attention": ["", " "]}, "attention: ['', ' '] names nothing"),
        ({"phase": "FORWARD"}, "did you mean 'forward'?"),
        ({"heads": "0"}, "heads takes whole numbers from 1 to 4096, such as 6, 4..16 or a list of them"),
        ({"seed": True}, "seed takes a whole number from 0 to 2147483647, not True"),
        ({"budget": True}, "budget takes seconds, more than 0 and at most 3600, not True"),
        ({"sequence_parallel": True}, "sequence_parallel takes a number of processes from 1 to 16384, not True"),
        ({"device": "tpu"}, "device: unknown device 'tpu'; valid: auto, cpu, cuda, cuda:<index>"),
        ({"device": "cuda:-1"}, "unknown device 'cuda:-1'"),
        ({"device": "cpu:0"}, "unknown device 'cpu:0'"),
        ({"device": 3}, "device: input should be a valid string, not 3"),
        ({"set": "anchor.init"}, "set takes variant.option = value pairs, not 'anchor.init'"),
        ({"set": {"init": "paper"}}, "'init' is not of the form variant.option, such as anchor.init"),
        ({"set": {".init": "paper"}}, "'.init' is not of the form"),
        ({"seed": "x"}, "seed takes a whole number from 0 to 2147483647, not 'x'"),
        ({"seed": -1}, "seed takes a whole number from 0 to 2147483647, not -1"),
        ({"seed": 1 << 31}, "not 2147483648"),
        ({"budget": "nan"}, "budget takes seconds, more than 0 and at most 3600, not 'nan'"),
        ({"budget": float("inf")}, "budget takes seconds"),
        ({"budget": 0}, "budget takes seconds, more than 0 and at most 3600, not 0"),
        ({"timeout": "soon"}, "timeout takes seconds, more than 0 and at most 86400, not 'soon'"),
        ({"plugin": "a\udcff.py"}, "plugin: 'a\\udcff.py' is not valid UTF-8"),
        ({"set": {"mine.text": "\udcff"}}, "set: '\\udcff' is not valid UTF-8"),
        ({"atention": "full"}, "unknown key 'atention'; did you mean 'attention'? valid: attention, n, m, batch"),
        ({"zzz": 1}, "unknown key 'zzz'; valid: attention, n"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sweep.parse(given, source="my.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("my.toml: ")
    assert "\n" not in str(caught.value)


UTF8 = st.characters(exclude_characters=",", exclude_categories=["Cs"])
VALUES = st.text(st.characters(exclude_categories=["Cs"]))
SWEEPS = st.fixed_dictionaries(
    {},
    optional={
        "attention": st.lists(st.sampled_from(["full", "anchor:sdpa", "mine"]), max_size=3),
        **{axis: st.lists(st.integers(1, most), min_size=1, max_size=4) for axis, most in LARGEST.items()},
        "resolution": st.lists(
            st.integers(1, LARGEST["resolution"] // PATCH).map(lambda side: side * PATCH), min_size=1
        ),
        "model": st.lists(st.sampled_from(list(ARCHITECTURES)), min_size=1),
        "dtype": st.lists(st.sampled_from(["auto", *DTYPES]), min_size=1),
        "phase": st.lists(st.sampled_from(PHASES), min_size=1),
        "scope": st.lists(st.sampled_from(SCOPES), min_size=1),
        "metrics": st.lists(st.sampled_from(list(UNITS)), min_size=1),
        "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:11"]),
        "set": st.dictionaries(
            st.from_regex(r"[a-z_]+\.[a-z_]+", fullmatch=True), st.lists(VALUES, min_size=1, max_size=3), max_size=3
        ),
        "causal": st.lists(st.booleans(), min_size=1),
        "plugin": st.lists(st.text(UTF8, min_size=1)),
        "seed": st.integers(0, (1 << 31) - 1),
        "budget": st.floats(0, 3600, exclude_min=True),
        "timeout": st.floats(0, 86400, exclude_min=True),
    },
)


@given(SWEEPS)
def test_a_sweep_reads_back_from_its_file(tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]) -> None:
    given["plugin"] = [name for name in given.get("plugin", []) if name.strip()]
    sweep = Sweep.parse(given)
    path = tmp_path_factory.getbasetemp() / "sweep.toml"
    path.write_text(sweep.to_toml(), encoding="utf-8")
    assert Sweep.parse(read_toml(path)) == sweep


def test_a_file_may_nest_options_and_spell_axes_as_the_command_line_does(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(
        'n = ["1k..2k", 64]\nm = 16\nset.anchor.init = ["paper", "sharp"]\nset."anchor.scale" = 2.5\nbudget = 1\n'
        "causal = [false, true]\nkv_heads = [1, 2]\nset.performer.orthogonal = [true, false]\n"
    )
    sweep = Sweep.parse(read_toml(path))
    assert (sweep.n, sweep.m, sweep.budget) == ((1024, 2048, 64), (16,), 1.0)
    assert (sweep.causal, sweep.kv_heads, sweep.kv_tokens) == ((False, True), (1, 2), ())
    assert sweep.set == {
        "anchor.init": ("paper", "sharp"), "anchor.scale": ("2.5",), "performer.orthogonal": ("true", "false")
    }  # fmt: skip


def test_a_dtype_is_what_people_call_it() -> None:
    asked = {"dtype": "fp32,bf16,FP16,half,float,double,fp64,float32"}
    assert Sweep.parse(asked).dtype == ("float32", "bfloat16", "float16", "float64")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"n = \n", "is not valid TOML: Invalid value (at line 1"),
        (b"n = " + 5000 * b"[", "is not valid TOML"),
        (b"n = 1\nn = 2\n", "is not valid TOML: Cannot overwrite a value (at line 2"),
        (b"\xff\xfe", "is not valid TOML: 'utf-8' codec can't decode byte 0xff"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "sweep.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_folder_is_no_sweep_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: .*Is a directory"):
        read_toml(tmp_path)


def test_cases_are_the_product_and_exact_variants_have_no_m() -> None:
    sweep = Sweep.parse({"n": "64,128", "m": "16,32", "phase": "forward,train", "heads": "2,4", "seed": 3})
    cases, warnings = expand(sweep, CATALOGUE, device="cpu")
    count = {name: sum(c.attention == name for c in cases) for name in CATALOGUE}
    assert count == {"anchor": 16, "full": 8, "linformer": 16}
    assert {c.m for c in cases if c.attention == "full"} == {None}
    assert {(c.dtype, c.seed, c.backend, c.device) for c in cases} == {("float32", 3, "", "cpu")}
    assert len({c.case_id for c in cases}) == len(cases)
    assert not warnings


def test_the_floor_is_measured_only_where_it_is_named() -> None:
    catalogue = CATALOGUE | {"none": variant("reference") | {"floor": True}}
    for asked, found in (({}, set(CATALOGUE)), ({"attention": "none,full"}, {"none", "full"})):
        cases, _ = expand(Sweep.parse({"n": 64, "m": 16, **asked}), catalogue, device="cpu")
        assert {case.attention for case in cases} == found


def test_auto_is_the_devices_own_dtype_once() -> None:
    sweep = Sweep.parse({"dtype": "auto,bfloat16", "attention": "full"})
    assert [c.dtype for c in expand(sweep, CATALOGUE, device="cuda:0")[0]] == ["bfloat16"]
    assert [c.dtype for c in expand(sweep, CATALOGUE, device="cpu")[0]] == ["float32", "bfloat16"]


def test_the_usual_m_stays_below_n_and_a_chosen_one_stays() -> None:
    cases, warnings = expand(Sweep.parse({"n": "1,2,50,64,65,4096"}), CATALOGUE, device="cpu")
    assert [(c.n, c.m) for c in cases if c.attention == "anchor"] == [
        (1, 1), (2, 1), (50, 32), (64, 32), (65, 64), (4096, 64)
    ]  # fmt: skip
    assert warnings == [
        "m is 64 by default, which is not below the number of tokens: m=1 for 1 tokens, m=1 for 2 tokens, "
        "m=32 for 50 tokens, m=32 for 64 tokens; --m chooses another"
    ]
    cases, warnings = expand(Sweep.parse({"n": 64, "m": "64,128"}), CATALOGUE, device="cpu")
    assert {c.m for c in cases if c.attention == "linformer"} == {64, 128}  # whether that can be, the variant says
    assert warnings == []
    assert expand(Sweep.parse({"n": 64, "attention": "full"}), CATALOGUE, device="cpu")[1] == []


def test_options_go_to_their_variant_in_one_spelling() -> None:
    given = {"attention": "anchor,full", "set": {"anchor.scale": "2", "anchor.init": "paper"}}
    cases, _ = expand(Sweep.parse(given), CATALOGUE, device="cpu")
    assert {c.attention: c.options for c in cases} == {"anchor": "init=paper;scale=2", "full": ""}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attention": "fulll"}, "unknown attention 'fulll'; did you mean 'full'? valid: anchor, full, linformer"),
        ({"attention": "anchor:sdp"}, "unknown backend of anchor 'sdp'; did you mean 'sdpa'? valid: reference, sdpa"),
        ({"attention": "anchor:"}, "unknown backend of anchor ''; valid: reference, sdpa"),
        ({"attention": ":sdpa"}, "unknown attention ''"),
        ({"set": {"anchr.init": "x"}}, "--set anchr.init: unknown attention 'anchr'; did you mean 'anchor'?"),
        ({"set": {"anchor.inti": "x"}}, "unknown option of anchor 'inti'; did you mean 'init'? valid: init, scale"),
        ({"set": {"anchor.init": "a;b"}}, "--set anchor.init: 'a;b' holds a ';' or a line break"),
        ({"set": {"anchor.init": "x"}, "attention": "full"}, "anchor is not part of this sweep; add it to --attention"),
    ],
)
def test_names_that_do_not_exist_are_answered_with_those_that_do(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(Sweep.parse(given), CATALOGUE, device="cpu")
    assert message in str(caught.value)


def test_several_values_of_an_option_are_an_axis() -> None:
    given = {"attention": "anchor,full", "set": {"anchor.scale": "2,3", "anchor.init": ["paper", "1,2"]}}
    cases, _ = expand(Sweep.parse(given), CATALOGUE, device="cpu")
    assert [c.options for c in cases if c.attention == "anchor"] == [
        "init=paper;scale=2", "init=1,2;scale=2", "init=paper;scale=3", "init=1,2;scale=3"
    ]  # fmt: skip
    assert [c.options for c in cases if c.attention == "full"] == [""]


def cases_of(given: dict[str, Any]) -> list[tuple[Any, ...]]:
    """(attention, scope, h, n, m, options) of every case."""
    cases, _ = expand(Sweep.parse(given), CATALOGUE, device="cpu")
    return [(c.attention, c.scope, c.h, c.n, c.m, c.options) for c in cases]


def test_a_model_gives_tokens_heads_and_m() -> None:
    """14 × 14 patches of 224 pixels, a class and a distillation token; m is the published 30."""
    given = {"scope": "model", "attention": "full,anchor", "resolution": "224..448", "model": "anchorformer_small"}
    assert cases_of(given) == [
        ("full", "model", 6, 198, None, "model=anchorformer_small;resolution=224"),
        ("full", "model", 6, 786, None, "model=anchorformer_small;resolution=448"),
        ("anchor", "model", 6, 198, 30, "model=anchorformer_small;resolution=224"),
        ("anchor", "model", 6, 786, 30, "model=anchorformer_small;resolution=448"),
    ]
    options = cases_of({**given, "set": {"anchor.init": "orthogonal"}, "m": 64})[-1]
    assert options[4:] == (64, "init=orthogonal;model=anchorformer_small;resolution=448")


def test_core_and_model_in_one_sweep_have_each_their_own_sizes() -> None:
    given = {"scope": "core,model", "attention": "full", "n": 512, "heads": 2}
    assert cases_of(given) == [
        ("full", "core", 2, 512, None, ""),
        ("full", "model", 3, 198, None, "model=anchorformer_tiny;resolution=224"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"scope": "model", "n": "1024"},
            "--n 1024 means nothing in scope model; give --model and --resolution instead",
        ),
        ({"scope": "model", "head_dim": 32}, "--head-dim 32 means nothing in scope model"),
        ({"scope": "model", "n": "4k"}, "--n 4096 means nothing in scope model; give --model and --resolution instead"),
        ({"scope": "model", "heads": 6}, "--heads 6 means nothing in scope model"),
        ({"resolution": 224}, "--resolution 224 means nothing in scope core; add --scope model"),
        ({"model": "anchorformer_tiny"}, "--model anchorformer_tiny means nothing in scope core"),
        ({"resolution": 448}, "--resolution 448 means nothing in scope core; add --scope model"),
        ({"model": "anchorformer_base", "scope": "layer"}, "--model anchorformer_base means nothing in scope layer"),
        ({"scope": "model", "causal": True}, "--causal means nothing in scope model: a model has its own attention"),
        ({"scope": "core,model", "kv_heads": 3}, "--kv-heads means nothing in scope model"),
    ],
)
def test_an_axis_that_no_scope_has_is_answered(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        expand(Sweep.parse(given), CATALOGUE, device="cpu")


def test_what_a_run_wrote_down_and_nobody_gave_is_not_refused(tmp_path: Path) -> None:
    """Its sweep.toml holds every axis; with another scope on top of the file, its defaults do not count as given."""
    path = tmp_path / "sweep.toml"
    for keys, over in (({"scope": "model", "attention": "full"}, {}), ({"attention": "full"}, {"scope": "model"})):
        path.write_text(Sweep.parse(keys).to_toml(), encoding="utf-8")
        assert cases_of(over_file(path, over)) == [
            ("full", "model", 3, 198, None, "model=anchorformer_tiny;resolution=224")
        ]
        assert expand(stored_sweep(tmp_path), CATALOGUE, device="cpu")[0]
    with pytest.raises(UsageError, match="--n 4096 means nothing in scope model"):
        expand(Sweep.parse(over_file(path, {"scope": "model", "n": 4096})), CATALOGUE, device="cpu")
    path.write_text('scope = "model"\nn = 2048\n', encoding="utf-8")
    with pytest.raises(UsageError, match="--n 2048 means nothing in scope model"):
        expand(Sweep.parse(over_file(path, {})), CATALOGUE, device="cpu")


def test_the_examples_of_a_rule_are_valid() -> None:
    for axis, examples in EXAMPLES.items():
        assert all(1 <= size <= LARGEST[axis] for size in sizes(examples, axis=axis))
    assert set(EXAMPLES) == set(LARGEST)


def test_a_wrong_key_of_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text("atention = 'full'")
    with pytest.raises(UsageError, match=f"sweep file {path}: unknown key 'atention'; did you mean 'attention'"):
        read_toml(path)
