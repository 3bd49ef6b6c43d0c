# SPDX-License-Identifier: Apache-2.0
"""Which positions of a micro-batch this rank computes, and how ranks put together what each has found.

verl may cut a packed micro-batch over ranks (Ulysses sequence parallelism): every rank knows all tokens, but computes
the hidden states of one part of the positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from verl_ext.signals.layout import TokenLayout


class Parts(Protocol):
    """A cut of the flat positions of a micro-batch over `ranks` ranks."""

    ranks: int

    def rank_of(self, positions: Tensor, length: int) -> Tensor:
        """(N,) the rank that computes each of the flat `positions`, if each computes `length`."""
        ...

    def own(self, positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """This rank's among some flat positions.

        Args:
            positions: (N,) long; flat positions in the whole micro-batch.
            length: number of positions that this rank computes.

        Returns:
            (n,) long indices into `positions`, in order, and (n,) where those stand among this rank's positions.
        """
        ...

    def summed(self, values: Tensor) -> Tensor:
        """`values` added over the ranks that hold parts of the same micro-batch; the same on each."""
        ...


class Whole:
    """No cut: this rank computes every position."""

    ranks = 1

    def rank_of(self, positions: Tensor, length: int) -> Tensor:
        """This one."""
        return torch.zeros_like(positions)

    def own(self, positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """All of them, where they are."""
        return torch.arange(len(positions), device=positions.device), positions

    def summed(self, values: Tensor) -> Tensor:
        """`values`."""
        return values


class EqualParts:
    """Consecutive parts of equal length, one a rank of `group`, in order: verl's Ulysses sequence parallelism."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._rank = dist.get_rank(group)
        self.ranks = dist.get_world_size(group)

    def rank_of(self, positions: Tensor, length: int) -> Tensor:
        """The first `length` are the first rank's, and so on."""
        return positions // length

    def own(self, positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Those in this rank's part."""
        kept = (self.rank_of(positions, length) == self._rank).nonzero().flatten()
        return kept, positions[kept] - self._rank * length

    def summed(self, values: Tensor) -> Tensor:
        """`values` added over the group."""
        dist.all_reduce(values, group=self._group)
        return values


def parts_of(engine: Any) -> Parts:
    """How `engine` (one of verl's FSDP engines) cuts its micro-batches."""
    group = engine.ulysses_parallel_group
    return Whole() if group is None else EqualParts(group)


def own_layout(parts: Parts, layout: TokenLayout, length: int) -> tuple[TokenLayout, Tensor]:
    """The part of `layout` that this rank computes in its `length` positions, and the indices of its tokens."""
    kept, tokens = parts.own(layout.tokens, length)
    images, image_positions = parts.own(layout.images, length)
    own = replace(
        layout,
        tokens=tokens,
        token_rows=layout.token_rows[kept],
        images=image_positions,
        image_rows=layout.image_rows[images],
    )
    return own, kept


def put_together(parts: Parts, values: Tensor, kept: Tensor, count: int) -> Tensor:
    """(count, ...) values of all positions, of which this rank has found those at the indices `kept`."""
    if parts.ranks == 1:
        return values
    return parts.summed(values.new_zeros(count, *values.shape[1:]).index_copy_(0, kept, values))


def summed_by(parts: Parts) -> Callable[[Tensor], Tensor] | None:
    """What adds a tensor over the ranks; None where there is nothing to add."""
    return parts.summed if parts.ranks > 1 else None
