# SPDX-License-Identifier: Apache-2.0
"""The positions of a micro-batch that one rank of a stage computes, and how ranks add up what each has found.

Positions are the numbers of tokens laid end to end; a rank's own are those of its flattened hidden states.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from verl_ext.passes.megatron.cut import Cut
from verl_ext.passes.megatron.grid import Grid


class CutParts:
    """A cut of tokens over ranks; see :class:`verl_ext.passes.own_positions.Parts`.

    Args:
        owner: (N,) the rank that computes each token.
        own: (N,) where it stands there.
        rank: this rank.
        ranks: how many there are.
        summed: adds a tensor over them.
    """

    def __init__(self, owner: Tensor, own: Tensor, rank: int, ranks: int, summed: Callable[[Tensor], Tensor]) -> None:
        self._owner, self._own, self._rank, self._summed = owner, own, rank, summed
        self.ranks = ranks

    def rank_of(self, positions: Tensor, length: int) -> Tensor:
        """(N,) the rank that computes each."""
        return self._owner[positions]

    def own(self, positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Those that this rank computes, and where."""
        kept = (self._owner[positions] == self._rank).nonzero().flatten()
        return kept, self._own[positions[kept]]

    def summed(self, values: Tensor) -> Tensor:
        """`values` added over the ranks."""
        return self._summed(values)


def stage_parts(cut: Cut, grid: Grid) -> CutParts:
    """All tokens, over the ranks of `grid` that have the same layers."""
    sequence_rank, own = _sequence_parallel(cut, grid)
    owner = cut.context * grid.sequence.size + sequence_rank
    return CutParts(owner, own, grid.rank, grid.ranks, grid.summed)


def sequence_parts(cut: Cut, grid: Grid) -> CutParts:
    """The tokens of one context-parallel rank, over the ranks of its sequence-parallel group."""
    sequence_rank, own = _sequence_parallel(cut, grid)
    return CutParts(sequence_rank, own, grid.sequence.rank, grid.sequence.size, grid.sequence.summed)


def _sequence_parallel(cut: Cut, grid: Grid) -> tuple[Tensor, Tensor]:
    """(N,) the sequence-parallel rank of each token, and its place in the flattened states there."""
    length = cut.places // grid.sequence.size
    return cut.place // length, cut.place % length * cut.columns + cut.column
