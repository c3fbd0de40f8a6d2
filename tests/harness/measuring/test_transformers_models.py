"""Models of transformers as cases: three tiny ones from a folder's config.json, and what is no such model."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import making
import pytest

pytest.importorskip("transformers", reason="needs transformers: pip install 'attention-harness[hf]'")

import torch
import transformers

from harness.cases import catalogue
from harness.errors import UsageError
from harness.measuring import metrics
from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Case, Reading

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"model_type": "vit", "architectures": ["ViTForImageClassification"], "intermediate_size": 64,
            "image_size": 32, "patch_size": 8, **SMALL},
    "dinov2": {"model_type": "dinov2", "architectures": ["Dinov2Model"], "mlp_ratio": 2, "image_size": 28,
               "patch_size": 14, **SMALL},
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 32, "n_layer": 2, "n_head": 4,
             "n_positions": 64, "vocab_size": 97},
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "intermediate_size": 64, "vocab_size": 97,
              "num_key_value_heads": 2, "max_position_embeddings": 16, **SMALL},
}  # fmt: skip
SIZES = {"vit": {"resolution": 32}, "dinov2": {"resolution": 56}, "gpt2": {"n": 24}, "llama": {"n": 24}}
SEEN = {"vit": 17, "dinov2": 17, "gpt2": 24, "llama": 24}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError("a model looked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def folder(tmp_path: Path, name: str, **changes: Any) -> Path:
    path = tmp_path / name
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIGS[name] | changes))
    return path


def case(path: Path, attention: str, *, n: int = 0, resolution: int | None = None, **changes: Any) -> Case:
    options = f"model=hf:{path}" + (f";resolution={resolution}" if resolution else "")
    given = {
        "attention": attention,
        "backend": "",
        "scope": "model",
        "options": options,
        "h": 0,
        "d": 0,
        "n": n,
        "b": 2,
    }
    return making.case(**{**given, **changes})


def measure(subject: Subject, *names: str) -> dict[str, Reading]:
    readings: dict[str, Reading] = {}
    for metric in metrics.plan(names):
        found = metric.measure(subject, readings, Settings(budget_s=0.01, min_samples=3))
        readings |= {reading.metric: reading for reading in found}
    return readings


@pytest.mark.parametrize("phase", ["forward", "step"])
@pytest.mark.parametrize("attention", ["as-is", "flash"])
@pytest.mark.parametrize("name", ["vit", "dinov2", "gpt2"])
def test_three_architectures(tmp_path: Path, name: str, attention: str, phase: str) -> None:
    """With softmax attention of ours in its place each computes as many products as it did, the decoder causally."""
    path = folder(tmp_path, name)
    found = catalogue.resolve(case(path, attention, phase=phase, **SIZES[name]))
    assert found.status == "ok", found.note
    assert (found.case.n, found.case.h, found.case.d, found.note) == (SEEN[name], 4, 8, "")
    readings = measure(Subject(found.case), "latency", "throughput", "flops", "params", "numeric_error")
    assert 0 < readings["numeric_error"].value < 1e-4  # type: ignore[operator]
    unit = "tokens/s" if name == "gpt2" else "img/s"
    assert making.row(found.case, readings["throughput"]).unit == unit
    assert readings["flops"].value > 0  # type: ignore[operator]


@pytest.mark.parametrize("name", ["vit", "dinov2", "gpt2"])
def test_swapping_softmax_attention_changes_no_output(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, name)
    outs = []
    for attention in ("as-is", "full"):
        subject = Subject(catalogue.resolve(case(path, attention, dtype="float64", **SIZES[name])).case)
        outs.append(subject.call())
    torch.testing.assert_close(*outs, rtol=1e-9, atol=1e-9)


def test_anchors_in_a_vit_and_not_where_positions_are_rotated(tmp_path: Path) -> None:
    vit = catalogue.resolve(case(folder(tmp_path, "vit"), "anchor", m=4, **SIZES["vit"]))
    assert vit.status == "ok", vit.note
    assert measure(Subject(vit.case), "numeric_error")["numeric_error"].status == "ok"
    llama = folder(tmp_path, "llama")
    refused = catalogue.resolve(case(llama, "flash", **SIZES["llama"]))
    assert refused.status == "unsupported"
    assert "position_embeddings" in refused.note
    whole = catalogue.resolve(case(llama, "as-is", **SIZES["llama"]))
    assert (whole.case.n, whole.case.h) == (24, 4)
    assert 0 < measure(Subject(whole.case), "numeric_error")["numeric_error"].value < 1e-4  # type: ignore[operator]


def test_half_precision_keeps_rotary_frequencies(tmp_path: Path) -> None:
    found = catalogue.resolve(case(folder(tmp_path, "llama"), "as-is", dtype="bfloat16", **SIZES["llama"]))
    subject = Subject(found.case)
    dtypes = {name.rpartition(".")[2]: buffer.dtype for name, buffer in subject.module.named_buffers()}
    assert dtypes["inv_freq"] == torch.float32
    assert {p.dtype for p in subject.module.parameters()} == {torch.bfloat16}
    assert measure(subject, "numeric_error")["numeric_error"].value < 0.05  # type: ignore[operator]


def test_a_folder_with_weights_gives_them(tmp_path: Path) -> None:
    path = folder(tmp_path, "vit")
    torch.manual_seed(5)
    kept = transformers.ViTForImageClassification(transformers.AutoConfig.from_pretrained(path))
    kept.save_pretrained(path)
    model = Subject(catalogue.resolve(case(path, "as-is", resolution=32)).case).module.model
    torch.testing.assert_close(model.classifier.weight, kept.classifier.weight)  # type: ignore[union-attr]
    larger = catalogue.resolve(case(path, "as-is", resolution=64))
    assert larger.case.n == 65
    assert measure(Subject(larger.case), "numeric_error")["numeric_error"].status == "ok"


def test_a_name_is_a_configuration() -> None:
    found = catalogue.resolve(case(Path("gpt2"), "as-is", n=8))
    assert (found.status, found.case.h, found.case.d) == ("ok", 12, 64)


def test_learned_positions_end_somewhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gpt2 has positions for 64 tokens, not for 65"):
        catalogue.resolve(case(folder(tmp_path, "gpt2"), "as-is", n=65))


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("gpt3", {"n": 8}, "unknown model of transformers 'gpt3'; did you mean .*nothing is downloaded"),
        ("nobody/model", {"n": 8}, "nothing is downloaded"),
        ("gpt2", {"resolution": 32}, "model hf:gpt2 takes tokens: give --n"),
        ("vit", {"n": 8}, "model hf:vit takes images: give --resolution"),
    ],
)
def test_what_is_no_model_is_answered(name: str, sizes: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        catalogue.resolve(case(Path(name), "as-is", **sizes))


def test_a_config_that_is_none_is_answered(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"its config.json cannot be taken"):
        catalogue.resolve(case(tmp_path, "as-is", n=8))
