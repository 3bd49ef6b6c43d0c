# SPDX-License-Identifier: Apache-2.0
"""How close a response token's hidden state is to the hidden states of the image tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from verl_ext.signals.layer_similarity import Layers, Pooling, Score, SimilarityAccumulator
from verl_ext.signals.layout import TokenLayout


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
