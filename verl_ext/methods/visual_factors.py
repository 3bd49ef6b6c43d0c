# SPDX-License-Identifier: Apache-2.0
"""VGPO's factors: from visual weights to multipliers of the advantage, of tokens and of responses."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from verl_ext.methods import rows
from verl_ext.methods.groups import group_index, per_group

FLAT_MASS = 1e-6

EPSILON = 1e-8


def token_factors(
    visual_weights: Tensor, response_mask: Tensor, *, has_image: Tensor, low: float = 0.1, high: float = 2.0
) -> Tensor:
    """Per-token multipliers of the advantage: ``1 + w - mean(w)`` over the response's valid tokens, clamped.

    Args:
        visual_weights: (B, T) floating point; from :func:`visual_weights`.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        has_image: (B,) non-zero where the response saw an image; any other response gets 1.
        low: in [0, 1]; smallest factor.
        high: >= 1; largest factor.

    Returns:
        (B, T) float32 (float64 for float64 input), detached, exactly 1 outside the mask.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.
    """
    _check_factors(visual_weights, response_mask, has_image, low, high)
    valid = response_mask != 0
    weights = rows.prepared(visual_weights, valid)
    factors = (weights - (rows.row_mean(weights, valid) - 1.0)).clamp(low, high)
    return rows.where(valid & (has_image != 0).unsqueeze(-1), factors, 1.0)


def trajectory_factors(
    visual_weights: Tensor,
    response_mask: Tensor,
    group_ids: Tensor | Sequence[Hashable],
    *,
    has_image: Tensor,
    low: float = 0.9,
    high: float = 2.0,
    recentre: bool = False,
) -> Tensor:
    """Per-response multipliers of the advantage, larger where the response looks more at the image than its group.

    ``phi`` is the sum of a response's weights, ``u`` its min-max normalisation within the group, and the factor
    ``clamp(1 + u - mean(u), low, high)``. Responses without an image or without a valid token get 1 and take no part
    in their group. A group of one gets 1, and so does a group whose ``phi`` are equal up to 1e-6 of the largest. The
    clamp raises the mean of the factors above 1; ``recentre`` divides them by their group mean, which may take them
    outside [low, high].

    Args:
        visual_weights: (B, T) floating point, >= 0; from :func:`visual_weights`.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        group_ids: (B,) integer tensor, or a sequence of B hashable objects; equal for the responses to one prompt.
        has_image: (B,) non-zero where the response saw an image.
        low: in [0, 1]; smallest factor.
        high: >= 1; largest factor.
        recentre: whether the factors of a group average 1.

    Returns:
        (B,) float32 (float64 for float64 input), detached.

    Raises:
        ValueError: a shape, a dtype, a parameter or an entry of ``group_ids`` is outside what is listed above.
    """
    _check_factors(visual_weights, response_mask, has_image, low, high)
    group = group_index(group_ids, visual_weights)
    valid = response_mask != 0
    mass = rows.prepared(visual_weights, valid).sum(dim=-1)
    counted = (rows.row_count(valid) > 0).squeeze(-1) & (has_image != 0)
    smallest = per_group(mass, group, counted, "amin")
    largest = per_group(mass, group, counted, "amax")
    differs = counted & (largest - smallest > FLAT_MASS * largest)
    position = torch.where(differs, (mass - smallest) / (largest - smallest + EPSILON), 0.0)
    factors = (1.0 + position - per_group(position, group, counted, "mean")).clamp(low, high)
    if recentre:
        factors = factors / per_group(factors, group, counted, "mean")
    return torch.where(counted, factors, 1.0)


def _check_factors(visual_weights: Tensor, response_mask: Tensor, has_image: Tensor, low: float, high: float) -> None:
    rows.check_tokens("visual_weights", visual_weights, response_mask)
    rows.check_rows("has_image", has_image, len(visual_weights))
    rows.check_range("low", low, 0.0, 1.0)
    if not high >= 1.0:
        raise ValueError(f"high is {high!r}; it must be >= 1")
