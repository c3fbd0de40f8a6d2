"""Models of others as cases: with the attention that they have and with one swapped in, forward to training step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import making
import pytest
import torch

import attentions
from attentions import registry
from harness import cli
from harness.cases import catalogue
from harness.cases.space import Sweep, expand
from harness.errors import UsageError
from harness.measuring import metrics
from harness.measuring.metrics import Settings
from harness.measuring.metrics.error import WrongResult
from harness.measuring.subject import Subject
from harness.store.record import Case, Reading
from harness.vision import foreign, models

NETS = """
import torch
from torch import nn

class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.cut = nn.Conv2d(3, 16, 8, stride=8)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)
    def forward(self, images):
        return {"logits": self.head(self.body(self.cut(images).flatten(2).mT).mean(1)), "loss": None}

def tiny(resolution):
    return Patches()

def words(tokens):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.Sequential(nn.Embedding(50, 16), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False))

class SumAttention(nn.Module):
    num_heads = 2
    def forward(self, x):
        return x.cumsum(1)

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.cut, self.mix, self.head = nn.Conv2d(3, 16, 8, stride=8), SumAttention(), nn.Linear(16, 3)
    def forward(self, images):
        return self.head(self.mix(self.cut(images).flatten(2).mT).mean(1))

def odd():
    return Odd()

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Flatten(), nn.Linear(4 * 16, 3))

def collapsing(resolution):
    return nn.Sequential(nn.Flatten(0), nn.Linear(3 * resolution * resolution, 2))

def nothing():
    return None
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path) -> Iterator[Path]:
    before = dict(registry._makers), dict(registry._plugins)
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    attentions.load_plugin(path)
    yield path
    for table, known in zip((registry._makers, registry._plugins), before, strict=True):
        table.clear()
        table.update(known)


def case(attention: str, options: str, **changes: Any) -> Case:
    """A case as a sweep has it: what the model's attention sees is yet to be found out."""
    sizes = {"n": 0, "h": 0, "d": 0, "b": 2}
    return making.case(
        **{"attention": attention, "backend": "", "scope": "model", "options": options, **sizes, **changes}
    )


def resolved(attention: str, options: str, **changes: Any) -> Case:
    found = catalogue.resolve(case(attention, options, **changes))
    assert found.status == "ok", found.note
    return found.case


def measure(subject: Subject, *names: str) -> dict[str, Reading]:
    readings: dict[str, Reading] = {}
    settings = Settings(budget_s=0.01, min_samples=3, ceilings={"copy_gb_per_s": 10, "matmul_tflops": {"float32": 0.1}})
    for metric in metrics.plan(names):
        readings |= {reading.metric: reading for reading in metric.measure(subject, readings, settings)}
    return readings


TINY, WORDS = "model=nets:tiny;resolution=32", "model=nets:words"
ALL = ("latency", "throughput", "flops", "peak_memory", "params", "numeric_error", "roofline_fraction")
BODY = 4 * 16 * 16 + 2 * 16 * 32  # multiply-adds of a layer's projections and MLP, for each token


@pytest.mark.parametrize("attention", ["as-is", "full", "flash", "anchor"])
def test_images(attention: str) -> None:
    """16 patches and two heads are found by running it; FLOPs of the swapped one are those of the model as it is."""
    found = resolved(attention, TINY, m=4 if attention == "anchor" else None)
    assert (found.n, found.h, found.d) == (16, 2, 8)
    assert found.options == TINY
    readings = measure(Subject(found), *ALL)
    assert 0 < readings["numeric_error"].value < 1e-4  # type: ignore[operator]
    assert readings["throughput"].value == pytest.approx(2e3 / readings["latency"].value)  # type: ignore[operator]
    assert making.row(found, readings["throughput"]).unit == "img/s"
    exact = 2 * 2 * (16 * 3 * 64 * 16 + 2 * 16 * BODY + 2 * 2 * 16 * 16 * 16 + 16 * 5)
    assert (readings["flops"].value == exact) == (attention != "anchor")
    assert readings["flops"].note.startswith("counted by dispatch")
    assert readings["roofline_fraction"].status == "unsupported"
    assert readings["peak_memory"].value > 0  # type: ignore[operator]


