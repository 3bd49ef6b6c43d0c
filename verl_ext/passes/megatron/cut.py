# SPDX-License-Identifier: Apache-2.0
"""Where each token of a micro-batch stands in the (places, columns, D) hidden states of Megatron's ranks.

A token is known by its number when the sequences of the micro-batch are laid end to end, without padding. verl pads
each sequence of a pack, or all of a batch to one length, and Megatron cuts every padded sequence over context-parallel
ranks: of 2 R equal chunks, rank r has chunk r and chunk 2 R - 1 - r, so that causal attention costs all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verl_ext.passes.megatron.grid import Grid


@dataclass(frozen=True, eq=False)
class Cut:
    """Where tokens stand on the context-parallel ranks, before sequence parallelism cuts once more.

    Attributes:
        context: (N,) the context-parallel rank that computes each token.
        place: (N,) where along the first dimension of that rank's tensors.
        column: (N,) where along the second: 0 in a pack, the row in a batch.
        places, columns: the sizes of these dimensions.
    """

    context: Tensor
    place: Tensor
    column: Tensor
    places: int
    columns: int

    @property
    def label(self) -> Tensor:
        """(N,) where each token stands in a flattened (columns, places) tensor, as verl's labels are."""
        return self.column * self.places + self.place


def cut_of(offsets: Tensor, states: torch.Size, padded_offsets: Tensor | None, grid: Grid) -> Cut:
    """The cut of a micro-batch, as the shape of its hidden states tells it.

    Args:
        offsets: (B + 1,) where sequences begin and end, laid end to end.
        states: shape (places, columns, D) of this rank's hidden states.
        padded_offsets: (B + 1,) the same with the padding of each sequence; None if the batch is not packed.
        grid: what the micro-batch is cut over.

    Raises:
        RuntimeError: the model cuts sequences in another way.
    """
    places, columns = states[0] * grid.sequence.size, states[1]
    if padded_offsets is not None:
        return _packed(offsets, padded_offsets.to(offsets), places, columns, grid.context.size)
    return _padded(offsets, places, columns, grid)


def _packed(offsets: Tensor, padded_offsets: Tensor, places: int, columns: int, ranks: int) -> Cut:
    if columns != 1 or places * ranks != int(padded_offsets[-1]):
        raise RuntimeError(
            f"the model computes {places} x {columns} positions on each of {ranks} context-parallel ranks, but the "
            f"pack has {int(padded_offsets[-1])}: it does not pack its sequences; set use_remove_padding=False"
        )
    rows, positions = _rows_and_positions(offsets)
    context, place = _zigzag(positions, padded_offsets.diff()[rows], ranks)
    return Cut(context, padded_offsets[rows] // ranks + place, torch.zeros_like(rows), places, 1)


def _padded(offsets: Tensor, places: int, columns: int, grid: Grid) -> Cut:
    length, longest = places * grid.context.size, int(offsets.diff().max())
    if columns != len(offsets) - 1 or length < longest:
        raise RuntimeError(
            f"the model computes {places} x {columns} positions on each of {grid.context.size} context-parallel ranks, "
            f"but the batch has {len(offsets) - 1} sequences of up to {longest} tokens; that cut is not known here"
        )
    rows, positions = _rows_and_positions(offsets)
    context, place = _zigzag(positions, torch.full_like(positions, length), grid.context.size)
    return Cut(context, place, rows, places, columns)


def _rows_and_positions(offsets: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the row of each token and its position in it."""
    rows = torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())
    return rows, torch.arange(len(rows), device=offsets.device) - offsets[rows]


def _zigzag(positions: Tensor, lengths: Tensor, ranks: int) -> tuple[Tensor, Tensor]:
    """(N,) the rank that has each of `positions` in sequences of padded `lengths`, and where in its two chunks."""
    if ranks == 1:
        return torch.zeros_like(positions), positions
    chunk_length = lengths // ranks // 2
    chunk = positions // chunk_length
    late = chunk >= ranks
    return torch.where(late, 2 * ranks - 1 - chunk, chunk), positions % chunk_length + late * chunk_length
