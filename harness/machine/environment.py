"""The machine, the versions and the commit that stand behind a measurement. No torch at module level.

    document = environment.collect("cuda:0")     # JSON-serialisable; unknown is None, and document["missing"] says why
    environment.machine(document)                # "NVIDIA-H200-3f9a1c": equal names may be compared, others may not
    environment.commit()                         # "904f979ab01c-dirty"

No secrets and nobody's name: environment variables come from a list of prefixes, paths are blanked.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import UsageError
from harness.machine import allocator, system
from harness.machine.nvml import Gpu, NoGpu

PACKAGES = (
    "attention-harness", "torch", "triton", "numpy", "pandas", "xformers", "flash-attn", "flash-attn-3", "fa3-fwd",
    "flash-attn-4", "torchvision", "timm", "accelerate", "ray", "nvidia-ml-py", "nvidia-cudnn-cu13",
    "nvidia-cudnn-cu12", "nvidia-cublas",
)  # fmt: skip
VARIABLES = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "OPENBLAS_", "BLIS_", "NVPL_", "MALLOC_", "THP_MEM_ALLOC_",
    "CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "NVIDIA_TF32_OVERRIDE", "TORCH_", "TORCHINDUCTOR_", "TORCHDYNAMO_",
    "PYTORCH_", "TRITON_", "XFORMERS_",
)  # fmt: skip
SECRET = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
LONG_RUN = re.compile(r"[\w-]{20,}")


def collect(device: str = "cpu", *, root: Path = Path("/"), nvml: Any = None) -> dict[str, Any]:
    """The fingerprint of this process' machine and of `device` (cpu, cuda or cuda:<i>). Imports torch; never raises.

    root and nvml let a test put a fake /proc, /sys and NVML in place.
    """
    missing: dict[str, str] = {}
    cores = system.affinity()
    document: dict[str, Any] = {
        "device": device,
        "cpu": _ask(missing, "cpu", lambda: _cpu(root, cores)),
        "memory": _ask(missing, "memory", lambda: _memory(root)),
        "system": _ask(missing, "system", lambda: _system(root)),
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "torch": _ask(missing, "torch", _torch),
        "packages": {name: _ask(missing, f"packages.{name}", lambda name=name: _version(name)) for name in PACKAGES},
        "gpu": None,
        "variables": variables(os.environ),
    }
    if device.startswith("cuda"):
        document["gpu"] = _ask(missing, "gpu", lambda: _gpu(missing, device, root, nvml))
    else:
        missing["gpu"] = f"the device is {device}"
    _explain(document, missing)
    document["missing"] = {name: _inert(reason, paths=False) for name, reason in sorted(missing.items())}
    return document


def fingerprint(document: Mapping[str, Any]) -> dict[str, Any]:
    """What decides whether two timings may be compared: models, cores, driver, build, threads, a CPU's allocator.

    No clock, no commit.
    """
    cpu, torch, gpu, memory = (document.get(name) or {} for name in ("cpu", "torch", "gpu", "memory"))
    on_gpu = str(document.get("device", "cpu")).startswith("cuda")
    own = {} if on_gpu or "freed" not in memory else {"freed": memory["freed"]}
    return {
        "device": "cuda" if on_gpu else "cpu",
        "cpu": {
            name: cpu.get(name)
            for name in ("model", "stepping", "logical_cores", "affinity_cores", "quota_cores", "max_mhz")
        },
        "torch": {
            name: torch.get(name)
            for name in ("version", "git", "blas", "onednn", "openmp", "cpu_capability", "threads", "interop_threads")
        },
        "gpu": {name: gpu.get(name) for name in ("name", "sm_count", "driver", "cuda", "cudnn")} if on_gpu else None,
        **own,
    }


def machine(document: Mapping[str, Any]) -> str:
    """A short stable name for the `machine` column: the model, the cores of a CPU, six digits of the fingerprint."""
    print_ = fingerprint(document)
    digits = hashlib.sha256(json.dumps(print_, sort_keys=True).encode()).hexdigest()[:6]
    if print_["gpu"] is not None:
        return f"{_slug(print_['gpu']['name'] or 'GPU')}-{digits}"
    cores = print_["cpu"]["affinity_cores"] or "x"
    return f"{_slug(print_['cpu']['model'] or 'unknown')}-{cores}c-{digits}"


def commit(folder: Path | None = None) -> str:
    """The commit of the checkout that tracks `folder` (this package by default): 12 digits, `-dirty` when tracked files
    other than results/ are changed, "" outside git, without git, and where the repository does not track the folder."""
    where = folder or Path(__file__).resolve().parent
    if not _git(where, "ls-files", "--", "."):
        return ""
    revision = _git(where, "rev-parse", "--verify", "HEAD")
    changes = _git(where, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")
    if not revision or changes is None:
        return ""
    return revision[:12] + ("-dirty" if changes else "")


def resolve_device(text: str) -> str:
    """The device that auto, cpu, cuda or cuda:<i> means here: `cpu` or `cuda:<i>`. Raises UsageError. Imports torch."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text):
        raise UsageError(f"unknown device {text!r}; valid: auto, cpu, cuda, cuda:<i>")
    if text == "cpu":
        return text
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return "cuda:0" if count else "cpu"
    index = int(text.partition(":")[2] or 0)
    if index >= count:
        found = f"valid here: cpu, {', '.join(f'cuda:{i}' for i in range(count))}" if count else "valid here: cpu"
        raise UsageError(f"device {text!r} is not there: torch sees {count} CUDA devices; {found}")
    return f"cuda:{index}"


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that change speed, by prefix; secrets left out, paths and opaque values blanked."""
    return {
        name: _inert(value)
        for name, value in sorted(environ.items())
        if name.startswith(VARIABLES) and not SECRET.search(name)
    }


def open_gpu(device: str, nvml: Any = None) -> Gpu:
    """The NVML view of a torch CUDA device, whatever CUDA_VISIBLE_DEVICES has renumbered. Raises NoGpu."""
    import torch

    index = int(device.partition(":")[2] or 0)
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return Gpu.open(uuid=str(uuid) if uuid else None, index=index, nvml=nvml)


def torch_build(text: str) -> dict[str, str | None]:
    """BLAS, LAPACK, oneDNN and OpenMP of a torch build, from the text of torch.__config__.show()."""

    def find(pattern: str) -> str | None:
        found = re.search(pattern, text)
        return found.group(1).strip() if found else None

    return {
        "blas": find(r"BLAS_INFO=(\w+)"),
        "blas_version": find(r"Math Kernel Library Version (\S+)") or find(r"(?i)openblas\D*(\d[\d.]+)"),
        "lapack": find(r"LAPACK_INFO=(\w+)"),
        "onednn": find(r"MKL-DNN v([\d.]+)"),
        "openmp": find(r"OpenMP (\d+)"),
    }


def _cpu(root: Path, cores: set[int]) -> dict[str, Any]:
    governors = system.governors(root, cores)
    return system.processor(root, cores) | {
        "quota_cores": system.quota(root),
        "governor": ",".join(governors) or None,
        "boost": system.boost(root),
    }


def _memory(root: Path) -> dict[str, Any]:
    sizes = system.memory(root)
    names = ("total_bytes", "limit_bytes", "swap_bytes")
    return {name: sizes[name] for name in names} | {"huge_pages": system.huge_pages(root), "freed": allocator.freed()}


def _system(root: Path) -> dict[str, Any]:
    return {
        "os": system.operating_system(root),
        "kernel": platform.release() or None,
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "container": system.container(root, os.environ),
        "clock_source": system.clock_source(root),
    }


def _torch() -> dict[str, Any]:
    import torch

    return {
        "version": str(torch.__version__),
        "git": (torch.version.git_version or "")[:12] or None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.version.cuda else None,
        **torch_build(torch.__config__.show()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "runtimes": system.runtimes(Path("/")),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _gpu(missing: dict[str, str], device: str, root: Path, nvml: Any) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        raise NoGpu("torch sees no CUDA device")
    properties = torch.cuda.get_device_properties(int(device.partition(":")[2] or 0))
    described: dict[str, Any] = {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "sm_count": properties.multi_processor_count,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "shared_memory_sm_bytes": getattr(properties, "shared_memory_per_multiprocessor", None),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    try:
        with open_gpu(device, nvml) as gpu:
            described |= gpu.settings()
            missing.update((f"gpu.{question}", reason) for question, reason in gpu.missing.items())
    except NoGpu as error:
        missing["gpu.settings"] = str(error)
    return described | {"driver": system.nvidia_driver(root) or described.get("driver")}


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    if package == "attention-harness":  # of the code that runs, which an installation's metadata need not be
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        raise LookupError("not installed") from None


def _ask(missing: dict[str, str], name: str, probe: Callable[[], Any]) -> Any:
    try:
        return probe()
    except Exception as error:
        expected = isinstance(error, LookupError | NoGpu)
        missing[name] = str(error.args[0]) if expected and error.args else f"{type(error).__name__}: {error}"
        return None


def _explain(document: Mapping[str, Any], missing: dict[str, str]) -> None:
    """Give every None one level down a reason, where its probe gave none."""
    none_is_answer = {
        "cpu.quota_cores": "no CPU quota",
        "memory.limit_bytes": "no limit",
        "system.container": "none seen",
    }
    for part in ("cpu", "memory", "system", "torch", "gpu"):
        for name, value in (document[part] or {}).items():
            if value is None:
                missing.setdefault(f"{part}.{name}", none_is_answer.get(f"{part}.{name}", "not exposed here"))


def _inert(value: str, *, paths: bool = True) -> str:
    """The value without paths (when asked), long opaque runs, and the names of this user and host."""
    if paths and re.search(r"[/\\~]", value):
        return "(path)"
    value = value.replace(str(Path.home()), "(home)")
    for name in {_quiet(getpass.getuser), _quiet(socket.gethostname)} - {""}:
        value = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "(hidden)", value)
    return LONG_RUN.sub(lambda run: "(hidden)" if sum(map(str.isdecimal, run[0])) >= 3 else run[0], value)


def _quiet(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception:  # no such user, no host name
        return ""


def _slug(name: str) -> str:
    bare = re.sub(r"\((?:R|TM|C)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*", " ", name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9.]+", "-", bare).strip("-")[:40].rstrip("-") or "machine"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers about `folder`; None when it does not. A hook's variables do not lead it elsewhere."""
    environ = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments], capture_output=True, text=True,
            timeout=20, env=environ | {"GIT_OPTIONAL_LOCKS": "0"}, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
