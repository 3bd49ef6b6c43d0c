# SPDX-License-Identifier: Apache-2.0
"""PGPO: advantages scaled by how much each token depends on the image (arXiv 2604.01840, Eq. 6-7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from verl_ext.methods.base import ABLATED_LOG_PROB, Method, RolloutSignals, bounded, choice
from verl_ext.methods.registry import register_method
from verl_ext.signals import sampled_k3

ThresholdMode = Literal["absolute", "quantile"]
THRESHOLD_MODES = ("absolute", "quantile")
FLAT_RANGE = 1e-8


@register_method
@dataclass(frozen=True)
class PGPO(Method):
    """Hyper-parameters of :func:`token_weights`, applied to the sampled k3 divergence."""

    name: ClassVar[str] = "pgpo"

    threshold: float = bounded(0.4, 0.0, 1.0)
    boost: float = bounded(2.0, 0.0, 1e6)
    threshold_mode: str = choice(*THRESHOLD_MODES)
    low_weight_floor: float = bounded(0.0, 0.0, 1.0)
    conserve_mass: bool = True

    def signals(self) -> frozenset[str]:
        return frozenset() if self._is_neutral() else frozenset({ABLATED_LOG_PROB})

    def advantage_weights(self, signals: RolloutSignals) -> Tensor | None:
        if self._is_neutral():
            return None
        if signals.ablated_log_prob is None:
            raise ValueError("pgpo: the ablated view was not measured")
        weights = token_weights(
            sampled_k3(signals.old_log_prob, signals.ablated_log_prob),
            signals.response_mask,
            threshold=self.threshold,
            boost=self.boost,
            threshold_mode=self.threshold_mode,  # type: ignore[arg-type]
            low_weight_floor=self.low_weight_floor,
            conserve_mass=self.conserve_mass,
        )
        # Without an image both views are the same, up to the noise of another split into micro-batches.
        return torch.where(signals.has_image[:, None], weights, signals.response_mask.to(weights.dtype))

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
    _check(visual_dependency, response_mask, threshold, boost, threshold_mode, low_weight_floor)
    valid = response_mask != 0
    scores, flat = _normalised_scores(visual_dependency.detach(), valid)
    tau = _thresholds(scores, valid, threshold, threshold_mode)
    weights = _two_sided_ramp(scores, tau, boost, low_weight_floor)
    weights = weights.masked_fill(flat, 1.0).masked_fill(~valid, 0.0)
    return _conserve_mass(weights, valid) if conserve_mass else weights


def _normalised_scores(dependency: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Min-max normalised log(1 + S) (B, T), meaningless outside the mask; and (B, 1), true where a row has no range."""
    dtype = torch.promote_types(dependency.dtype, torch.float32)
    x = torch.log1p(dependency.to(dtype).masked_fill(~valid, 0.0))
    low = x.masked_fill(~valid, torch.inf).amin(dim=-1, keepdim=True)
    span = x.masked_fill(~valid, -torch.inf).amax(dim=-1, keepdim=True) - low
    flat = span <= FLAT_RANGE
    scores = (x - low) / span.masked_fill(flat, 1.0)
    return scores.masked_fill(flat, 0.0), flat


def _thresholds(scores: Tensor, valid: Tensor, threshold: float, mode: ThresholdMode) -> Tensor:
    """(B, 1) threshold of each row."""
    if mode == "absolute":
        return torch.full_like(scores[:, :1], threshold)
    count = valid.sum(dim=-1, keepdim=True)
    # float64: float32 rounds n * threshold across an integer for some lengths.
    index = (count.double() * threshold).floor().long()
    index = torch.minimum(index, count - 1).clamp(min=0)
    ascending = scores.masked_fill(~valid, torch.inf).sort(dim=-1).values
    return ascending.gather(-1, index)


def _two_sided_ramp(scores: Tensor, tau: Tensor, boost: float, floor: float) -> Tensor:
    """Suppress below ``tau``, amplify above; tau = 0 has nothing below it and tau = 1 nothing above."""
    below = (scores / tau.masked_fill(tau <= 0.0, 1.0)).clamp(min=floor)
    above = 1.0 + boost * (scores - tau) / (1.0 - tau).masked_fill(tau >= 1.0, 1.0)
    return torch.where(scores < tau, below, above)


def _conserve_mass(weights: Tensor, valid: Tensor) -> Tensor:
    """Scale each row to sum to its length. A row's top token weighs at least 1, so only empty rows meet the clamp."""
    count = valid.sum(dim=-1, keepdim=True)
    return weights * (count / weights.sum(dim=-1, keepdim=True).clamp(min=1.0))


def _check(
    visual_dependency: Tensor, response_mask: Tensor, threshold: float, boost: float, mode: str, floor: float
) -> None:
    if visual_dependency.ndim != 2 or not visual_dependency.is_floating_point():
        raise ValueError(
            f"visual_dependency has shape {tuple(visual_dependency.shape)} and dtype {visual_dependency.dtype}; "
            "it must be a floating-point tensor of shape (B, T)"
        )
    if response_mask.shape != visual_dependency.shape:
        raise ValueError(
            f"response_mask has shape {tuple(response_mask.shape)}; it must equal visual_dependency's "
            f"{tuple(visual_dependency.shape)}"
        )
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold!r}; it must be in [0, 1]")
    if not 0.0 <= boost < float("inf"):
        raise ValueError(f"boost is {boost!r}; it must be finite and >= 0")
    if mode not in THRESHOLD_MODES:
        raise ValueError(f"threshold_mode is {mode!r}; it must be one of {THRESHOLD_MODES}")
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"low_weight_floor is {floor!r}; it must be in [0, 1]")
