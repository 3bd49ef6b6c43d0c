# SPDX-License-Identifier: Apache-2.0
"""How close a response token's hidden state is to the hidden states of the image tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

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


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """Where response and image tokens stand in a batch whose hidden states are flattened to (positions, D).

    In a padded batch (B, L, D), position l of row b is ``b * L + l``; in a packed one (1, positions, D) it is the
    offset in the pack. Order is free. A row may have no token, no image, or several images.

    Attributes:
        tokens: (N,) long; flat positions of the response tokens.
        token_rows: (N,) long; the row of each, in [0, rows).
        images: (M,) long; flat positions of the prompt's image tokens.
        image_rows: (M,) long; the row of each, in [0, rows).
        rows: number of rows.

    Raises:
        ValueError: an index is not a 1-D long tensor, or is not as long as its rows.
    """

    tokens: Tensor
    token_rows: Tensor
    images: Tensor
    image_rows: Tensor
    rows: int

    def __post_init__(self) -> None:
        for name in ("tokens", "token_rows", "images", "image_rows"):
            index = getattr(self, name)
            if index.ndim != 1 or index.dtype != torch.long:
                raise ValueError(
                    f"{name} has shape {tuple(index.shape)} and dtype {index.dtype}; it must be a 1-D long tensor"
                )
        for name, rows in (("tokens", "token_rows"), ("images", "image_rows")):
            if getattr(self, rows).shape != getattr(self, name).shape:
                raise ValueError(
                    f"{rows} has {len(getattr(self, rows))} entries; it must have {name}'s {len(getattr(self, name))}"
                )
        if self.rows < 0:
            raise ValueError(f"rows is {self.rows!r}; it must be >= 0")


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
        self._pairs = list(_pairs(layout)) if every_pair else None
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


def visual_similarity(
    hidden_states: Iterable[Tensor],
    image_mask: Tensor,
    response_positions: Tensor,
    *,
    score: Score = "cosine",
    layers: Layers = "all",
    pooling: Pooling = "pairwise_mean",
) -> Tensor:
    """How much each response token's hidden state resembles the image's, averaged over layers.

    With ``h`` a response token's state and ``v_i`` those of its row's image tokens, ``pooling="pairwise_mean"`` is
    ``mean_i score(h, v_i)`` and ``"prototype"`` is ``score(h, mean_i v_i)``. The scores are ``cosine``; ``dot``,
    ``h . v``; ``l2``, ``-sqrt(|h - v|^2 + 1e-6)``; ``l1``, ``-|h - v|_1``. Norms in the cosine are at least 1e-12 (each
    state of a pair) or 1e-8 (state and prototype), so a zero vector scores 0. The state of token j is the one AT token
    j, which has read it.

    PEPO is the default; VGPO is ``layers="last", pooling="prototype"``.

    Args:
        hidden_states: one (B, L, D) floating-point tensor a layer, embeddings first if they are to count; any iterable.
            Each is released before the next is asked for (``layers="last"`` holds one until it sees the next).
        image_mask: (B, L) bool (any dtype, non-zero is true); the prompt's image tokens, of all images of the row.
        response_positions: (B, T) integer; position in [0, L) of each response token, -1 where padded.
        score: "cosine", "dot", "l2" or "l1".
        layers: "all" layers given, or the "last" of them.
        pooling: "pairwise_mean" or "prototype".

    Returns:
        (B, T) float32 (float64 if a layer is float64), detached; 0 where padded and for rows without image tokens.
        What stands at positions that are neither is ignored. l2 and l1 with "pairwise_mean" visit all pairs, one row
        after another, and synchronise with the host; everything else does neither.

    Raises:
        ValueError: a name, shape or dtype is not as listed, there is no layer, or a position exceeds L - 1 (the last
            is checked on CPU only: elsewhere it would wait for the device).

    Source: PEPO (arXiv 2603.22847) Eq. for the vision score; VGPO (arXiv 2604.09349) for the prototype.
    """
    _check(image_mask, response_positions)
    accumulator = SimilarityAccumulator(_padded_layout(image_mask != 0, response_positions), score, layers, pooling)
    last = None
    for hidden in hidden_states:
        if hidden.ndim != 3 or hidden.shape[:2] != image_mask.shape:
            raise ValueError(
                f"hidden_states has a layer of shape {tuple(hidden.shape)}; it must be (B, L, D) with image_mask's "
                f"{tuple(image_mask.shape)}"
            )
        if layers == "all":
            accumulator.add(hidden)
        else:
            last = hidden
        del hidden
    if last is not None:
        accumulator.add(last)
    return accumulator.result().view(response_positions.shape)


def _padded_layout(image_mask: Tensor, response_positions: Tensor) -> TokenLayout:
    """Layout of a padded batch, made without reading the masks on the host.

    Row b's text goes to a spare row B + b that no token belongs to, and padded tokens to row 2 B that has no image.
    """
    batch, length = image_mask.shape
    row = torch.arange(batch, device=image_mask.device)[:, None]
    padded = response_positions < 0
    return TokenLayout(
        tokens=(row * length + response_positions).masked_fill(padded, 0).flatten(),
        token_rows=row.expand_as(padded).masked_fill(padded, 2 * batch).flatten(),
        images=torch.arange(batch * length, device=image_mask.device),
        image_rows=(row + batch * ~image_mask).flatten(),
        rows=2 * batch + 1,
    )


def _pairs(layout: TokenLayout) -> Iterator[tuple[Tensor, Tensor]]:
    """Per row with both: indices into the layout's tokens, and flat positions of its image tokens."""
    for row in range(layout.rows):
        members = (layout.token_rows == row).nonzero().flatten()
        images = layout.images[layout.image_rows == row]
        if len(members) and len(images):
            yield members, images


def _alone(values: Tensor) -> Tensor:
    return values


def _blocks(count: int, states: Tensor) -> Iterator[slice]:
    """Parts of `count` of the (positions, D) `states`, small enough for one temporary on their device."""
    numel = CPU_BLOCK_NUMEL if states.device.type == "cpu" else BLOCK_NUMEL
    size = max(1, numel // max(1, states.shape[-1]))
    return (slice(start, start + size) for start in range(0, count, size))


def _norm(vectors: Tensor, floor: float) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1).clamp(min=floor)


def _check(image_mask: Tensor, response_positions: Tensor) -> None:
    if image_mask.ndim != 2:
        raise ValueError(f"image_mask has shape {tuple(image_mask.shape)}; it must be (B, L)")
    integer = not (response_positions.is_floating_point() or response_positions.dtype == torch.bool)
    if not integer or response_positions.ndim != 2 or len(response_positions) != len(image_mask):
        raise ValueError(
            f"response_positions has shape {tuple(response_positions.shape)} and dtype {response_positions.dtype}; "
            f"it must be an integer tensor of shape ({len(image_mask)}, T)"
        )
    if response_positions.device.type == "cpu" and response_positions.numel():
        largest = int(response_positions.max())
        if largest >= image_mask.shape[1]:
            raise ValueError(f"response_positions holds {largest}; it must be below L = {image_mask.shape[1]}")
