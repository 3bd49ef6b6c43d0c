# SPDX-License-Identifier: Apache-2.0
"""Similarity to the image's tokens, one decoder layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from verl_ext.signals.layout import TokenLayout

Score = Literal["cosine", "dot", "l2", "l1"]

Layers = Literal["all", "last"]

Pooling = Literal["pairwise_mean", "prototype"]

PAIR_NORM_FLOOR = 1e-12

PROTOTYPE_NORM_FLOOR = 1e-8

L2_SMOOTHING = 1e-6


# Numbers in one temporary: tokens are taken in blocks of so many hidden states (64 MiB in float32).
BLOCK_NUMEL = 1 << 24


# Small enough for the cache, and for memory that the allocator keeps instead of asking the system anew.
CPU_BLOCK_NUMEL = 1 << 20


class SimilarityAccumulator:
    """Similarity of every response token to its row's image tokens, one decoder layer at a time.

    Feed :meth:`add` the layers of one forward pass as they appear, then read :meth:`result`. Between layers one number
    a token is kept; no hidden state is. ``layers="all"`` averages over what was added, ``"last"`` keeps the latest
    (so add only that one). For the scores see :func:`visual_similarity`.

    Adding a layer takes O((N + M) D) time and no host synchronisation, except for l2 and l1 with
    ``pooling="pairwise_mean"``: they visit all N x M pairs of a row, in bounded memory.

    Where sequences are cut over processes, each has the layout of its own part, with rows numbered alike, and gives
    `summed`, which is called once here and once a layer, in the same order by all.

    Args:
        layout: where this process finds its tokens and images.
        score, layers, pooling: see :func:`visual_similarity`.
        summed: maps a tensor to its sum over the processes that hold parts of the same rows.

    Raises:
        ValueError: `score`, `layers` or `pooling` is not one of the listed names, or sequences are cut and the score
            needs every pair.
    """

    def __init__(
        self,
        layout: TokenLayout,
        score: Score = "cosine",
        layers: Layers = "all",
        pooling: Pooling = "pairwise_mean",
        summed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        for name, value, known in (("score", score, Score), ("layers", layers, Layers), ("pooling", pooling, Pooling)):
            if value not in get_args(known):
                raise ValueError(f"{name} is {value!r}; it must be one of {get_args(known)}")
        every_pair = pooling == "pairwise_mean" and score in ("l2", "l1")
        if every_pair and summed is not None:
            raise ValueError(f"score is {score!r} with pairwise_mean; it needs every pair, and the sequence is cut")
        self._layout, self._score, self._layers, self._pooling = layout, score, layers, pooling
        self._summed = summed or _alone
        ones = torch.ones_like(layout.image_rows)
        self._image_count = self._summed(ones.new_zeros(layout.rows).index_add_(0, layout.image_rows, ones))
        self._pairs = list(layout.pairs()) if every_pair else None
        self._total: Tensor | None = None
        self._added = 0

    @torch.no_grad()
    def add(self, hidden: Tensor) -> None:
        """Take in one layer.

        Args:
            hidden: (..., D) floating point, flattened to the (positions, D) that the layout indexes. Neither kept nor
                modified; positions outside the layout are not read.

        Raises:
            ValueError: `hidden` is not floating point or has fewer than two dimensions.
        """
        if hidden.ndim < 2 or not hidden.is_floating_point():
            raise ValueError(
                f"hidden has shape {tuple(hidden.shape)} and dtype {hidden.dtype}; "
                "it must be a floating-point tensor of shape (..., D)"
            )
        states = hidden.detach().flatten(0, -2)
        scores = self._to_summary(states) if self._pairs is None else self._to_each_image_token(states, self._pairs)
        if self._total is None or self._layers == "last":
            self._total, self._added = scores, 1
        else:
            self._total, self._added = self._total + scores, self._added + 1

    @torch.no_grad()
    def result(self) -> Tensor:
        """(N,) similarity of each of the layout's tokens, in its order; 0 where its row has no image token.

        float32 (float64 if a layer was float64), detached.

        Raises:
            ValueError: no layer was added.
        """
        total, added = self.sums()
        if total is None:
            raise ValueError("hidden_states is empty; at least one layer must be added")
        return total / added

    @torch.no_grad()
    def sums(self) -> tuple[Tensor | None, int]:
        """(N,) sum over the layers added so far, and their number; for layers spread over processes.

        None and 0 before the first. :meth:`result` is the one over the other.
        """
        if self._total is None:
            return None, 0
        has_image = (self._image_count > 0).index_select(0, self._layout.token_rows)
        return torch.where(has_image, self._total, self._total.new_zeros(())), self._added

    def _to_summary(self, states: Tensor) -> Tensor:
        """(N,) scores against one vector a row: the mean image token, of unit length each for the pairwise cosine."""
        tokens, token_rows = self._layout.tokens, self._layout.token_rows
        summary = self._image_summary(states)
        scores = summary.new_empty(len(tokens))
        for block in _blocks(len(tokens), states):
            token = states.index_select(0, tokens[block]).to(summary.dtype)
            scores[block] = self._compare(token, summary.index_select(0, token_rows[block]))
        return scores

    def _image_summary(self, states: Tensor) -> Tensor:
        """(rows, D) mean over each row's image tokens; 0 for a row without any."""
        images, image_rows = self._layout.images, self._layout.image_rows
        dtype = torch.promote_types(states.dtype, torch.float32)
        total = states.new_zeros((self._layout.rows, states.shape[-1]), dtype=dtype)
        for block in _blocks(len(images), states):
            image = states.index_select(0, images[block]).to(dtype)
            if self._score == "cosine" and self._pooling == "pairwise_mean":
                image /= _norm(image, PAIR_NORM_FLOOR)[:, None]
            total.index_add_(0, image_rows[block], image)
        return self._summed(total) / self._image_count.clamp(min=1)[:, None]

    def _compare(self, token: Tensor, summary: Tensor) -> Tensor:
        """(n,) scores of (n, D) tokens and the (n, D) summaries of their rows."""
        # Products and sums, no matmul: autocast and TF32 would take their precision away.
        if self._score == "l2":
            return -((token - summary).square_().sum(-1) + L2_SMOOTHING).sqrt()
        if self._score == "l1":
            return -(token - summary).abs_().sum(-1)
        product = (token * summary).sum(-1)
        if self._score == "dot":
            return product
        if self._pooling == "prototype":
            return product / (_norm(token, PROTOTYPE_NORM_FLOOR) * _norm(summary, PROTOTYPE_NORM_FLOOR))
        # mean_i cos(h, v_i) = h/|h| . mean_i(v_i/|v_i|)
        return product / _norm(token, PAIR_NORM_FLOOR)

    def _to_each_image_token(self, states: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(N,) mean of -distance over the pairs of each row."""
        dtype = torch.promote_types(states.dtype, torch.float32)
        scores = states.new_zeros(len(self._layout.tokens), dtype=dtype)
        size = max(1, min(BLOCK_NUMEL // max(1, states.shape[-1]), int(BLOCK_NUMEL**0.5)))
        for members, images in pairs:
            for image_block in images.split(size):
                image = states.index_select(0, image_block).to(dtype)
                for block in members.split(size):
                    token = states.index_select(0, self._layout.tokens[block]).to(dtype)
                    scores[block] -= self._distance(token, image).sum(-1) / len(images)
        return scores

    def _distance(self, token: Tensor, image: Tensor) -> Tensor:
        """(n, m) distances of (n, D) tokens and (m, D) image tokens."""
        if self._score == "l1":
            return torch.cdist(token, image, p=1.0)
        # |h|^2 + |v|^2 - 2 h.v would cancel in float32.
        exact = torch.cdist(token, image, p=2.0, compute_mode="donot_use_mm_for_euclid_dist")
        return (exact.square_() + L2_SMOOTHING).sqrt_()


def _alone(values: Tensor) -> Tensor:
    return values


def _blocks(count: int, states: Tensor) -> Iterator[slice]:
    """Parts of `count` of the (positions, D) `states`, small enough for one temporary on their device."""
    numel = CPU_BLOCK_NUMEL if states.device.type == "cpu" else BLOCK_NUMEL
    size = max(1, numel // max(1, states.shape[-1]))
    return (slice(start, start + size) for start in range(0, count, size))


def _norm(vectors: Tensor, floor: float) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1).clamp(min=floor)
