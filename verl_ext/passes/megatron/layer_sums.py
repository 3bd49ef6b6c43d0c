# SPDX-License-Identifier: Apache-2.0
"""Similarities as sums over layers: of one micro-batch on one stage, and of a whole pass over all stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from verl_ext.passes.megatron.cut import cut_of
from verl_ext.passes.megatron.grid import Grid
from verl_ext.passes.megatron.model import PackSeen
from verl_ext.passes.megatron.own_positions import stage_parts
from verl_ext.passes.own_positions import Parts, own_layout, summed_by
from verl_ext.signals.layer_similarity import SimilarityAccumulator
from verl_ext.signals.layout import TokenLayout
from verl_ext.signals.request import Similarity


class StageSimilarities:
    """Similarities over this stage's layers and this rank's part of a micro-batch, which the first layer tells.

    Args:
        signals: what to measure.
        layout: response and image tokens by their numbers when sequences are laid end to end.
        offsets: (B + 1,) where sequences begin and end then.
        grid: what the micro-batch is cut over.
    """

    def __init__(self, signals: Sequence[Similarity], layout: TokenLayout, offsets: Tensor, grid: Grid) -> None:
        self.seen = PackSeen()
        self._signals, self._layout, self._grid = signals, layout, grid
        self._offsets = offsets
        self._accumulators: list[SimilarityAccumulator] = []

    def add(self, states: Tensor, last: bool) -> None:
        """Take in the states of one layer."""
        if not self._accumulators:
            self._begin(states)
        for signal, accumulator in zip(self._signals, self._accumulators, strict=True):
            if last or signal.layers == "all":
                accumulator.add(states)

    def results(self) -> list[tuple[Tensor, int]]:
        """For each signal, (N,) sums over the layers added, zero for tokens of other ranks, and their number."""
        if not self._accumulators:
            return [(self._nothing(), 0) for _ in self._signals]
        return [self._spread(*accumulator.sums()) for accumulator in self._accumulators]

    def _begin(self, states: Tensor) -> None:
        cut = cut_of(self._offsets, states.shape, self.seen.padded_offsets, self._grid)
        parts: Parts = stage_parts(cut, self._grid)
        layout, self._kept = own_layout(parts, self._layout, states.shape[:-1].numel())
        self._accumulators = [
            SimilarityAccumulator(layout, s.score, s.layers, s.pooling, summed_by(parts))  # type: ignore[arg-type]
            for s in self._signals
        ]

    def _spread(self, sums: Tensor | None, layers: int) -> tuple[Tensor, int]:
        if sums is None:
            return self._nothing(), 0
        return self._nothing().to(sums.dtype).index_copy_(0, self._kept, sums), layers

    def _nothing(self) -> Tensor:
        return torch.zeros(len(self._layout.tokens), device=self._layout.tokens.device)


class LayerSums:
    """A similarity of all tokens of a pass, summed over the layers of this stage; a chunk is one part of its layers."""

    def __init__(self, signal: Similarity, grid: Grid) -> None:
        self.signal, self._grid = signal, grid
        self._sums: dict[int, list[Tensor]] = {}
        self._layers: dict[int, int] = {}

    def count(self, chunk: int) -> int:
        """Number of tokens that `chunk` has run."""
        return sum(map(len, self._sums.get(chunk, [])))

    def add(self, chunk: int, sums: Tensor, layers: int) -> None:
        """The next micro-batch of `chunk`: (N,) sums over `layers` layers, zero for tokens that other ranks have."""
        self._sums.setdefault(chunk, []).append(sums)
        self._layers[chunk] = layers

    def mean(self) -> Tensor:
        """(tokens of the pass,) means over the layers of all stages; the same on every rank."""
        own = torch.stack([torch.cat(sums) for sums in self._sums.values()]).sum(0)
        layers = own.new_tensor([sum(self._layers.values())])
        total = self._grid.summed_over_layers(self._grid.summed(own))
        return total / self._grid.summed_over_layers(layers)
