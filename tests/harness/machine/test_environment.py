"""The fingerprint, on fake /proc and /sys trees and fake NVML: what it says, what it hides, when its name changes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import cli
from harness.errors import UsageError
from harness.machine import environment
from harness.machine.nvml import Gpu, NoGpu, throttle_names


class FakeNvml:
    """An H200 that answers some questions and refuses others, as NVML does."""

    def __init__(self, uuid: str = "GPU-1234", **answers: object) -> None:
        self.uuid, self.open = uuid, 0
        self.answers: dict[str, object] = {
            "SystemGetDriverVersion": "580.1", "SystemGetCudaDriverVersion_v2": 13020, "DeviceGetEccMode": [1, 1],
            "DeviceGetMigMode": [0, 0], "DeviceGetPersistenceMode": 1, "DeviceGetEnforcedPowerLimit": 700000,
            "DeviceGetPowerManagementDefaultLimit": 700000, "DeviceGetMaxClockInfo": 1980, "DeviceGetClockInfo": 1965,
            "DeviceGetCurrentClocksEventReasons": 0, "DeviceGetTemperature": 55, "DeviceGetDisplayActive": 0,
            "DeviceGetComputeRunningProcesses": [], "DeviceGetGraphicsRunningProcesses": [],
            "DeviceGetUtilizationRates": SimpleNamespace(gpu=0), "DeviceGetTotalEccErrors": 0,
            "DeviceGetPowerUsage": 91000,
        } | answers  # fmt: skip

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != self.uuid:
            raise RuntimeError("Not Found")
        return "handle"

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:
        return f"parent of {handle}"

    def __getattr__(self, name: str):
        question = name.removeprefix("nvml")
        if not name.startswith("nvml") or not question.startswith(("DeviceGet", "SystemGet")):
            raise AttributeError(name)

        def answer(*arguments: object) -> object:
            if question not in self.answers:
                raise RuntimeError("Not Supported")
            return self.answers[question]

        return answer


def grow(root: Path, files: dict[str, str]) -> Path:
    """Write a fake tree of files below root."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture(scope="module")
def document() -> dict:
    return environment.collect("cpu")


def test_document_is_json_and_every_none_has_a_reason(document: dict) -> None:
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    for part in ("cpu", "memory", "system", "torch"):
        for name, value in document[part].items():
            assert value is not None or document["missing"][f"{part}.{name}"]
    for name, value in document["packages"].items():
        assert value is not None or document["missing"][f"packages.{name}"] == "not installed"
    assert document["gpu"] is None
    assert document["missing"]["gpu"] == "the device is cpu"


def test_collect_survives_a_machine_without_proc_and_sys(tmp_path: Path) -> None:
    found = environment.collect("cpu", root=tmp_path)
    assert found["memory"]["total_bytes"] is None
    assert found["missing"]["memory.total_bytes"] == "not exposed here"
    assert environment.machine(found)


