# SPDX-License-Identifier: Apache-2.0
"""VGPO's visual weights: how visual each token is within its response, late tokens made up for."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from verl_ext.methods import rows

Offset = Literal["official", "paper"]

Schedule = Literal["linear", "exponential", "step"]

OFFSETS = ("official", "paper")

SCHEDULES = ("linear", "exponential", "step")

FLAT_SCORES = 1e-6

EXPONENT = 2.0

STEP_AT = 0.5


def visual_weights(
    visual_focus: Tensor,
    response_mask: Tensor,
    *,
    compensation: float = 0.3,
    tail_start: float = 0.5,
    gate_fraction: float = 0.2,
    offset: Offset = "official",
    schedule: Schedule = "linear",
) -> Tensor:
    """How visual each token is within its response, in [0, 1].

    Per response: the scores minus the offset, times ``1 + compensation_ramp`` on the gated tokens, then min-max
    normalised over the valid tokens. Gated are those of the tail that score at least as high as its
    ``max(1, floor(size * gate_fraction))``-th largest, ties included; the tail is what follows the first
    ``floor(n * tail_start)`` of the n valid tokens. A response whose scores span at most 1e-6 gets 0 everywhere.

    Args:
        visual_focus: (B, T) floating point, finite on valid tokens; cosine between the last hidden state at the token
            and the mean of those at the image.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        compensation: finite, >= 0; gain of a gated token at the end of the response. 0 switches it off.
        tail_start: in [0, 1].
        gate_fraction: in [0, 1].
        offset: "official" is the smallest valid score of the batch or 0, whichever is lower; "paper" is -1.
        schedule: see :func:`compensation_ramp`.

    Returns:
        (B, T) float32 (float64 for float64 input), detached, exactly 0 outside the mask.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.
    """
    rows.check_tokens("visual_focus", visual_focus, response_mask)
    rows.check_non_negative("compensation", compensation)
    rows.check_range("tail_start", tail_start, 0.0, 1.0)
    rows.check_range("gate_fraction", gate_fraction, 0.0, 1.0)
    rows.check_choice("offset", offset, OFFSETS)
    rows.check_choice("schedule", schedule, SCHEDULES)
    valid = response_mask != 0
    scores = rows.prepared(visual_focus, valid)
    low, high = rows.row_range(scores, valid)
    varied = high - low > FLAT_SCORES
    shifted = scores - (_lowest_of_batch(low, valid) if offset == "official" else -1.0)
    if compensation > 0.0:
        gain = _ramp(valid, compensation, schedule, scores.dtype)
        shifted = shifted + shifted * gain * _gate(scores, valid, tail_start, gate_fraction)
    low, high = rows.row_range(shifted, valid)
    # Without the released 1e-8, which makes the sum of a short response depend on its range.
    return rows.where(valid & varied, (shifted - low) / rows.where(high > low, high - low, 1.0), 0.0)


def compensation_ramp(
    response_mask: Tensor, strength: float, schedule: Schedule = "linear", *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The gain that makes up for attention fading along the response.

    With x in [0, 1] the position between the first valid token and the last, holes counted: ``strength x`` (linear),
    ``strength x^2`` (exponential), ``strength`` from x = 0.5 on (step).

    Args:
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid.
        strength: finite, >= 0.
        schedule: "linear", "exponential" or "step".
        dtype: of the result.

    Returns:
        (B, T) `dtype`, exactly 0 outside the mask.

    Raises:
        ValueError: a shape or a parameter is outside what is listed above.
    """
    if response_mask.ndim != 2:
        raise ValueError(f"response_mask has shape {tuple(response_mask.shape)}; it must be (B, T)")
    rows.check_non_negative("strength", strength)
    rows.check_choice("schedule", schedule, SCHEDULES)
    valid = response_mask != 0
    return _ramp(valid, strength, schedule, dtype) * valid


def _lowest_of_batch(row_low: Tensor, valid: Tensor) -> Tensor:
    """(1, 1) smallest valid score or 0, whichever is lower, from the rows' smallest (B, 1)."""
    lowest, _ = rows.row_range(row_low.T, (rows.row_count(valid) > 0).T)
    return lowest.clamp(max=0.0)


def _ramp(valid: Tensor, strength: float, schedule: Schedule, dtype: torch.dtype) -> Tensor:
    """(B, T) gain, meaningless outside the mask."""
    position = torch.arange(valid.shape[-1], dtype=dtype, device=valid.device).expand(valid.shape)
    first, last = rows.row_range(position, valid)
    x = (position - first) / (last - first).clamp(min=1.0)
    if schedule == "step":
        return strength * (x >= STEP_AT).to(dtype)
    return strength * (x**EXPONENT if schedule == "exponential" else x)


def _gate(scores: Tensor, valid: Tensor, tail_start: float, gate_fraction: float) -> Tensor:
    """(B, T) bool: the highest scores of each row's tail."""
    count = rows.row_count(valid)
    # float64, as the official code: float32 rounds the products across an integer for some lengths.
    start = (count.double() * tail_start).floor().long()
    tail = valid & (valid.cumsum(dim=-1, dtype=torch.int32) > start.int())
    k = ((count - start).double() * gate_fraction).floor().long().clamp(min=1)
    return tail & (scores >= rows.kth_largest(scores, tail, k))
