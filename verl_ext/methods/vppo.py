# SPDX-License-Identifier: Apache-2.0
"""VPPO: only the tokens that depend most on the image, and more of the responses that do (arXiv 2510.09285).

The formulas follow ``verl/workers/actor/dp_actor.py`` of the official code. Deviations: the factors are those of the
whole batch that is passed in, not of a micro-batch, and responses without an image are left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verl_ext.methods import rows
from verl_ext.methods.base import LossInputs, LossTerm, RolloutSignals, bounded
from verl_ext.methods.dependency import DependencyMethod
from verl_ext.methods.loss_terms import sampled_entropy_term
from verl_ext.methods.registry import register_method
from verl_ext.signals.request import Signal

FLAT_SCORES = 1e-8
FLAT_MEANS = 1e-6
EPSILON = 1e-8


@register_method
@dataclass(frozen=True)
class VPPO(DependencyMethod):
    """Hyper-parameters of :func:`token_mask` and :func:`trajectory_factors`, and the weight of the entropy term."""

    name: ClassVar[str] = "vppo"
    selects_tokens: ClassVar[bool] = True

    top_fraction: float = bounded(0.4, 1e-6, 1.0)
    floor: float = bounded(0.9, 0.0, 1.0)
    ceiling: float | None = bounded(None, 1.0, 1e6)
    entropy_coef: float = bounded(0.06, 0.0, 1e6)

    def signals(self) -> frozenset[Signal]:
        return frozenset() if self._weighs_nothing() else frozenset({self.dependency_signal()})

    def advantage_weights(self, signals: RolloutSignals) -> Tensor | None:
        if self._weighs_nothing():
            return None
        given = (self.visual_dependency(signals), signals.response_mask)
        kept = token_mask(*given, has_image=signals.has_image, top_fraction=self.top_fraction)
        factors = trajectory_factors(*given, has_image=signals.has_image, floor=self.floor, ceiling=self.ceiling)
        return kept * factors[:, None]

    def loss_terms(self, inputs: LossInputs) -> list[LossTerm]:
        return [sampled_entropy_term(inputs, self.entropy_coef)] if self.entropy_coef else []

    def _weighs_nothing(self) -> bool:
        return self.top_fraction == 1.0 and self.floor == 1.0


def token_mask(
    visual_dependency: Tensor, response_mask: Tensor, *, has_image: Tensor, top_fraction: float = 0.4
) -> Tensor:
    """Which tokens of each response keep their policy gradient: the ``top_count`` most dependent ones.

    Exactly that many, the earlier token first among equals. A response without an image, or whose scores span at most
    1e-8, keeps every valid token. Averages over tokens are meant to keep the full response mask in the denominator.

    Args:
        visual_dependency: (B, T) floating point, finite on valid tokens; ``sampled_k3`` of the rollout policy.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        has_image: (B,) non-zero where the response saw an image.
        top_fraction: in (0, 1].

    Returns:
        (B, T) float32 (float64 for float64 input), detached, 1 where the token is kept and 0 elsewhere.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.
    """
    rows.check_tokens("visual_dependency", visual_dependency, response_mask)
    rows.check_rows("has_image", has_image, len(visual_dependency))
    if not 0.0 < top_fraction <= 1.0:
        raise ValueError(f"top_fraction is {top_fraction!r}; it must be in (0, 1]")
    valid = response_mask != 0
    values = rows.prepared(visual_dependency, valid)
    low, high = rows.row_range(values, valid)
    selective = (has_image != 0).unsqueeze(-1) & (high - low > FLAT_SCORES)
    kept = rows.largest(values, valid, top_count(rows.row_count(valid), top_fraction))
    return (valid & (kept | ~selective)).to(values.dtype)


def top_count(count: Tensor, top_fraction: float) -> Tensor:
    """How many of ``count`` tokens are kept: ``ceil(count * top_fraction)``, the product rounded to float32.

    The official code computes it so; for a fraction of 0.3 or 0.6 it differs from double precision at some lengths.

    Args:
        count: integer tensor of any shape.
        top_fraction: in (0, 1].

    Returns:
        long, same shape.
    """
    return (count.to(torch.float32) * top_fraction).ceil().long()


def trajectory_factors(
    visual_dependency: Tensor,
    response_mask: Tensor,
    *,
    has_image: Tensor,
    floor: float = 0.9,
    ceiling: float | None = None,
) -> Tensor:
    """Per-response multipliers of the advantage, larger where the response depends more on the image.

    The mean score of each response with an image and a valid token is min-max normalised over the batch to ``u``, and
    maps to ``floor + u (top - floor)``. ``top`` is such that the factors average 1 over those responses, unless
    ``ceiling`` is lower. Any other response gets 1, and so does every response if the means span at most 1e-6.

    Args:
        visual_dependency: (B, T) floating point, finite on valid tokens; ``sampled_k3`` of the rollout policy.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        has_image: (B,) non-zero where the response saw an image.
        floor: in [0, 1]; the factor of the least dependent response.
        ceiling: None, or finite and >= ``floor``; the largest factor allowed. The official code has none.

    Returns:
        (B,) float32 (float64 for float64 input), detached.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.
    """
    rows.check_tokens("visual_dependency", visual_dependency, response_mask)
    rows.check_rows("has_image", has_image, len(visual_dependency))
    rows.check_range("floor", floor, 0.0, 1.0)
    if ceiling is not None and not floor <= ceiling < math.inf:
        raise ValueError(f"ceiling is {ceiling!r}; it must be None, or finite and >= floor ({floor!r})")
    valid = response_mask != 0
    # The batch as a single row, whose tokens are the responses.
    means = rows.row_mean(rows.prepared(visual_dependency, valid), valid).T
    usable = (has_image != 0) & (rows.row_count(valid) > 0).T
    low, high = rows.row_range(means, usable)
    spread = high - low
    position = torch.where(usable, (means - low) / spread.clamp(min=FLAT_MEANS), 0.0)
    top = floor + (1.0 - floor) / (rows.row_mean(position, usable) + EPSILON)
    if ceiling is not None:
        top = top.clamp(max=ceiling)
    factors = floor + position * (top - floor)
    return torch.where(usable & (spread > FLAT_MEANS), factors, 1.0).squeeze(0)
