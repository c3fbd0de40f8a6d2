"""Tiles for each role, shape class and GPU generation, chosen ahead of time: the first of a list of candidates, most
promising first, that the compiler fits into registers (no spills) and shared memory with ragged n, m and d.

`scripts/aot_report.py` prints registers, spills and shared memory of all of them. Timings on a device, through
attentions.kernels.anchor.tuning, override this table.
"""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """Tokens and anchors a tile holds (anchors 0: all of them), warps a program, depth of the load pipeline, and the
    programs that a multiprocessor holds at once by registers and shared memory."""

    tokens: int
    anchors: int
    warps: int
    stages: int
    resident: int


# (role, bits of the dtype, padded m or 0 where anchors come in blocks, padded d): compute capability × 10 → tile.
# Roles:
#   gather, scatter             AᵀV and Aᵀ1; O = A W
#   differentiate               dK, dV and partial dU
#   single_forward/backward     a head a program; …_few: where multiprocessors are many times the heads
#   denominator, …_blocked, tokens (dK and dV), anchors (dU)    where m × d does not fit one tile
TILES: dict[tuple[str, int, int, int], dict[int, Tile]] = {
    ("gather", 16, 16, 32): {90: Tile(64, 0, 4, 3, 7), 80: Tile(64, 0, 4, 3, 5)},
    ("gather", 16, 16, 64): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 3)},
    ("gather", 16, 16, 128): {90: Tile(64, 0, 4, 3, 2), 80: Tile(64, 0, 4, 3, 2)},
    ("gather", 16, 32, 32): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 5)},
    ("gather", 16, 32, 64): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 2, 4)},
    ("gather", 16, 32, 128): {90: Tile(64, 0, 4, 3, 2), 80: Tile(32, 0, 4, 3, 2)},
    ("gather", 16, 64, 32): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 4)},
    ("gather", 16, 64, 64): {90: Tile(64, 0, 4, 3, 3), 80: Tile(64, 0, 4, 3, 3)},
    ("gather", 16, 64, 128): {90: Tile(64, 0, 4, 2, 2), 80: Tile(64, 0, 8, 2, 1)},
    ("gather", 16, 128, 32): {90: Tile(64, 0, 4, 3, 2), 80: Tile(64, 0, 4, 3, 2)},
    ("gather", 16, 128, 64): {90: Tile(64, 0, 4, 3, 2), 80: Tile(128, 0, 8, 2, 1)},
    ("gather", 32, 16, 32): {90: Tile(64, 0, 4, 2, 6), 80: Tile(64, 0, 4, 2, 7)},
    ("gather", 32, 16, 64): {90: Tile(32, 0, 4, 2, 8), 80: Tile(32, 0, 4, 2, 7)},
    ("gather", 32, 32, 32): {90: Tile(64, 0, 4, 2, 4), 80: Tile(64, 0, 4, 2, 3)},
    ("gather", 32, 32, 64): {90: Tile(32, 0, 4, 1, 3), 80: Tile(32, 0, 4, 1, 6)},
    ("scatter", 16, 16, 32): {90: Tile(64, 0, 4, 3, 9), 80: Tile(64, 0, 4, 3, 9)},
    ("scatter", 16, 16, 64): {90: Tile(64, 0, 4, 3, 6), 80: Tile(64, 0, 4, 3, 5)},
    ("scatter", 16, 16, 128): {90: Tile(64, 0, 4, 3, 3), 80: Tile(64, 0, 4, 3, 3)},
    ("scatter", 16, 32, 32): {90: Tile(64, 0, 4, 3, 9), 80: Tile(64, 0, 4, 3, 9)},
    ("scatter", 16, 32, 64): {90: Tile(64, 0, 4, 3, 5), 80: Tile(64, 0, 4, 3, 4)},
    ("scatter", 16, 32, 128): {90: Tile(64, 0, 4, 3, 3), 80: Tile(64, 0, 4, 3, 2)},
    ("scatter", 16, 64, 32): {90: Tile(64, 0, 4, 3, 8), 80: Tile(64, 0, 4, 3, 7)},
    ("scatter", 16, 64, 64): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 4)},
    ("scatter", 16, 64, 128): {90: Tile(64, 0, 4, 3, 2), 80: Tile(128, 0, 8, 2, 1)},
    ("scatter", 16, 128, 32): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 3)},
    ("scatter", 16, 128, 64): {90: Tile(64, 0, 4, 3, 2), 80: Tile(128, 0, 8, 2, 1)},
    ("scatter", 32, 16, 32): {90: Tile(64, 0, 4, 2, 7), 80: Tile(64, 0, 4, 2, 7)},
    ("scatter", 32, 16, 64): {90: Tile(32, 0, 4, 2, 8), 80: Tile(32, 0, 4, 2, 6)},
    ("scatter", 32, 32, 32): {90: Tile(64, 0, 4, 2, 5), 80: Tile(64, 0, 4, 2, 5)},
    ("scatter", 32, 32, 64): {90: Tile(32, 0, 4, 1, 7), 80: Tile(32, 0, 4, 1, 6)},
    ("differentiate", 16, 16, 32): {90: Tile(64, 0, 4, 3, 5), 80: Tile(64, 0, 4, 3, 4)},
    ("differentiate", 16, 16, 64): {90: Tile(64, 0, 4, 3, 2), 80: Tile(64, 0, 4, 3, 2)},
    ("differentiate", 16, 16, 128): {90: Tile(64, 0, 8, 2, 1), 80: Tile(32, 0, 8, 2, 1)},
    ("differentiate", 16, 32, 32): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 3)},
    ("differentiate", 16, 32, 64): {90: Tile(64, 0, 4, 3, 2), 80: Tile(32, 0, 4, 3, 3)},
    ("differentiate", 16, 32, 128): {90: Tile(64, 0, 8, 2, 1), 80: Tile(32, 0, 8, 2, 1)},
    ("differentiate", 16, 64, 32): {90: Tile(64, 0, 4, 3, 3), 80: Tile(64, 0, 4, 3, 2)},
    ("differentiate", 16, 64, 64): {90: Tile(64, 0, 4, 3, 2), 80: Tile(32, 0, 4, 3, 2)},
    ("differentiate", 16, 64, 128): {90: Tile(64, 0, 8, 2, 1), 80: Tile(64, 0, 8, 1, 1)},
    ("differentiate", 16, 128, 32): {90: Tile(64, 0, 4, 3, 2), 80: Tile(16, 0, 4, 2, 3)},
    ("differentiate", 16, 128, 64): {90: Tile(64, 0, 8, 2, 1), 80: Tile(32, 0, 8, 2, 1)},
    ("differentiate", 32, 16, 32): {90: Tile(32, 0, 4, 1, 7), 80: Tile(32, 0, 4, 1, 7)},
    ("differentiate", 32, 16, 64): {90: Tile(32, 0, 4, 1, 4), 80: Tile(32, 0, 4, 1, 3)},
    ("differentiate", 32, 32, 32): {90: Tile(32, 0, 4, 1, 6), 80: Tile(32, 0, 4, 1, 5)},
    ("differentiate", 32, 32, 64): {90: Tile(32, 0, 4, 1, 2), 80: Tile(32, 0, 4, 1, 2)},
    ("single_forward", 16, 16, 32): {90: Tile(64, 0, 4, 3, 5), 80: Tile(64, 0, 4, 3, 5)},
    ("single_forward", 16, 16, 64): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 3)},
    ("single_forward", 16, 16, 128): {90: Tile(64, 0, 4, 3, 2), 80: Tile(32, 0, 4, 2, 2)},
    ("single_forward", 16, 32, 32): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 4)},
    ("single_forward", 16, 32, 64): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 2)},
    ("single_forward", 16, 32, 128): {90: Tile(64, 0, 4, 3, 2), 80: Tile(64, 0, 8, 2, 1)},
    ("single_forward", 16, 64, 32): {90: Tile(64, 0, 4, 3, 3), 80: Tile(64, 0, 4, 3, 4)},
    ("single_forward", 16, 64, 64): {90: Tile(64, 0, 4, 3, 2), 80: Tile(64, 0, 4, 3, 2)},
    ("single_forward", 16, 64, 128): {90: Tile(64, 0, 4, 3, 1), 80: Tile(32, 0, 4, 3, 2)},
    ("single_forward", 16, 128, 32): {90: Tile(64, 0, 4, 3, 2), 80: Tile(64, 0, 4, 3, 2)},
    ("single_forward", 16, 128, 64): {90: Tile(64, 0, 8, 2, 1), 80: Tile(64, 0, 8, 2, 1)},
    ("single_backward", 16, 16, 32): {90: Tile(64, 0, 4, 3, 5), 80: Tile(64, 0, 4, 3, 4)},
    ("single_backward", 16, 16, 64): {90: Tile(64, 0, 4, 3, 2), 80: Tile(64, 0, 4, 3, 2)},
    ("single_backward", 16, 16, 128): {90: Tile(64, 0, 4, 2, 1), 80: Tile(32, 0, 4, 3, 2)},
    ("single_backward", 16, 32, 32): {90: Tile(64, 0, 4, 3, 4), 80: Tile(64, 0, 4, 3, 3)},
    ("single_backward", 16, 32, 64): {90: Tile(64, 0, 4, 3, 2), 80: Tile(64, 0, 4, 3, 2)},
    ("single_backward", 16, 32, 128): {90: Tile(64, 0, 8, 2, 1), 80: Tile(32, 0, 4, 3, 1)},
    ("single_backward", 16, 64, 32): {90: Tile(64, 0, 4, 3, 3), 80: Tile(64, 0, 4, 3, 2)},
    ("single_backward", 16, 64, 64): {90: Tile(64, 0, 4, 3, 2), 80: Tile(32, 0, 4, 3, 2)},
    ("single_backward", 16, 64, 128): {90: Tile(64, 0, 8, 2, 1), 80: Tile(64, 0, 8, 1, 1)},
    ("single_backward", 16, 128, 32): {90: Tile(64, 0, 4, 2, 2), 80: Tile(16, 0, 4, 2, 2)},
    ("single_backward", 16, 128, 64): {90: Tile(32, 0, 4, 3, 2), 80: Tile(32, 0, 8, 2, 1)},
    ("single_forward_few", 16, 16, 32): {90: Tile(128, 0, 8, 3, 2), 80: Tile(64, 0, 4, 3, 5)},
    ("single_forward_few", 16, 16, 64): {90: Tile(128, 0, 8, 3, 2), 80: Tile(64, 0, 4, 3, 3)},
    ("single_forward_few", 16, 32, 32): {90: Tile(128, 0, 8, 3, 1), 80: Tile(64, 0, 4, 3, 4)},
    ("single_forward_few", 16, 32, 64): {90: Tile(128, 0, 8, 3, 1), 80: Tile(64, 0, 4, 3, 2)},
    ("single_forward_few", 16, 64, 32): {90: Tile(128, 0, 8, 3, 1), 80: Tile(64, 0, 4, 3, 4)},
    ("single_forward_few", 16, 64, 64): {90: Tile(128, 0, 8, 3, 1), 80: Tile(64, 0, 4, 3, 2)},
    ("single_backward_few", 16, 16, 32): {90: Tile(128, 0, 8, 3, 2), 80: Tile(64, 0, 4, 3, 4)},
    ("single_backward_few", 16, 16, 64): {90: Tile(128, 0, 8, 3, 1), 80: Tile(64, 0, 4, 3, 2)},
    ("single_backward_few", 16, 32, 32): {90: Tile(128, 0, 8, 3, 1), 80: Tile(64, 0, 4, 3, 3)},
    ("single_backward_few", 16, 32, 64): {90: Tile(128, 0, 8, 3, 1), 80: Tile(64, 0, 4, 3, 2)},
    ("single_backward_few", 16, 64, 32): {90: Tile(128, 0, 8, 3, 1), 80: Tile(64, 0, 4, 3, 2)},
    ("single_backward_few", 16, 64, 64): {90: Tile(128, 0, 8, 3, 1), 80: Tile(32, 0, 4, 3, 2)},
    ("denominator", 16, 0, 32): {90: Tile(128, 64, 4, 3, 4), 80: Tile(128, 64, 4, 3, 4)},
    ("denominator", 16, 0, 64): {90: Tile(128, 64, 4, 3, 4), 80: Tile(128, 64, 4, 3, 3)},
    ("denominator", 16, 0, 128): {90: Tile(128, 64, 4, 3, 2), 80: Tile(128, 64, 4, 3, 1)},
    ("denominator", 32, 0, 32): {90: Tile(32, 32, 4, 1, 8), 80: Tile(32, 32, 4, 1, 8)},
    ("denominator", 32, 0, 64): {90: Tile(32, 32, 4, 1, 3), 80: Tile(32, 32, 4, 1, 8)},
    ("denominator", 32, 0, 128): {90: Tile(32, 32, 4, 1, 6), 80: Tile(32, 32, 4, 1, 4)},
    ("gather_blocked", 16, 0, 32): {90: Tile(64, 128, 8, 3, 1), 80: Tile(64, 128, 8, 3, 1)},
    ("gather_blocked", 16, 0, 64): {90: Tile(64, 128, 8, 3, 1), 80: Tile(64, 128, 8, 3, 1)},
    ("gather_blocked", 16, 0, 128): {90: Tile(64, 64, 4, 2, 2), 80: Tile(32, 64, 4, 3, 2)},
    ("gather_blocked", 32, 0, 32): {90: Tile(32, 32, 4, 1, 6), 80: Tile(32, 32, 4, 1, 6)},
    ("gather_blocked", 32, 0, 64): {90: Tile(32, 16, 4, 1, 7), 80: Tile(32, 16, 4, 1, 7)},
    ("gather_blocked", 32, 0, 128): {90: Tile(32, 16, 8, 1, 3), 80: Tile(16, 16, 4, 2, 6)},
    ("scatter_blocked", 16, 0, 32): {90: Tile(128, 64, 4, 3, 3), 80: Tile(128, 64, 4, 3, 3)},
    ("scatter_blocked", 16, 0, 64): {90: Tile(128, 64, 4, 3, 2), 80: Tile(128, 64, 8, 2, 2)},
    ("scatter_blocked", 16, 0, 128): {90: Tile(128, 64, 8, 2, 1), 80: Tile(128, 64, 8, 2, 1)},
    ("scatter_blocked", 32, 0, 32): {90: Tile(32, 32, 4, 1, 7), 80: Tile(32, 32, 4, 1, 7)},
    ("scatter_blocked", 32, 0, 64): {90: Tile(32, 32, 4, 1, 3), 80: Tile(32, 32, 4, 1, 6)},
    ("scatter_blocked", 32, 0, 128): {90: Tile(32, 16, 4, 1, 4), 80: Tile(32, 16, 4, 1, 4)},
    ("tokens", 16, 0, 32): {90: Tile(64, 64, 4, 2, 3), 80: Tile(64, 64, 4, 2, 2)},
    ("tokens", 16, 0, 64): {90: Tile(64, 64, 4, 2, 2), 80: Tile(64, 32, 4, 2, 2)},
    ("tokens", 16, 0, 128): {90: Tile(64, 32, 8, 2, 1), 80: Tile(64, 64, 8, 2, 1)},
    ("tokens", 32, 0, 32): {90: Tile(32, 32, 4, 1, 2), 80: Tile(32, 32, 4, 1, 2)},
    ("tokens", 32, 0, 64): {90: Tile(32, 16, 4, 1, 2), 80: Tile(32, 16, 4, 1, 2)},
    ("tokens", 32, 0, 128): {90: Tile(16, 16, 8, 1, 1), 80: Tile(16, 16, 8, 1, 1)},
    ("anchors", 16, 0, 32): {90: Tile(64, 64, 4, 2, 3), 80: Tile(64, 64, 4, 2, 2)},
    ("anchors", 16, 0, 64): {90: Tile(64, 64, 4, 2, 2), 80: Tile(64, 64, 8, 2, 1)},
    ("anchors", 16, 0, 128): {90: Tile(32, 64, 4, 1, 2), 80: Tile(32, 64, 4, 1, 2)},
    ("anchors", 32, 0, 32): {90: Tile(32, 32, 4, 1, 5), 80: Tile(32, 32, 4, 1, 5)},
    ("anchors", 32, 0, 64): {90: Tile(32, 32, 4, 1, 4), 80: Tile(32, 32, 8, 1, 3)},
    ("anchors", 32, 0, 128): {90: Tile(32, 16, 4, 1, 2), 80: Tile(16, 16, 8, 1, 3)},
}
