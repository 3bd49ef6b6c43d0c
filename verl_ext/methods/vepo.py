# SPDX-License-Identifier: Apache-2.0
"""VEPO: train on the fifth of the tokens that are uncertain and that noise in the image disturbs (arXiv 2606.03937).

The score follows the official ``verl/utils/jsd_masking.py`` (score type D). Deviations: the noise has the stated
strength (the release adds it once per rollout to shared pixels), the Jensen-Shannon divergence has no 1e-8 inside its
logarithm, and the average over the kept tokens is taken over the whole rollout batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verl_ext.methods.base import Method, RolloutSignals, bounded
from verl_ext.methods.registry import register_method
from verl_ext.methods.rows import check_range, check_rows, check_tokens, largest, prepared, row_count, row_range, where
from verl_ext.signals.request import MAIN_VIEW, Divergence, Entropy, Signal

FLAT_RANGE = 1e-8


@register_method
@dataclass(frozen=True)
class VEPO(Method):
    """Hyper-parameters of :func:`token_mask` and :func:`token_scores`."""

    name: ClassVar[str] = "vepo"
    selects_tokens: ClassVar[bool] = True

    top_fraction: float = bounded(0.2, 1e-6, 1.0)
    divergence_share: float = bounded(0.7, 0.0, 1.0)
    view: str = MAIN_VIEW

    def signals(self) -> frozenset[Signal]:
        if self._is_neutral():
            return frozenset()
        return frozenset({Divergence("jsd", self.view), Entropy(), Entropy(view=self.view)})

    def advantage_weights(self, signals: RolloutSignals) -> Tensor | None:
        if self._is_neutral():
            return None
        clean_entropy = signals[Entropy()]
        scores = token_scores(
            signals[Divergence("jsd", self.view)],
            (signals[Entropy(view=self.view)] - clean_entropy).abs(),
            clean_entropy,
            signals.response_mask,
            divergence_share=self.divergence_share,
        )
        kept = token_mask(scores, signals.response_mask, has_image=signals.has_image, top_fraction=self.top_fraction)
        # The loss is averaged over the kept tokens, verl's over all.
        return kept * (signals.response_mask.sum() / kept.sum().clamp(min=1.0))

    def _is_neutral(self) -> bool:
        return self.top_fraction == 1.0


def token_scores(
    divergence: Tensor,
    entropy_change: Tensor,
    entropy: Tensor,
    response_mask: Tensor,
    *,
    divergence_share: float = 0.7,
) -> Tensor:
    """``(1 - (1 - J)^a (1 - D)^(1 - a)) * H`` with J, D and H min-max normalised over each response.

    Args:
        divergence: (B, T) floating point; Jensen-Shannon divergence of the clean and the noisy view, J.
        entropy_change: (B, T); absolute difference of their entropies, D.
        entropy: (B, T); entropy of the clean view, H.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        divergence_share: a in [0, 1].

    Returns:
        (B, T) in [0, 1], float32 (float64 if an input is), detached, exactly 0 outside the mask.

    Raises:
        ValueError: a shape, a dtype or the share is outside what is listed above.
    """
    named = {"divergence": divergence, "entropy_change": entropy_change, "entropy": entropy}
    for name, values in named.items():
        check_tokens(name, values, response_mask)
    check_range("divergence_share", divergence_share, 0.0, 1.0)
    valid = response_mask != 0
    j, d, h = (_normalised(values, valid) for values in named.values())
    # The weighted geometric mean of 1 - J and 1 - D through logarithms, whose floor stands for 0.
    agreement = torch.lerp(_log_complement(d), _log_complement(j), divergence_share).exp_()
    return where(valid, agreement.neg_().add_(1.0).mul_(h), 0.0)


def token_mask(scores: Tensor, response_mask: Tensor, *, has_image: Tensor, top_fraction: float = 0.2) -> Tensor:
    """1 on the ``max(1, ceil(top_fraction * n))`` highest scores of each response of n tokens, else 0.

    Among equals the earlier token is kept. Responses without an image, or whose scores span at most 1e-8, keep all
    tokens.

    Args:
        scores: (B, T) floating point.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid.
        has_image: (B,), non-zero where the row has an image.
        top_fraction: in (0, 1].

    Returns:
        (B, T) float32 (float64 for float64 scores), detached, exactly 0 outside the mask.

    Raises:
        ValueError: a shape, a dtype or the fraction is outside what is listed above.
    """
    check_tokens("scores", scores, response_mask)
    check_rows("has_image", has_image, scores.shape[0])
    check_range("top_fraction", top_fraction, 1e-6, 1.0)
    valid = response_mask != 0
    values = prepared(scores, valid)
    count = row_count(valid)
    # float64: float32 rounds n * fraction across an integer for some lengths.
    k = torch.minimum((count.double() * top_fraction).ceil().long().clamp(min=1), count)
    low, high = row_range(values, valid)
    everything = (high - low <= FLAT_RANGE) | (has_image == 0)[:, None]
    kept = largest(values, valid, k)
    return (valid & (kept | everything)).to(values.dtype)


def _normalised(values: Tensor, valid: Tensor) -> Tensor:
    """A new (B, T) tensor, min-max normalised over each row; meaningless outside the mask."""
    scores = prepared(values, valid)
    low, high = row_range(scores, valid)
    return scores.sub_(low).div_((high - low).clamp(min=FLAT_RANGE))


def _log_complement(shares: Tensor) -> Tensor:
    """log(1 - shares), in place."""
    return shares.neg_().add_(1.0).clamp_(min=torch.finfo(shares.dtype).tiny).log_()
