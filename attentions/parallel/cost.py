"""What one call sends, as a formula: the model that measured bytes are checked against.

volume("anchor", work, ranks=4).wire_bytes(4)      # of one rank, n = all tokens, in equal shards
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One rank's part of one call, shards equal.

    summed: bytes that enter all-reduces; passed: bytes sent to neighbours; rounds: collectives and exchanges that wait
    for one another.
    """

    summed: int = 0
    passed: int = 0
    rounds: int = 0

    def wire_bytes(self, ranks: int) -> float:
        """Bytes that one of `ranks` ranks sends where an all-reduce runs as a ring: 2·(P−1)/P of what is summed."""
        return 2 * self.summed * (ranks - 1) / ranks + self.passed

    def __add__(self, other: Volume) -> Volume:
        return Volume(
            summed=self.summed + other.summed, passed=self.passed + other.passed, rounds=self.rounds + other.rounds
        )


def both_ways(forward: Volume, phase: str, *, backward: Volume | None = None) -> Volume:
    """The volume of a phase: forward, backward (as much again where nothing else is said), or train, which is both."""
    backward = forward if backward is None else backward
    return {"forward": forward, "backward": backward, "train": forward + backward}[phase]


def wide(itemsize: int) -> int:
    """Bytes of a number in a sum: float32, or float64 for float64 inputs."""
    return max(itemsize, 4)
