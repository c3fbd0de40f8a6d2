"""Finding variants by name, in files and in installed packages, and saying clearly when that fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import attentions
from attentions import registry

PLUGIN = """
import attentions

def mean(q, k, v):
    return v.mean(dim=-2, keepdim=True).expand_as(v)

SPEC = attentions.Spec(name="{name}", title="Mean of all tokens", backends=(attentions.Backend("reference", mean),))
"""


@pytest.fixture(autouse=True)
def _forget_plugins() -> Iterator[None]:
    yield
    registry._plugins.clear()
    registry._files.clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The entry points that a fresh look finds."""
    entries: list[Any] = []
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: entries)
    registry._installed.cache_clear()
    yield entries
    monkeypatch.undo()
    registry._installed.cache_clear()


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_finds_the_five_and_the_reference() -> None:
    assert {"anchor", "flash", "full", "linformer", "nystrom", "xformers"} <= set(attentions.names())
    assert attentions.names() == sorted(attentions.names())


def test_names_are_file_names() -> None:
    files = {path.stem for path in Path(attentions.variants.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(attentions.names()) == files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ancor", "unknown attention 'ancor'; did you mean 'anchor'? valid: agent, anchor, "),
        ("zzz", "unknown attention 'zzz'; valid: agent, anchor, "),
        ("flash:torhc", "unknown backend of flash 'torhc'; did you mean 'torch'? valid: cudnn, "),
        ("anchor:", "'anchor:' names no backend after ':'; write 'anchor' to take the best one"),
        ("", "unknown attention ''; valid: "),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(attentions.AttentionError) as caught:
        attentions.build(name, heads=1, head_dim=8, tokens=8, anchors=2)
    assert str(caught.value).startswith(message)


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(
        attentions.AttentionError, match=r"unknown option of nystrom 'iteration'; did you mean 'iterations'"
    ):
        attentions.build("nystrom", heads=1, head_dim=8, tokens=8, anchors=2, iteration=3)


def test_every_unavailable_backend_says_why() -> None:
    for name in attentions.names():
        for backend in attentions.spec(name).backends:
            for device in ("cpu", "cuda"):
                reason = attentions.why_unavailable(f"{name}:{backend.name}", device=device)
                assert reason is None or len(reason.split()) >= 4, (name, backend.name, device, reason)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_everything_on_cuda_says_so() -> None:
    for name in attentions.names():
        assert "needs a CUDA device" in str(attentions.why_unavailable(name, device="cuda"))


def test_a_named_backend_is_never_replaced() -> None:
    missing = [
        f"{name}:{backend.name}"
        for name in attentions.names()
        for backend in attentions.spec(name).backends
        if attentions.why_unavailable(f"{name}:{backend.name}")
    ]
    for name in missing:
        with pytest.raises(attentions.Unavailable) as caught:
            attentions.build(name, heads=2, head_dim=8, tokens=8, anchors=2)
        assert str(caught.value) == f"{name} {attentions.why_unavailable(name)}"


def test_the_bare_name_remembers_each_kind_of_input() -> None:
    core = attentions.build("flash", heads=1, head_dim=8, tokens=8)
    q = torch.randn(1, 1, 8, 8)
    for tensor in (q, q.double(), q.clone().requires_grad_()):
        core(tensor, tensor, tensor)
    assert len(core.compute.chosen) == 3
    core(q, q, q)
    assert len(core.compute.chosen) == 3


def test_the_bare_name_refuses_what_no_backend_can() -> None:
    core = attentions.build("xformers", heads=1, head_dim=8, tokens=8)
    tensor = torch.randn(1, 1, 8, 8)
    with pytest.raises(attentions.Unavailable, match="xformers:xformers runs on a CUDA device only, not on the cpu"):
        core(tensor, tensor, tensor)


def test_plugin(tmp_path: Path) -> None:
    assert attentions.load_plugin(write(tmp_path, PLUGIN.format(name="mine"))) == ["mine"]
    assert "mine" in attentions.names()
    v = torch.randn(1, 2, 6, 4)
    out = attentions.build("mine", heads=2, head_dim=4, tokens=6)(v, v, v)
    torch.testing.assert_close(out, v.mean(dim=-2, keepdim=True).expand_as(v))


def test_plugin_may_be_loaded_again(tmp_path: Path) -> None:
    path = write(tmp_path, PLUGIN.format(name="mine"))
    assert attentions.load_plugin(path) == attentions.load_plugin(str(path)) == ["mine"]


def test_plugin_with_several_variants(tmp_path: Path) -> None:
    text = PLUGIN.format(name="one") + PLUGIN.format(name="two").replace("SPEC", "OTHER")
    assert attentions.load_plugin(write(tmp_path, text)) == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no attentions.Spec at its top level"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (PLUGIN.format(name="full"), "the name 'full' is taken by 'Softmax attention, materialised'"),
        (PLUGIN.format(name="Mine"), "a variant's name is a lower-case identifier, not 'Mine'"),
        (
            PLUGIN.format(name="mine").replace('"reference"', '"fast"'),
            "backends must be distinct and include 'reference'",
        ),
    ],
)
def test_plugin_that_fails(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(attentions.AttentionError) as caught:
        attentions.load_plugin(path)
    assert str(caught.value).startswith(f"plugin {path}: ")
    assert message in str(caught.value)
    assert "mine" not in attentions.names()
    assert not any(name.startswith("attentions_plugin_mine") for name in sys.modules if message == "SyntaxError")


def test_plugin_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(attentions.AttentionError, match="no such file"):
        attentions.load_plugin(tmp_path / "absent.py")
    with pytest.raises(attentions.AttentionError, match="no such file"):
        attentions.load_plugin(tmp_path)
    with pytest.raises(attentions.AttentionError, match=r"its name must end in \.py"):
        attentions.load_plugin(write(tmp_path, PLUGIN.format(name="mine"), name="mine.txt"))


def test_plugin_leaves_an_interrupt_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        attentions.load_plugin(write(tmp_path, "raise KeyboardInterrupt"))


def test_two_plugins_may_not_share_a_name(tmp_path: Path) -> None:
    attentions.load_plugin(write(tmp_path, PLUGIN.format(name="mine"), name="first.py"))
    with pytest.raises(attentions.AttentionError, match="the name 'mine' is taken"):
        attentions.load_plugin(write(tmp_path, PLUGIN.format(name="mine"), name="second.py"))


def test_entry_point(installed: list[Any]) -> None:
    found = attentions.Spec(name="theirs", title="x", backends=(attentions.Backend("reference", lambda q, k, v: v),))
    installed.append(SimpleNamespace(name="theirs", value="their.module:SPEC", load=lambda: found))
    assert attentions.spec("theirs") is found
    v = torch.randn(1, 1, 2, 2)
    assert attentions.build("theirs", heads=1, head_dim=2, tokens=2)(v, v, v) is v


def test_entry_point_that_is_no_spec(installed: list[Any]) -> None:
    installed.append(SimpleNamespace(name="theirs", value="their.module:x", load=lambda: 3))
    with pytest.raises(attentions.AttentionError, match=r"entry point theirs = their\.module:x is a int, not a Spec"):
        attentions.names()


def test_entry_point_that_does_not_load(installed: list[Any]) -> None:
    def load() -> Any:
        raise ImportError("no module named their")

    installed.append(SimpleNamespace(name="theirs", value="their.module:x", load=load))
    with pytest.raises(
        attentions.AttentionError, match=r"entry point theirs = their\.module:x .*no module named their"
    ):
        attentions.names()


def test_entry_point_may_not_take_a_built_in_name(installed: list[Any]) -> None:
    theirs = attentions.Spec(name="full", title="x", backends=(attentions.Backend("reference", lambda q, k, v: v),))
    installed.append(SimpleNamespace(name="full", value="their.module:SPEC", load=lambda: theirs))
    with pytest.raises(attentions.AttentionError, match="the name 'full' is taken"):
        attentions.names()


def test_specs_are_themselves_whatever_they_hold() -> None:
    backend = attentions.Backend("reference", lambda q, k, v: v)
    unhashable = attentions.Option("stages", [1, 2], "any default will do")
    one, two = (attentions.Spec(name="x", title="x", backends=(backend,), options=(unhashable,)) for _ in range(2))
    assert len({one, two}) == 2


@pytest.mark.slow
def test_importing_stays_cheap() -> None:
    program = "import sys, attentions; attentions.names(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "attentions.variants.flash" in loaded
    assert not loaded & {"torch._dynamo", "torch._inductor", "triton", "xformers", "flash_attn", "torchvision"}


def test_what_a_plugin_prints_as_it_loads_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attentions.load_plugin(write(tmp_path, "print('hello')\n" + PLUGIN.format(name="mine")))
    assert capsys.readouterr() == ("", "hello\n")