@pytest.mark.parametrize("attention", ["as-is", "flash"])
@pytest.mark.parametrize("phase", ["forward", "train", "step"])
def test_tokens(attention: str, phase: str) -> None:
    found = resolved(attention, WORDS, n=24, phase=phase)
    assert (found.n, found.h, found.d, found.options) == (24, 2, 8, WORDS)
    subject = Subject(found)
    (ids,) = subject.inputs
    assert (ids.dtype, ids.shape) == (torch.int64, (2, 24))
    assert 0 <= int(ids.min()) <= int(ids.max()) < 50
    readings = measure(subject, *ALL)
    assert readings["numeric_error"].note == "compared on the first of 2 sequences"
    assert readings["throughput"].value == pytest.approx(48e3 / readings["latency"].value)  # type: ignore[operator]
    assert making.row(found, readings["throughput"]).unit == "tokens/s"


def test_a_step_is_forward_loss_backward_and_adamw() -> None:
    """Its weights after two steps are those of torch.optim.AdamW by hand, and no gradient is left."""
    subject = Subject(resolved("as-is", TINY, phase="step", b=3))
    step = subject._step
    assert step is not None
    other = Subject(subject.case)
    hand = torch.optim.AdamW(other.module.parameters(), lr=1e-6)
    for _ in range(2):
        subject.call()
        other.inputs = next(other._sets)
        logits = other.module(*other.inputs)
        torch.nn.functional.cross_entropy(logits, step.classes).backward()
        hand.step()
        hand.zero_grad()
    for mine, theirs in zip(subject.module.parameters(), other.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
        assert mine.grad is None
    first = Subject(subject.case).module.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(subject.module.parameters(), first, strict=True))


def test_a_step_needs_the_products_of_training_and_more_memory() -> None:
    train, step = (measure(Subject(resolved("as-is", TINY, phase=phase)), "flops") for phase in ("train", "step"))
    assert step["flops"].value == train["flops"].value


def test_built_in_models_take_a_step_too() -> None:
    """There the formula and the dispatcher agree, and the optimizer's state is part of the prediction."""
    pytest.importorskip("timm", reason="needs timm: pip install 'attention-harness[vision]'")
    options = "model=anchorformer_tiny;resolution=64"
    sizes = {"n": models.architecture("anchorformer_tiny").tokens(64), "h": 3, "d": 64, "b": 1}
    train, step = (catalogue.resolve(case("flash", options, phase=phase, **sizes)) for phase in ("train", "step"))
    assert step.flops == train.flops
    weights = sum(p.numel() for p in Subject(step.case).module.parameters())
    assert step.peak_bytes - train.peak_bytes == pytest.approx(2 * 4 * weights, rel=0.02)  # type: ignore[operator]
    assert measure(Subject(step.case), "flops")["flops"].value == step.flops


def test_autocast_computes_in_half_and_keeps_weights() -> None:
    found = resolved("as-is", f"amp=true;{TINY}", dtype="bfloat16", phase="train")
    subject = Subject(found)
    assert {p.dtype for p in subject.module.parameters()} == {torch.float32}
    assert subject.call().dtype == torch.bfloat16
    narrow = Subject(resolved("as-is", TINY, dtype="bfloat16"))
    assert {p.dtype for p in narrow.module.parameters()} == {torch.bfloat16}
    assert 1e-4 < measure(subject, "numeric_error")["numeric_error"].value < 0.2  # type: ignore[operator]


@pytest.mark.slow
def test_a_compiled_model_is_checked_and_its_products_are_counted() -> None:
    eager, compiled = (resolved("flash", f"{on}{TINY}") for on in ("", "compile=true;"))
    found = {one.options: measure(Subject(one), "numeric_error", "flops", "kernels") for one in (eager, compiled)}
    assert found[compiled.options]["flops"].value == found[eager.options]["flops"].value
    assert 0 < found[compiled.options]["numeric_error"].value < 1e-4  # type: ignore[operator]
    assert "a compiled graph" in found[compiled.options]["kernels"].note


def test_a_wrong_model_is_not_timed() -> None:
    subject = Subject(resolved("flash", TINY))
    weight: Any = subject.module.model.body.layers[1].linear1.weight  # type: ignore[union-attr, index]
    right = subject.module.model.head.forward  # type: ignore[union-attr]
    subject.module.model.head.forward = lambda x: right(x) + weight.sum() * 0.01  # type: ignore[union-attr, assignment]
    with pytest.raises(WrongResult, match="exceeds the tolerance"):
        measure(subject, "numeric_error")


def test_what_cannot_be_swapped_says_why_and_is_measured_as_it_is() -> None:
    options = "model=nets:odd;resolution=32"
    found = catalogue.resolve(case("flash", options))
    assert (found.status, found.case.n, found.case.h, found.case.d) == ("unsupported", 16, 2, 8)
    assert "Odd holds no attention that can be replaced; mix: SumAttention has no linear layers" in found.note
    alone = resolved("as-is", options)
    assert 0 < measure(Subject(alone), "numeric_error")["numeric_error"].value < 1e-4  # type: ignore[operator]


