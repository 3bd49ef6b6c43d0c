# SPDX-License-Identifier: Apache-2.0
"""ToR: train on the tokens that decide and, at half weight, on those that look (arXiv 2603.25077, second-hand).

No code was published and the formula was read in secondary sources. Deviations: the view without the image keeps the
positions of the text (the paper removes the image from the prompt), and ties at a threshold are left out instead of
broken at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verl_ext.methods.base import Method, RolloutSignals, bounded
from verl_ext.methods.registry import register_method
from verl_ext.methods.rows import check_range, check_rows, check_tokens, kth_largest, prepared
from verl_ext.signals.request import MAIN_VIEW, AblatedLogProb, Entropy, Signal


@register_method
@dataclass(frozen=True)
class ToR(Method):
    """Hyper-parameters of :func:`token_weights`."""

    name: ClassVar[str] = "tor"
    selects_tokens: ClassVar[bool] = True

    entropy_fraction: float = bounded(0.3, 0.0, 1.0)
    visual_fraction: float = bounded(0.3, 0.0, 1.0)
    reasoning_weight: float = bounded(1.0, 0.0, 1e6)
    perception_weight: float = bounded(0.5, 0.0, 1e6)
    other_weight: float = bounded(0.0, 0.0, 1e6)
    top_p: float = bounded(0.95, 1e-6, 1.0)
    view: str = MAIN_VIEW

    def signals(self) -> frozenset[Signal]:
        return frozenset() if self._is_neutral() else frozenset({Entropy(self.top_p), AblatedLogProb(self.view)})

    def advantage_weights(self, signals: RolloutSignals) -> Tensor | None:
        if self._is_neutral():
            return None
        return token_weights(
            signals[Entropy(self.top_p)],
            (signals.old_log_prob - signals[AblatedLogProb(self.view)]).abs(),
            signals.response_mask,
            has_image=signals.has_image,
            entropy_fraction=self.entropy_fraction,
            visual_fraction=self.visual_fraction,
            reasoning_weight=self.reasoning_weight,
            perception_weight=self.perception_weight,
            other_weight=self.other_weight,
        )

    def _is_neutral(self) -> bool:
        return self.reasoning_weight == self.perception_weight == self.other_weight == 1.0


def token_weights(
    entropy: Tensor,
    visual_difference: Tensor,
    response_mask: Tensor,
    *,
    has_image: Tensor,
    entropy_fraction: float = 0.3,
    visual_fraction: float = 0.3,
    reasoning_weight: float = 1.0,
    perception_weight: float = 0.5,
    other_weight: float = 0.0,
) -> Tensor:
    """Per-token multipliers of the advantage.

    Over all valid tokens of the batch: `reasoning_weight` for the `entropy_fraction` of them with the highest entropy,
    `perception_weight` for the `visual_fraction` with the largest visual difference that are not among those,
    `other_weight` for the rest. Tokens that tie at a threshold and do not all fit are left out, so that the result
    does not depend on the order of the batch. Rows without an image get 1 on every valid token and are not counted.

    Args:
        entropy: (B, T) floating point, nats; entropy of the top-p 0.95 truncated rollout policy.
        visual_difference: (B, T) floating point; |log-probability with the image - without it|.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        has_image: (B,), non-zero where the row has an image.
        entropy_fraction, visual_fraction: in [0, 1].
        reasoning_weight, perception_weight, other_weight: >= 0, finite.

    Returns:
        (B, T) float32 (float64 if an input is), detached, exactly 0 outside the mask.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.
    """
    check_tokens("entropy", entropy, response_mask)
    check_tokens("visual_difference", visual_difference, response_mask)
    check_rows("has_image", has_image, response_mask.shape[0])
    check_range("entropy_fraction", entropy_fraction, 0.0, 1.0)
    check_range("visual_fraction", visual_fraction, 0.0, 1.0)
    weights = {"reasoning_weight": reasoning_weight, "perception_weight": perception_weight}
    for name, value in {**weights, "other_weight": other_weight}.items():
        check_range(name, value, 0.0, torch.finfo(torch.float32).max)
    valid = response_mask != 0
    counted = valid & (has_image != 0)[:, None]
    reasoning = _highest(prepared(entropy, counted), counted, entropy_fraction)
    perception = _highest(prepared(visual_difference, counted), counted, visual_fraction)
    dtype = torch.promote_types(torch.promote_types(entropy.dtype, visual_difference.dtype), torch.float32)
    result = torch.full(valid.shape, other_weight, dtype=dtype, device=entropy.device)
    result = torch.where(perception, result.new_tensor(perception_weight), result)
    result = torch.where(reasoning, result.new_tensor(reasoning_weight), result)
    return torch.where(counted, result, valid.to(dtype))


def _highest(values: Tensor, counted: Tensor, fraction: float) -> Tensor:
    """(B, T) bool: at most `fraction` of the counted tokens, those with the highest values; tied ones all or none."""
    # float64: float32 rounds count * fraction across an integer for some counts.
    room = (counted.sum().double() * fraction).ceil().long()
    first_left_out = kth_largest(values.reshape(1, -1), counted.reshape(1, -1), (room + 1).reshape(1, 1))
    return counted & (values > first_left_out)
