"""One NVIDIA GPU through NVML, read only: nothing here ever changes a setting of the device. No torch here.

    with Gpu.open(uuid="8f6d…") as gpu:
        gpu.settings()["driver"], gpu.now()["sm_mhz"]

A question that the driver does not answer gives None, and gpu.missing says why.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

THROTTLES = {
    0x2: "application clocks", 0x4: "power limit", 0x8: "hardware slowdown", 0x10: "sync boost",
    0x20: "heat (driver)", 0x40: "heat (hardware)", 0x80: "power brake", 0x100: "display clocks",
    0x200: "board limit", 0x400: "reliability",
}  # fmt: skip


CAPS = 0x4 | 0x8 | 0x20 | 0x40 | 0x80 | 0x200  # of those, heat and power: what is timed under them is slower


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The clock of the multiprocessors at one moment and why it was no higher, as far as the driver tells."""

    sm_mhz: int | None
    throttle_mask: int | None


class NoGpu(RuntimeError):
    """NVML cannot be asked; the message says why and what to do."""


class Gpu:
    """An open GPU. `nvml` is the pynvml module, or an object with its functions."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml, self.handle = nvml, handle
        self.missing: dict[str, str] = {}

    @classmethod
    def open(cls, *, uuid: str | None = None, index: int = 0, nvml: Any = None) -> Gpu:
        """Open by UUID (with or without its GPU-/MIG- prefix), else by NVML's own index. Raises NoGpu.

        A MIG slice is opened as the GPU that it is part of, which is where its settings are.
        """
        try:
            nvml = nvml or _pynvml()
            nvml.nvmlInit()
        except Exception as error:
            raise NoGpu(_sentence(error)) from None
        try:
            return cls(nvml, _handle(nvml, uuid, index))
        except Exception as error:
            nvml.nvmlShutdown()
            raise NoGpu(_sentence(error)) from None

    def __enter__(self) -> Gpu:
        return self

    def __exit__(self, *failure: object) -> None:
        self.nvml.nvmlShutdown()

    def ask(self, question: str, *arguments: Any, system: bool = False) -> Any:
        """The answer of nvmlDeviceGet<question>, or of nvmlSystemGet<question>; None and a reason without one."""
        try:
            function = getattr(self.nvml, f"nvml{'System' if system else 'Device'}Get{question}")
            answer = function(*arguments) if system else function(self.handle, *arguments)
        except Exception as error:
            self.missing[question] = _sentence(error)
            return None
        return answer.decode() if isinstance(answer, bytes) else answer

    def settings(self) -> dict[str, Any]:
        """What stays as it is while a run lasts: driver, ECC, MIG, persistence, power limit, clock limits."""
        cuda = self.ask("CudaDriverVersion_v2", system=True)
        ecc, mig = self.ask("EccMode"), self.ask("MigMode")
        return {
            "driver": self.ask("DriverVersion", system=True),
            "driver_cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            "ecc": bool(ecc[0]) if ecc else None,
            "ecc_after_restart": bool(ecc[1]) if ecc else None,
            "mig": bool(mig[0]) if mig else None,
            "persistence": _flag(self.ask("PersistenceMode")),
            "power_limit_w": _watts(self.ask("EnforcedPowerLimit")),
            "power_default_w": _watts(self.ask("PowerManagementDefaultLimit")),
            "max_sm_mhz": self.ask("MaxClockInfo", 1),
            "max_memory_mhz": self.ask("MaxClockInfo", 2),
            "application_sm_mhz": self.ask("ApplicationsClock", 1),
            "display": _flag(self.ask("DisplayActive")),
        }

    def now(self) -> dict[str, Any]:
        """What changes by the moment: clocks, reasons for slowing down (a bit mask), heat, power, use."""
        use = self.ask("UtilizationRates")
        heat = self.ask("Temperature", 0)
        return {
            "sm_mhz": self.ask("ClockInfo", 1),
            "memory_mhz": self.ask("ClockInfo", 2),
            "throttle_mask": self._throttle_mask(),
            "temperature_c": heat if heat is not None else self.ask("TemperatureV", 0),  # the name from CUDA 14 on
            "power_w": _watts(self.ask("PowerUsage")),
            "use_percent": use.gpu if use is not None else None,
        }

    def beat(self) -> Beat:
        """The SM clock and the reasons for slowing down: little enough to be asked between two samples."""
        return Beat(sm_mhz=self.ask("ClockInfo", 1), throttle_mask=self._throttle_mask())

    def processes(self) -> list[int] | None:
        """The ids of the processes with work on the GPU, in the numbering of the driver's host."""
        lists = [self.ask("ComputeRunningProcesses"), self.ask("GraphicsRunningProcesses")]
        if lists == [None, None]:
            return None
        return sorted({process.pid for found in lists for process in found or []})

    def memory_errors(self) -> int | None:
        """Memory errors that ECC could not correct since the driver was loaded."""
        return self.ask("TotalEccErrors", 1, 0)

    def _throttle_mask(self) -> int | None:
        reasons = self.ask("CurrentClocksEventReasons")
        return reasons if reasons is not None else self.ask("CurrentClocksThrottleReasons")  # before driver 535


def throttle_names(mask: int) -> list[str]:
    """What a throttle mask says in words; idle is no throttle."""
    return [name for bit, name in THROTTLES.items() if mask & bit]


def _pynvml() -> Any:
    return importlib.import_module("pynvml")


def _handle(nvml: Any, uuid: str | None, index: int) -> Any:
    if not uuid:
        return nvml.nvmlDeviceGetHandleByIndex(index)
    bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{bare}")
    except Exception:
        return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvml.nvmlDeviceGetHandleByUUID(f"MIG-{bare}"))


def _sentence(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "NVML's Python bindings are missing; pip install 'attention-harness[gpu]'"
    if isinstance(error, AttributeError):
        return "these NVML bindings do not know this question"
    return f"NVML: {error}"


def _flag(answer: Any) -> bool | None:
    return None if answer is None else bool(answer)


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
