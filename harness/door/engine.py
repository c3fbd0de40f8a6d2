"""Which engine `harness run` measures with, from --engine, --address and --devices.

choice = Choice.parse("ray", address="10.0.0.1:6379", devices=None, given={})
with choice.open(sweep, warn=progress.warn) as engine: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.cases.sharing import started, torchrun
from harness.errors import UsageError, unknown

if TYPE_CHECKING:
    from harness.cases.space import Sweep
    from harness.engines.local import Engine
    from harness.engines.ranks import Engine as Ranks
    from harness.sweep.crew import Crew

ENGINES = ("local", "ray")
ANY_GPU = ("auto", "cuda", "cuda:0")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An engine by name, with the cluster's address or the devices it is to use."""

    engine: str
    address: str | None
    devices: tuple[str, ...]

    @classmethod
    def parse(cls, engine: str, *, address: str | None, devices: str | None, given: Mapping[str, Any]) -> Choice:
        """Raises UsageError for options that do not go together. given: the keys of the sweep that were set."""
        if engine not in ENGINES:
            raise UsageError(unknown("engine", engine, ENGINES))
        if address is not None and engine != "ray":
            raise UsageError(f"--address {address} is of a Ray cluster; add --engine ray")
        if devices is None:
            return cls(engine=engine, address=address, devices=())
        if engine == "ray":
            raise UsageError("--devices is for --engine local; with --engine ray each GPU of each node is used")
        if "device" in given:
            raise UsageError("give --device for one device or --devices for several, not both")
        from harness.engines.devices import parse

        return cls(engine=engine, address=None, devices=tuple(parse(devices)))

    def open(self, sweep: Sweep, *, warn: Callable[[str], None]) -> Engine | Ranks | Crew:
        """The engine, to be used in `with`. Raises UsageError and Failure where it cannot be."""
        if sweep.sequence_parallel > 1 or started() > 1:
            return self._ranks(sweep)
        if self.engine == "ray":
            from harness.engines.ray import Cluster
            from harness.sweep.crew import Crew

            cluster = Cluster(plugins=sweep.plugin, device=sweep.device, address=self.address, warn=warn)
            return Crew(cluster, warn=warn)
        if self.devices:
            from harness.engines.devices import Devices
            from harness.sweep.crew import Crew

            if sweep.device not in ANY_GPU:
                raise UsageError(f"--devices takes up runs of GPUs; the run being resumed is of device {sweep.device}")
            return Crew(Devices(plugins=sweep.plugin, devices=self.devices), warn=warn)
        from harness.engines.local import Engine

        return Engine(plugins=sweep.plugin, device=sweep.device)

    def _ranks(self, sweep: Sweep) -> Ranks:
        """Several processes that share each case: those of torchrun, or started here."""
        if self.engine == "ray" or self.devices:
            raise UsageError(
                f"--sequence-parallel {sweep.sequence_parallel} puts one case on several devices; --engine and "
                "--devices share out whole cases: give one or the other"
            )
        from harness.engines.ranks import Engine, Here

        source: Any
        if torchrun():
            from harness.engines.torchrun import Torchrun

            source = Torchrun(plugins=sweep.plugin, ranks=sweep.sequence_parallel)
        else:
            source = Here(plugins=sweep.plugin, ranks=sweep.sequence_parallel)
        return Engine(source, plugins=sweep.plugin, device=sweep.device)
