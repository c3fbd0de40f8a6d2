"""Checkpoint files: read back equal, complete or absent, refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from harness.errors import Failure, UsageError
from harness.vision import checkpoint

PARTS = {"model": {"a.weight": torch.arange(6.0).reshape(2, 3)}, "optimizer": {"step/a.weight": torch.tensor(3.0)}}


def test_parts_and_facts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "last.safetensors"
    checkpoint.save(path, PARTS, {"step": 3, "best": {"value": 0.1}})
    parts, facts = checkpoint.load(path)
    assert facts == {"schema": 1, "step": 3, "best": {"value": 0.1}}
    assert all(
        torch.equal(parts[part][name], tensor) for part, named in PARTS.items() for name, tensor in named.items()
    )
    assert [entry.name for entry in path.parent.iterdir()] == ["last.safetensors"]


def test_tensors_that_share_memory_are_both_stored(tmp_path: Path) -> None:
    weight = torch.ones(4)
    checkpoint.save(tmp_path / "c.safetensors", {"model": {"a": weight, "b": weight[:2]}}, {})
    assert checkpoint.load(tmp_path / "c.safetensors")[0]["model"]["b"].tolist() == [1, 1]


@pytest.mark.parametrize("kept", [0, 5, 60, 300])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, PARTS, {"text": "x" * 300})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match=rf"last\.safetensors is damaged or no safetensors file \({kept} bytes\)"):
        checkpoint.load(path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.safetensors: no such file"):
        checkpoint.load(tmp_path / "absent.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UsageError, match="no checkpoint of harness train"):
        checkpoint.load(tmp_path / "foreign.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "newer.safetensors", metadata={"harness": '{"schema": 99}'})
    with pytest.raises(UsageError, match="schema 99"):
        checkpoint.load(tmp_path / "newer.safetensors")


def test_a_model_that_does_not_fit_is_told_where(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weight is \(2, 3\) and that of the model is \(2, 4\)"):
        checkpoint.fill(nn.Linear(4, 2, bias=False), {"weight": torch.ones(2, 3)}, path=tmp_path)
    with pytest.raises(UsageError, match=r"its bias is absent"):
        checkpoint.fill(nn.Linear(3, 2), {"weight": torch.ones(2, 3)}, path=tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, PARTS, {"step": 1})

    def full(*anything: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(Failure, match="no space left on the disk; an earlier one is intact"):
        checkpoint.save(path, PARTS, {"step": 2})
    assert checkpoint.load(path)[1]["step"] == 1
