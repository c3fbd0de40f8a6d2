"""What can be measured here, from a file until something changes; and each case with its backend or why it has none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import making
import pytest

import attentions
from attentions import registry
from harness.cases import catalogue
from harness.cases.catalogue import cached, describe, resolve

MINE = """
from attentions import Backend, Option, Spec
SPEC = Spec(name="mine", title="{title}", backends=(Backend("reference", lambda q, k, v: v),),
            options=(Option("shape", (1, 2), "not JSON"), Option("limit", float("inf"), "not JSON either")))
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = dict(registry._plugins)
    yield
    registry._plugins.clear()
    registry._plugins.update(before)


def test_every_variant_is_described_as_json(catalogue: dict) -> None:
    assert list(catalogue) == sorted(catalogue) == [n for n in attentions.names() if n in catalogue]
    assert {"full", "flash", "xformers", "linformer", "nystrom", "anchor"} <= set(catalogue)
    for name, entry in catalogue.items():
        spec = attentions.spec(name)
        assert list(entry["backends"]) == [backend.name for backend in spec.backends]
        assert set(entry["options"]) == set(spec.defaults)
        assert not (entry["exact"] and entry["bottleneck"])
        assert entry["floor"] == (name == "none")
        assert entry["best"]["cpu"] is None or entry["backends"][entry["best"]["cpu"]]["unavailable"]["cpu"] is None
        for backend in entry["backends"].values():
            reason = backend["unavailable"]["cpu"]
            assert reason is None or len(reason) > 20
    assert catalogue["xformers"]["unavailable"]["cpu"]
    json.dumps(catalogue, allow_nan=False)


def test_a_changed_plugin_is_described_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attentions, "devices", lambda: ("cpu",))
    plugin = tmp_path / "mine.py"
    for title in ("first", "second"):
        plugin.write_text(MINE.format(title=title))
        assert cached([str(plugin)], compute=False) is None
        assert cached([str(plugin)])["attentions"]["mine"]["title"] == title
        kept = cached([str(plugin)], compute=False)
        assert kept is not None
        assert kept["attentions"]["mine"]["title"] == title
        assert kept["attentions"]["mine"]["options"]["shape"]["default"] == "(1, 2)"
        assert kept["attentions"]["mine"]["options"]["limit"]["default"] == "inf"
    plugin.write_text(MINE.format(title="first"))
    assert cached([str(plugin)], compute=False)["attentions"]["mine"]["title"] == "first"  # type: ignore[index]


def test_what_the_answer_depends_on_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("x = 1\n")
    keys = {catalogue._cache_key([]), catalogue._cache_key([str(plugin)])}
    for name in catalogue.VARIABLES:
        monkeypatch.setenv(name, "changed")
        keys.add(catalogue._cache_key([]))
        monkeypatch.undo()
    monkeypatch.setattr(catalogue.metadata, "version", lambda name: "0")
    keys.add(catalogue._cache_key([]))
    assert len(keys) == 3 + len(catalogue.VARIABLES)
    monkeypatch.undo()
    assert catalogue._cache_key([]) == catalogue._cache_key([])


def test_no_cache_costs_time_and_not_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "describe", lambda devices: {"full": {}})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached([])["attentions"] == {"full": {}}  # type: ignore[index]
    assert cached([], compute=False) is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cached([])["attentions"] == {"full": {}}  # type: ignore[index]


def test_a_torn_cache_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "describe", lambda devices: {"full": {}})
    cached([])
    (path,) = (tmp_path / "cache" / "attention-harness").iterdir()
    path.write_text(path.read_text()[:-5])
    assert cached([], compute=False) is None
    assert cached([])["attentions"] == {"full": {}}  # type: ignore[index]


def test_one_variants_fault_does_not_hide_the_others(tmp_path: Path) -> None:
    attentions.load_plugin(Path(__file__).parents[1] / "variants.py")
    found = describe(["cpu"])
    assert found["unsure"]["backends"]["reference"]["unavailable"] == {
        "cpu": "fails to tell whether it runs on cpu: OSError: probe broken"
    }
    assert found["unsure"]["best"] == {"cpu": None}
    assert found["full"]["best"] == {"cpu": "reference"}


def test_a_case_gets_its_backend_and_its_options_one_spelling() -> None:
    case = making.case(attention="anchor", backend="", m=8, options="init=sharp;scale=2")
    found = resolve(case)
    assert found.status == "ok"
    assert found.case.backend in {backend.name for backend in attentions.spec("anchor").backends}
    assert found.case.options == "scale=2.0"  # the default is no choice
    plain = resolve(making.case(attention="anchor", backend="", m=8, options="scale=1"))
    assert plain.case.case_id == resolve(making.case(attention="anchor", backend="", m=8)).case.case_id
    named = resolve(making.case(attention="anchor", backend="sdpa", m=8))
    assert (named.case.backend, named.case.m) == ("sdpa", 8)


def test_memory_is_the_models_with_the_inputs() -> None:
    forward, train = (resolve(making.case(phase=phase)) for phase in ("forward", "train"))
    spec, tensor = attentions.spec("full"), 2 * 64 * 16 * 4
    assert forward.peak_bytes == spec.cost(1, 2, 64, 16).peak + 3 * tensor
    assert train.peak_bytes == spec.cost(1, 2, 64, 16, phase="train").peak + 4 * tensor
    assert forward.flops == 4 * 2 * 64 * 64 * 16


def test_what_cannot_run_says_why() -> None:
    attentions.load_plugin(Path(__file__).parents[1] / "variants.py")
    found = {name: resolve(making.case(attention=name, backend="")) for name in ("refused", "limited", "unmodelled")}
    assert {name: r.status for name, r in found.items()} == {
        "refused": "unavailable", "limited": "unsupported", "unmodelled": "ok"
    }  # fmt: skip
    assert "needs a thing that nobody has" in found["refused"].note
    assert "takes n up to 32 only" in found["limited"].note
    assert found["unmodelled"].peak_bytes is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "fulll"}, "unknown attention 'fulll'; did you mean 'full'?"),
        ({"backend": "x"}, "unknown backend of full 'x'; valid: reference"),
        ({"attention": "anchor", "m": 8, "options": "init=x"}, "option init='x' is not valid; it takes one of paper"),
        ({"options": "x=1"}, "unknown option of full 'x'; valid: \\(none\\)"),
    ],
)
def test_names_that_do_not_exist_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(attentions.AttentionError, match=message):
        resolve(making.case(**changes))


def test_an_installed_variant_that_changes_in_place_is_described_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    entry = SimpleNamespace(name="mine", value="installed_mine:SPEC")
    monkeypatch.setattr(catalogue.metadata, "entry_points", lambda group: [entry])
    keys = []
    for title in ("first", "the second"):
        (tmp_path / "installed_mine.py").write_text(MINE.format(title=title))
        keys.append(catalogue._cache_key([]))
    assert keys[0] != keys[1] == catalogue._cache_key([])
    entry.value = "not_there:SPEC"
    assert catalogue._cache_key([]) not in keys
