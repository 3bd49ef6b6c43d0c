# SPDX-License-Identifier: Apache-2.0
"""Some positions of a micro-batch that is cut over ranks, as lists of equal length: what collectives ask for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verl_ext.passes.own_positions import Parts


@dataclass(frozen=True)
class EqualLists:
    """Some positions of a micro-batch, those of each rank filled up to the longest list of any.

    Attributes:
        rows: (length,) this rank's, among the positions that it computes.
        length: how many each rank has.
        order: (N,) where each position stands when the lists of all ranks are laid end to end.
    """

    rows: Tensor
    length: int
    order: Tensor

    @classmethod
    def of(cls, positions: Tensor, parts: Parts, computed: int) -> EqualLists:
        """Of some flat `positions`, on a rank that computes `computed` of all positions."""
        kept, rows = parts.own(positions, computed)
        if parts.ranks == 1:
            # Without counting, which would wait for the device.
            length = max(1, len(rows))
            return cls(_padded(rows, length), length, kept)
        ranks = parts.rank_of(positions, computed)
        counts = torch.bincount(ranks, minlength=parts.ranks)
        length = max(1, int(counts.max()))
        by_rank = ranks.argsort(stable=True)
        starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
        in_list = torch.empty_like(by_rank).index_copy_(
            0, by_rank, torch.arange(len(starts), device=starts.device) - starts
        )
        return cls(_padded(rows, length), length, ranks * length + in_list)


def _padded(rows: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, length - len(rows)))
