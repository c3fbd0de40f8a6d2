"""Several devices of this machine, each with a worker of its own, as the places of a crew. No torch.

    with Crew(Devices(plugins=[], devices=parse("cuda:0,cuda:1")), warn=print) as crew: ...

The cases of such a sweep call every GPU `cuda:0`: each runs on one of them, and the row's note says on which. So a run
on two GPUs has the same cases as a run on one, and can be compared with it or resumed on fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.engines.local import Engine
from harness.engines.place import Place, Seat
from harness.errors import UsageError

ANY_GPU = "cuda:0"


class Devices:
    """A source of places: all devices at once, and no others later."""

    whole, patience_s = True, 0.0

    def __init__(self, *, plugins: Sequence[str], devices: Sequence[str]) -> None:
        self._engines = {name: Engine(plugins=plugins, device=name) for name in devices}
        self._waiting: list[Seat] = [
            Place(engine, name, device=ANY_GPU if name.startswith("cuda") else "")
            for name, engine in self._engines.items()
        ]

    def arrivals(self) -> list[Seat]:
        """Every device, the first time it is asked."""
        arrived, self._waiting = self._waiting, []
        return arrived

    def leave(self, seat: Seat) -> None:
        """End its worker."""
        self._engines[seat.name].abandon()

    def lost(self, seat: Seat) -> None:
        """End its worker; the device gets no other."""
        self.leave(seat)

    def close(self) -> None:
        """Clear away what is left of the workers."""
        for engine in self._engines.values():
            engine.stop(kill=True)


def parse(text: str) -> list[str]:
    """`cuda:0,cuda:1` → ["cuda:0", "cuda:1"]. Raises UsageError for anything but different GPUs by their index."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        kind, _, index = name.partition(":")
        if kind != "cuda" or not (index.isascii() and index.isdecimal()) or len(index) > 3:
            raise UsageError(f"--devices takes GPUs by their index, such as cuda:0,cuda:1, not {name!r}")
    names = [f"cuda:{int(name.partition(':')[2])}" for name in names]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--devices {text}: {name} is there twice; two cases at once on a GPU disturb each other")
    return names