def test_timm_by_name_at_another_resolution() -> None:
    pytest.importorskip("timm", reason="needs timm: pip install 'attention-harness[vision]'")
    found = resolved("anchor", "model=timm:vit_tiny_patch16_224;resolution=48", m=4, b=1)
    assert (found.n, found.h, found.d) == (10, 3, 64)
    assert 0 < measure(Subject(found), "numeric_error")["numeric_error"].value < 1e-4  # type: ignore[operator]


def test_rotary_embeddings_are_refused_and_the_model_is_measured_as_it_is() -> None:
    timm = pytest.importorskip("timm", reason="needs timm: pip install 'attention-harness[vision]'")
    name = "vit_small_patch16_dinov3"
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    options = f"model=timm:{name};resolution=64"
    refused = catalogue.resolve(case("flash", options))
    assert refused.status == "unsupported"
    assert "rope" in refused.note
    found = resolved("as-is", options, b=1)
    assert (found.n, found.h, found.d) == (16 + 5, 6, 64)
    assert 0 < measure(Subject(found), "numeric_error")["numeric_error"].value < 1e-4  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("model=nets:tinny;resolution=32", "unknown model of a plugin 'nets:tinny'; did you mean 'nets:tiny'"),
        ("model=nets:nothing;resolution=32", "the function made a NoneType, not a torch.nn.Module"),
        ("model=nets:words;resolution=32", "takes tokens: give --n, such as --n 512,1024, and no --resolution"),
        ("model=nets:tiny", "takes images: give --resolution, such as --resolution 224,448, and no --n"),
        ("model=nets:plain;resolution=32", "no attention is recognised in it"),
        ("model=nets:plain;resolution=24", "cannot be made or called: RuntimeError: "),
        ("model=nets:collapsing;resolution=32", "makes 2 of one input; it has to give"),
        (
            "model=timm:vit_tinny_patch16_224;resolution=32",
            "unknown model of timm 'vit_tinny_patch16_224'; did you mean",
        ),
        ("model=timm:vit_tiny_patch16_224?weights=a;resolution=32", "after '.' comes checkpoint=FILE, not 'weights=a'"),
        ("model=timm:vit_tiny_patch16_224?checkpoint=absent;resolution=32", "checkpoint absent: no such file"),
    ],
)
def test_what_is_no_model_is_answered(options: str, said: str) -> None:
    if "timm" in options:
        pytest.importorskip("timm")
    with pytest.raises(UsageError, match=said):
        catalogue.resolve(case("as-is", options, n=8 if options == "model=nets:tiny" else 0))


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.vision import sources

    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"hf:gpt2 needs the package transformers.* 'attention-harness\[hf\]'"):
        catalogue.resolve(case("as-is", "model=hf:gpt2", n=8))