def test_no_secret_no_path_no_name_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    monkeypatch.setattr("socket.gethostname", lambda: "labbox7")
    monkeypatch.setenv("HOME", "/home/alice")
    for name, value in {
        "HF_TOKEN": "hf_sesame1", "TORCH_API_KEY": "sesame2", "TRITON_AUTH": "sesame3", "TORCH_HOME": "/home/alice/hub",
        "TRITON_CACHE_DIR": "~/cache", "CUDA_VISIBLE_DEVICES": "GPU-8f6d2a10-77aa-4e0b-9c1d-5b2e3f4a5b6c",
        "TORCH_NOTE": "run by alice on labbox7", "OMP_NUM_THREADS": "3", "USER": "alice",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True,max_split_size_mb:128",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    found = environment.collect("cpu")
    text = json.dumps(found)
    for secret in ("sesame", "HF_TOKEN", "alice", "labbox7", "/home", "8f6d2a10", "~/cache"):
        assert secret not in text, secret
    kept = found["variables"]
    assert kept["OMP_NUM_THREADS"] == "3"
    assert kept["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True,max_split_size_mb:128"
    assert kept["TORCH_HOME"] == kept["TRITON_CACHE_DIR"] == "(path)"
    assert kept["TORCH_NOTE"] == "run by (hidden) on (hidden)"


def test_machine_is_stable_and_follows_the_fingerprint_only(document: dict) -> None:
    name = environment.machine(document)
    assert environment.machine(environment.collect("cpu")) == name
    assert environment.machine(json.loads(json.dumps(document))) == name
    for part, key, value in (
        ("torch", "threads", 63), ("torch", "git", "0123456789ab"), ("torch", "blas", "open"), ("cpu", "model", "Z80"),
        ("cpu", "affinity_cores", 63), ("cpu", "quota_cores", 0.5),
    ):  # fmt: skip
        other = copy.deepcopy(document)
        other[part][key] = value
        assert environment.machine(other) != name, key
    for part, key, value in (("cpu", "governor", "powersave"), ("memory", "total_bytes", 1), ("system", "kernel", "9")):
        other = copy.deepcopy(document)
        other[part][key] = value
        assert environment.machine(other) == name, key


def test_machine_reads_like_the_hardware() -> None:
    cpu = {"cpu": {"model": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "affinity_cores": 8}}
    assert environment.machine(cpu).startswith("Intel-Xeon-Platinum-8481C-8c-")
    epyc = {"cpu": {"model": "AMD EPYC 9B14 96-Core Processor", "affinity_cores": 16}}
    assert environment.machine(epyc).startswith("AMD-EPYC-9B14-16c-")
    gpu = {"device": "cuda:0", "gpu": {"name": "NVIDIA H200"}, "cpu": None}
    assert environment.machine(gpu).startswith("NVIDIA-H200-")
    assert environment.machine({}).startswith("unknown-xc-")


def test_gpu_document_from_torch_and_nvml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    properties = SimpleNamespace(
        name="NVIDIA H200", major=9, minor=0, total_memory=1 << 37, multi_processor_count=132, L2_cache_size=60 << 20,
        shared_memory_per_multiprocessor=233472, uuid="1234",
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    nvml = FakeNvml()
    found = environment.collect("cuda:0", root=tmp_path, nvml=nvml)
    assert nvml.open == 0
    gpu = found["gpu"]
    assert (gpu["name"], gpu["driver"], gpu["driver_cuda"], gpu["power_limit_w"]) == (
        "NVIDIA H200",
        "580.1",
        "13.2",
        700,
    )
    assert gpu["application_sm_mhz"] is None
    assert "Not Supported" in found["missing"]["gpu.ApplicationsClock"]
    name = environment.machine(found)
    assert name.startswith("NVIDIA-H200-")
    other = environment.collect("cuda:0", root=tmp_path, nvml=FakeNvml(SystemGetDriverVersion="590.2"))
    assert environment.machine(other) != name
    without = environment.collect("cuda:0", root=tmp_path, nvml=FakeNvml(uuid="GPU-another"))
    assert without["gpu"]["sm_count"] == 132
    assert "Not Found" in without["missing"]["gpu.settings"]


def test_no_cuda_device_is_a_reason_not_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = environment.collect("cuda:0")
    assert found["gpu"] is None
    assert found["missing"]["gpu"] == "torch sees no CUDA device"
    assert environment.resolve_device("auto") == "cpu"
    with pytest.raises(UsageError, match="valid here: cpu"):
        environment.resolve_device("cuda:1")
    with pytest.raises(UsageError, match="'gpu'; valid: auto, cpu, cuda"):
        environment.resolve_device("gpu")


def test_nvml_opens_a_slice_as_its_gpu_and_says_why_it_cannot() -> None:
    with Gpu.open(uuid="77", nvml=FakeNvml(uuid="MIG-77")) as gpu:
        assert gpu.handle == "parent of handle"
    nvml = FakeNvml()
    with pytest.raises(NoGpu, match="Not Found"):
        Gpu.open(uuid="nobody", nvml=nvml)
    assert nvml.open == 0
    assert throttle_names(0x1) == []
    assert throttle_names(0x4 | 0x40) == ["power limit", "heat (hardware)"]


def test_torch_build_text() -> None:
    text = "Math Kernel Library Version 2024.2-Product\n- OpenMP 201511 (a)\nMKL-DNN v3.13.3 (Git\nBLAS_INFO=mkl, X"
    found = environment.torch_build(text)
    assert (found["blas"], found["onednn"], found["openmp"], found["lapack"]) == ("mkl", "3.13.3", "201511", None)


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, "-C", str(folder), *words], check=True, capture_output=True)


def test_commit_clean_dirty_and_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    package = grow(checkout, {"package/a.py": "1", ".gitignore": "venv\n", "venv/lib/harness/a.py": "1"}) / "package"
    assert environment.commit(package) == ""  # no git yet
    git(checkout, "init", "-q")
    assert environment.commit(package) == ""  # nothing tracked
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    clean = environment.commit(package)
    assert len(clean) == 12
    assert int(clean, 16)
    assert environment.commit(checkout / "venv/lib/harness") == ""  # installed inside someone's repository
    (checkout / "note.txt").write_text("untracked")
    assert environment.commit(package) == clean
    (package / "a.py").write_text("2")
    assert environment.commit(package) == f"{clean}-dirty"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as inside a hook
    assert environment.commit(package) == f"{clean}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit(package) == ""  # no git program


def test_env_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["env", "--device", "cpu", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert printed.err == ""
    assert found["machine"] == environment.machine(found)
    assert {"commit", "cpu", "torch", "packages", "missing"} <= set(found)
    monkeypatch.setenv("COLUMNS", "30")
    assert cli.main(["env", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["machine", found["machine"]]
    assert all(line == line.rstrip() for line in lines)
    assert cli.main(["env", "--device", "gpu"]) == 2
    assert "valid: auto, cpu, cuda" in capsys.readouterr().err


def test_commands_import_nothing_heavy() -> None:
    code = (
        "import sys, harness.cli.env, harness.cli.doctor, harness.machine.environment, harness.machine.doctor\n"
        "bad = {'torch', 'numpy', 'pandas', 'pynvml'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr


def test_a_long_value_is_looked_at_from_each_letter_once() -> None:
    """16 kB took 7 s when three digits were looked for from every letter on; these would take a day."""
    told = environment.variables({"OMP_A": "a" * 2_000_000, "OMP_B": "x" * 30 + "123", "OMP_C": "word-" * 8})
    assert told == {"OMP_A": "a" * 2_000_000, "OMP_B": "(hidden)", "OMP_C": "word-" * 8}
