# SPDX-License-Identifier: Apache-2.0
"""VGPO: advantages scaled by how much each token and each response looks at the image (arXiv 2604.09349).

The formulas follow ``verl/workers/actor/dp_actor.py`` and ``verl/trainer/core_algos.py`` of the official code.
Deviations: groups are those of ``group_ids``, not runs of adjacent rows; the tokens of responses with constant scores
are left alone; responses without an image or without a valid token are left alone and do not shift their group.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from verl_ext.methods import rows
from verl_ext.methods.base import Method, RolloutSignals, bounded, choice
from verl_ext.methods.registry import register_method
from verl_ext.signals.request import Signal, Similarity

Offset = Literal["official", "paper"]
Schedule = Literal["linear", "exponential", "step"]
OFFSETS = ("official", "paper")
SCHEDULES = ("linear", "exponential", "step")
FLAT_SCORES = 1e-6
FLAT_MASS = 1e-6
EPSILON = 1e-8
EXPONENT = 2.0
STEP_AT = 0.5


VISUAL_FOCUS = Similarity("cosine", "last", "prototype")
"""Cosine between a token's last hidden state and the mean of the image's."""


@register_method
@dataclass(frozen=True)
class VGPO(Method):
    """Hyper-parameters of the three functions below, and which of the two factors act."""

    name: ClassVar[str] = "vgpo"

    compensation: float = bounded(0.3, 0.0, 1e6)
    tail_start: float = bounded(0.5, 0.0, 1.0)
    gate_fraction: float = bounded(0.2, 0.0, 1.0)
    offset: str = choice(*OFFSETS)
    token_reweighting: bool = True
    trajectory_reweighting: bool = True
    token_low: float = bounded(0.1, 0.0, 1.0)
    token_high: float = bounded(2.0, 1.0, 1e6)
    trajectory_low: float = bounded(0.9, 0.0, 1.0)
    trajectory_high: float = bounded(2.0, 1.0, 1e6)
    recentre: bool = False

    def signals(self) -> frozenset[Signal]:
        return frozenset({VISUAL_FOCUS}) if self._acts() else frozenset()

    def advantage_weights(self, signals: RolloutSignals) -> Tensor | None:
        if not self._acts():
            return None
        mask = signals.response_mask
        weights = visual_weights(
            signals[VISUAL_FOCUS],
            mask,
            # As released: without token factors the responses are compared by their uncompensated scores.
            compensation=self.compensation if self.token_reweighting else 0.0,
            tail_start=self.tail_start,
            gate_fraction=self.gate_fraction,
            offset=self.offset,  # type: ignore[arg-type]
        )
        factors = mask.to(weights.dtype)
        if self.token_reweighting:
            low, high = self.token_low, self.token_high
            factors = factors * token_factors(weights, mask, has_image=signals.has_image, low=low, high=high)
        if self.trajectory_reweighting:
            factors = factors * self._trajectory_factors(weights, signals)[:, None]
        return factors

    def _trajectory_factors(self, weights: Tensor, signals: RolloutSignals) -> Tensor:
        return trajectory_factors(
            weights,
            signals.response_mask,
            signals.group_ids,
            has_image=signals.has_image,
            low=self.trajectory_low,
            high=self.trajectory_high,
            recentre=self.recentre,
        )

    def _acts(self) -> bool:
        return self.token_reweighting or self.trajectory_reweighting


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
    _check_visual_weights(visual_focus, response_mask, compensation, tail_start, gate_fraction, offset, schedule)
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
    group = _group_index(group_ids, visual_weights)
    valid = response_mask != 0
    mass = rows.prepared(visual_weights, valid).sum(dim=-1)
    counted = (rows.row_count(valid) > 0).squeeze(-1) & (has_image != 0)
    smallest = _per_group(mass, group, counted, "amin")
    largest = _per_group(mass, group, counted, "amax")
    differs = counted & (largest - smallest > FLAT_MASS * largest)
    position = torch.where(differs, (mass - smallest) / (largest - smallest + EPSILON), 0.0)
    factors = (1.0 + position - _per_group(position, group, counted, "mean")).clamp(low, high)
    if recentre:
        factors = factors / _per_group(factors, group, counted, "mean")
    return torch.where(counted, factors, 1.0)


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


def _group_index(group_ids: Tensor | Sequence[Hashable], like: Tensor) -> Tensor:
    """(B,) long in [0, B), equal where the group is."""
    if isinstance(group_ids, Tensor):
        rows.check_rows("group_ids", group_ids, len(like))
        if group_ids.is_floating_point() or group_ids.is_complex() or group_ids.dtype == torch.bool:
            raise ValueError(f"group_ids has dtype {group_ids.dtype}; a tensor of ids must be of integers")
        ids = group_ids.to(device=like.device, dtype=torch.long)
        return torch.searchsorted(ids.sort().values, ids)
    if len(group_ids) != len(like):
        raise ValueError(f"group_ids has {len(group_ids)} entries; it must have {len(like)}, one a row")
    numbers: dict[Hashable, int] = {}
    return torch.tensor([_number(numbers, group) for group in group_ids], dtype=torch.long, device=like.device)


def _number(numbers: dict[Hashable, int], group: Hashable) -> int:
    """The number of `group`, a new one if it has none."""
    try:
        # Tensors hash by identity: each would be a group of its own.
        if not isinstance(group, Tensor):
            return numbers.setdefault(group, len(numbers))
    except TypeError:
        pass
    raise ValueError(f"group_ids holds {group!r} of type {type(group).__name__}; its entries must be hashable ids")


def _per_group(values: Tensor, group: Tensor, counted: Tensor, reduce: Literal["amin", "amax", "mean"]) -> Tensor:
    """(B,) the counted entries of each row's group reduced; meaningless where the group has none."""
    neutral = {"amin": math.inf, "amax": -math.inf, "mean": 0.0}[reduce]
    entries = torch.where(counted, values, neutral)
    if reduce != "mean":
        return torch.full_like(values, neutral).scatter_reduce(0, group, entries, reduce)[group]
    total = torch.zeros_like(values).scatter_add(0, group, entries)
    return (total / torch.zeros_like(values).scatter_add(0, group, counted.to(values.dtype)).clamp(min=1.0))[group]


def _check_visual_weights(
    visual_focus: Tensor,
    response_mask: Tensor,
    compensation: float,
    tail_start: float,
    gate_fraction: float,
    offset: str,
    schedule: str,
) -> None:
    rows.check_tokens("visual_focus", visual_focus, response_mask)
    rows.check_non_negative("compensation", compensation)
    rows.check_range("tail_start", tail_start, 0.0, 1.0)
    rows.check_range("gate_fraction", gate_fraction, 0.0, 1.0)
    rows.check_choice("offset", offset, OFFSETS)
    rows.check_choice("schedule", schedule, SCHEDULES)


def _check_factors(visual_weights: Tensor, response_mask: Tensor, has_image: Tensor, low: float, high: float) -> None:
    rows.check_tokens("visual_weights", visual_weights, response_mask)
    rows.check_rows("has_image", has_image, len(visual_weights))
    rows.check_range("low", low, 0.0, 1.0)
    if not high >= 1.0:
        raise ValueError(f"high is {high!r}; it must be >= 1")
