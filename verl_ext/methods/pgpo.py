# SPDX-License-Identifier: Apache-2.0
"""PGPO: advantages scaled by how much each token depends on the image (arXiv 2604.01840, Eq. 6-7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from verl_ext.methods import rows
from verl_ext.methods.base import RolloutSignals, bounded, choice
from verl_ext.methods.dependency import DependencyMethod, neutral_without_image
from verl_ext.methods.registry import register_method
from verl_ext.signals.request import Signal

ThresholdMode = Literal["absolute", "quantile"]
THRESHOLD_MODES = ("absolute", "quantile")
FLAT_RANGE = 1e-8


@register_method
@dataclass(frozen=True)
class PGPO(DependencyMethod):
    """Hyper-parameters of :func:`token_weights`.

    Attributes:
        weight_cap: no weight exceeds it, which gives up conserved mass; None for no cap, as in the paper. A few tokens
            can weigh 15 and more where the dependency is sparse.
    """

    name: ClassVar[str] = "pgpo"

    threshold: float = bounded(0.4, 0.0, 1.0)
    boost: float = bounded(2.0, 0.0, 1e6)
    threshold_mode: str = choice(*THRESHOLD_MODES)
    low_weight_floor: float = bounded(0.0, 0.0, 1.0)
    conserve_mass: bool = True
    weight_cap: float | None = bounded(None, 1.0, 1e6)

    def signals(self) -> frozenset[Signal]:
        return frozenset() if self._is_neutral() else frozenset({self.dependency_signal()})

    def advantage_weights(self, signals: RolloutSignals) -> Tensor | None:
        if self._is_neutral():
            return None
        weights = token_weights(
            self.visual_dependency(signals),
            signals.response_mask,
            threshold=self.threshold,
            boost=self.boost,
            threshold_mode=self.threshold_mode,  # type: ignore[arg-type]
            low_weight_floor=self.low_weight_floor,
            conserve_mass=self.conserve_mass,
        )
        return neutral_without_image(weights.clamp(max=self.weight_cap) if self.weight_cap else weights, signals)

    def _is_neutral(self) -> bool:
        """Nothing below the threshold and nothing gained above it: every weight is 1."""
        return self.boost == 0.0 and self.threshold == 0.0 and self.threshold_mode == "absolute"


def token_weights(
    visual_dependency: Tensor,
    response_mask: Tensor,
    *,
    threshold: float = 0.4,
    boost: float = 2.0,
    threshold_mode: ThresholdMode = "absolute",
    low_weight_floor: float = 0.0,
    conserve_mass: bool = True,
) -> Tensor:
    """Per-token multipliers of the advantage.

    Per response, over its valid tokens: ``x = log(1 + S)`` is min-max normalised to ``I`` in [0, 1]. With threshold
    ``tau`` a token below it gets ``max(I / tau, low_weight_floor)``, any other ``1 + boost (I - tau) / (1 - tau)``.
    ``conserve_mass`` then scales the response so that its weights sum to its number of valid tokens.

    ``threshold_mode="absolute"`` uses ``tau = threshold``. ``"quantile"`` takes as ``tau`` the ascending ``I`` at index
    ``floor(n * threshold)`` (at most ``n - 1``); an early variant of the method, used with ``low_weight_floor=0.1`` and
    ``conserve_mass=False``. A response whose ``x`` spans at most 1e-8 (no image, one token, constant scores) gets
    weight 1 on every valid token.

    Args:
        visual_dependency: (B, T) floating point, >= 0 on valid tokens; ``sampled_k3`` of the rollout policy.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        threshold: in [0, 1].
        boost: >= 0, finite; the extra weight of the most visual token.
        threshold_mode: "absolute" or "quantile".
        low_weight_floor: in [0, 1]; smallest weight below the threshold, before the mass is conserved.
        conserve_mass: whether the weights of a response sum to its length.

    Returns:
        (B, T) float32 (float64 for float64 input), detached, exactly 0 outside the mask.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.
    """
    rows.check_tokens("visual_dependency", visual_dependency, response_mask)
    rows.check_range("threshold", threshold, 0.0, 1.0)
    rows.check_non_negative("boost", boost)
    rows.check_choice("threshold_mode", threshold_mode, THRESHOLD_MODES)
    rows.check_range("low_weight_floor", low_weight_floor, 0.0, 1.0)
    valid = response_mask != 0
    scores, flat = _normalised_scores(visual_dependency, valid)
    tau = _thresholds(scores, valid, threshold, threshold_mode)
    weights = _two_sided_ramp(scores, tau, boost, low_weight_floor)
    weights = rows.where(valid, rows.where(~flat, weights, 1.0), 0.0)
    return _conserve_mass(weights, valid) if conserve_mass else weights


def _normalised_scores(dependency: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Min-max normalised log(1 + S) (B, T), meaningless outside the mask; and (B, 1), true where a row has no range."""
    x = torch.log1p(rows.prepared(dependency, valid))
    low, high = rows.row_range(x, valid)
    span = high - low
    flat = span <= FLAT_RANGE
    return (x - low) / span.masked_fill(flat, 1.0), flat


def _thresholds(scores: Tensor, valid: Tensor, threshold: float, mode: ThresholdMode) -> Tensor:
    """(B, 1) threshold of each row."""
    if mode == "absolute":
        return scores.new_full((len(scores), 1), threshold)
    count = rows.row_count(valid)
    # float64: float32 rounds n * threshold across an integer for some lengths.
    index = (count.double() * threshold).floor().long()
    index = torch.minimum(index, count - 1).clamp(min=0)
    return rows.kth_largest(scores, valid, count - index)


def _two_sided_ramp(scores: Tensor, tau: Tensor, boost: float, floor: float) -> Tensor:
    """Suppress below ``tau``, amplify above; tau = 0 has nothing below it and tau = 1 nothing above."""
    below = (scores / tau.masked_fill(tau <= 0.0, 1.0)).clamp(min=floor)
    above = 1.0 + boost * (scores - tau) / (1.0 - tau).masked_fill(tau >= 1.0, 1.0)
    return torch.where(scores < tau, below, above)


def _conserve_mass(weights: Tensor, valid: Tensor) -> Tensor:
    """Scale each row to sum to its length. A row's top token weighs at least 1, so only empty rows meet the clamp."""
    return weights * (rows.row_count(valid) / weights.sum(dim=-1, keepdim=True).clamp(min=1.0))