def test_a_checkpoint_is_loaded_and_resampled(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs timm: pip install 'attention-harness[vision]'")
    torch.manual_seed(3)
    kept = timm.create_model("vit_tiny_patch16_224", img_size=32)
    torch.save(kept.state_dict(), tmp_path / "kept.pth")
    options = f"model=timm:vit_tiny_patch16_224?checkpoint={tmp_path}/kept.pth;resolution="
    same = Subject(resolved("as-is", f"{options}32", b=1)).module.model
    torch.testing.assert_close(same.blocks[3].attn.qkv.weight, kept.blocks[3].attn.qkv.weight)  # type: ignore[union-attr, index]
    other = Subject(resolved("as-is", f"{options}48", b=1)).module.model
    assert other.pos_embed.shape[1] == 10  # type: ignore[union-attr]
    torch.testing.assert_close(other.head.weight, kept.head.weight)  # type: ignore[union-attr]


def test_a_model_is_not_called_to_find_out_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many tokens its attention sees was found as the case was resolved."""
    of = resolved("linformer", "model=nets:tiny;resolution=32", m=4)
    called: list[object] = []
    monkeypatch.setattr(foreign, "_called", lambda *given: called.append(given))
    built = foreign.build(foreign.Asked.of(of, "linformer", {}))
    assert called == []
    assert {p.shape[-1] for name, p in built.named_parameters() if "projection" in name} >= {16}


def test_the_axes_of_a_sweep(catalogue: dict[str, dict]) -> None:
    """Images at resolutions, tokens at n; as-is comes first where nothing is named."""
    both = Sweep.parse({"scope": "model", "model": "nets:tiny,anchorformer_tiny", "attention": "as-is,flash"})
    cases, _ = expand(both, catalogue, device="cpu")
    assert [(c.attention, c.options, c.n) for c in cases] == [
        ("as-is", "model=nets:tiny;resolution=224", 0),
        ("flash", "model=nets:tiny;resolution=224", 0),
        ("flash", "model=anchorformer_tiny;resolution=224", 198),
    ]
    tokens = Sweep.parse({"scope": "model", "model": "nets:words", "n": "4096"})
    assert tokens.resolution == ()
    assert Sweep.parse(tokens_again(tokens)) == tokens
    cases, _ = expand(tokens, catalogue, device="cpu")
    assert {(c.options, c.n) for c in cases} == {("model=nets:words", 4096)}
    assert cases[0].attention == "as-is"
    assert {"full", "anchor"} <= {c.attention for c in cases}
    switched = Sweep.parse({"scope": "model", "model": "nets:tiny", "attention": "flash", "amp": [False, True],
                            "compile": True})  # fmt: skip
    cases, _ = expand(switched, catalogue, device="cpu")
    assert [(c.options, c.dtype) for c in cases] == [
        ("compile=true;model=nets:tiny;resolution=224", "float32"),
        ("amp=true;compile=true;model=nets:tiny;resolution=224", "bfloat16"),
    ]


def tokens_again(sweep: Sweep) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(sweep.to_toml())


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model": "nets:tiny"}, "--model nets:tiny means nothing in scope core; add --scope model"),
        ({"model": "nets:tiny", "scope": "model,core"}, "--model nets:tiny takes its sizes by itself; give it a sweep"),
        ({"attention": "as-is"}, "--attention as-is is of a model of others; add --scope model and --model timm:"),
        ({"phase": "step"}, "--phase step is a training step of a whole model"),
        ({"compile": True}, "--compile means nothing in scope core; add --scope model"),
        ({"scope": "model", "amp": True, "dtype": "float32"}, "give --dtype bfloat16, not float32"),
        ({"scope": "model", "model": "timm:x", "n": 64}, "--n 64 means nothing in scope model"),
        ({"scope": "model", "model": "nets:words", "heads": 2}, "--heads 2 means nothing in scope model"),
    ],
)
def test_what_means_nothing_is_told(catalogue: dict[str, dict], keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        expand(Sweep.parse(keys), catalogue, device="cpu")


@pytest.mark.parametrize("name", ["timm:", ":x", "nets tiny:x", "a;b:c"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError, match="model"):
        Sweep.parse({"model": name, "scope": "model"})


def test_a_file_in_the_models_name_is_a_plugin_and_no_file_of_data_names_one(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep.parse({"model": f"{plugin}:tiny,anchorformer_tiny", "scope": "model"})
    assert (sweep.model, sweep.plugin) == (("nets:tiny", "anchorformer_tiny"), (str(plugin),))
    config = tmp_path / "sweep.toml"
    config.write_text(f'model = "{plugin}:tiny"\nscope = "model"\n')
    assert cli.main(["plan", "--config", str(config)]) == 2
    assert "names the plugin nets.py, which is code: a file of data runs none" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_from_the_command_line(plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two models by name in one run, shown, compared and drawn like any other."""
    folder = tmp_path / "run"
    words = [
        "run",
        "--scope",
        "model",
        "--model",
        f"{plugin}:tiny",
        "--resolution",
        "32,64",
        "--batch",
        "2",
        "--m",
        "4",
    ]
    words += ["--attention", "as-is,anchor", "--metrics", "latency,throughput,flops,params", "--budget", "0.02"]
    words += ["--phase", "forward,step", "--patience", "0", "--device", "cpu", "--out", str(folder), "--json", "-q"]
    assert cli.main(words) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["status"] for row in rows} == {"ok"}
    assert {(row["attention"], row["backend"], row["n"]) for row in rows if row["attention"] == "as-is"} == {
        ("as-is", "own", n) for n in (16, 64)
    }
    assert cli.main(["show", str(folder), "--metric", "throughput"]) == 0
    said = capsys.readouterr().out
    assert "scope model nets:tiny" in " ".join(said.split())  # lines are folded
    assert "as-is" in said
    assert cli.main(["plot", str(folder), "--figure", "resolution", "--format", "svg"]) == 0
    assert cli.main(["report", str(folder)]) == 0
