# SPDX-License-Identifier: Apache-2.0
"""PEPO: losses weighted by similarity to the image, gated by uncertainty (arXiv 2603.22847)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verl_ext.methods import rows
from verl_ext.methods.base import Method, RolloutSignals, bounded, choice
from verl_ext.methods.registry import register_method
from verl_ext.signals.request import Entropy, Signal, Similarity

RANGE_FLOOR = 1e-6


@register_method
@dataclass(frozen=True)
class PEPO(Method):
    """Hyper-parameters of :func:`token_weights` and :func:`schedule`.

    Attributes:
        schedule: "linear" gives the weights `strength * progress` of the say, "constant" `strength` throughout.
        strength: in [0, 1]; 0 leaves every advantage alone.
        score, layers: how hidden states are compared with the image's; see `visual_similarity`.
    """

    name: ClassVar[str] = "pepo"

    gate_alpha: float = bounded(0.05, 0.0, 1e6)
    temperature: float = bounded(1.8, 1e-6, 1e6)
    schedule: str = choice("linear", "constant")
    strength: float = bounded(1.0, 0.0, 1.0)
    score: str = choice("cosine", "dot", "l2", "l1")
    layers: str = choice("all", "last")
    normalised: bool = False

    def signals(self) -> frozenset[Signal]:
        return frozenset({self._similarity(), Entropy()}) if self.strength else frozenset()

    def advantage_weights(self, signals: RolloutSignals) -> Tensor | None:
        if not self.strength:
            return None
        weights = token_weights(
            signals[self._similarity()],
            signals[Entropy()],
            signals.response_mask,
            has_image=signals.has_image,
            gate_alpha=self.gate_alpha,
            temperature=self.temperature,
            normalised=self.normalised,
        )
        share = self.strength * (signals.progress if self.schedule == "linear" else 1.0)
        return schedule(weights, signals.response_mask, share)

    def _similarity(self) -> Similarity:
        return Similarity(self.score, self.layers, "pairwise_mean")


def token_weights(
    visual_similarity: Tensor,
    entropy: Tensor,
    response_mask: Tensor,
    *,
    has_image: Tensor,
    gate_alpha: float = 0.05,
    temperature: float = 1.8,
    normalised: bool = False,
) -> Tensor:
    """Per-token multipliers of the loss, before :func:`schedule`.

    Per response, over its n valid tokens, with ``nrm(x) = (x - min x) / max(max x - min x, 1e-6)``:
    ``c = nrm(VS) + nrm(H)``, ``gate = 1 + gate_alpha * tanh(c - mean c)`` and
    ``w = n * softmax(VS * gate / temperature)``. The weights of a response sum to n. ``normalised=True`` puts
    ``nrm(VS)`` in the place of ``VS`` in the softmax; it contrasts tokens more and is not the paper's method.

    A response without an image gets weight 1 on every valid token, an empty one 0.

    Args:
        visual_similarity: (B, T) floating point; VS, the cosine of ``verl_ext.signals.visual_similarity``.
        entropy: (B, T) floating point; H of the distribution that predicted the token.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        has_image: (B,) bool (any dtype, non-zero is true).
        gate_alpha: in [0, 1e6]; how far the gate may leave 1.
        temperature: in [1e-6, 1e6]; of the softmax over the response.
        normalised: see above.

    Returns:
        (B, T) float32 (float64 for float64 input), detached, exactly 0 outside the mask.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.

    Deviations from the released code: computed in float32 (there: the model's dtype), no gradient flows into the
    weights, and responses without an image or without a token are neutral (there: they are compared with all positions,
    and NaN).
    """
    rows.check_tokens("visual_similarity", visual_similarity, response_mask)
    rows.check_tokens("entropy", entropy, response_mask)
    rows.check_rows("has_image", has_image, len(response_mask))
    rows.check_range("gate_alpha", gate_alpha, 0.0, 1e6)
    rows.check_range("temperature", temperature, 1e-6, 1e6)
    valid = response_mask != 0
    similarity, uncertainty = rows.prepared(visual_similarity, valid), rows.prepared(entropy, valid)
    relative = _normalised(similarity, valid)
    gate = _gate(relative + _normalised(uncertainty, valid), valid, gate_alpha)
    logits = (relative if normalised else similarity) * gate / temperature
    weights = rows.row_count(valid) * rows.where(valid, logits, -math.inf).softmax(dim=-1)
    return torch.where((has_image != 0)[:, None], rows.where(valid, weights, 0.0), valid.to(weights.dtype))


def schedule(weights: Tensor, response_mask: Tensor, progress: float) -> Tensor:
    """Weights that grow in with training: ``1 - progress + progress * weights`` on valid tokens.

    Args:
        weights: (B, T) floating point; :func:`token_weights`.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid.
        progress: in [0, 1]; ``min(1, step / max(1, total_steps))``.

    Returns:
        (B, T) float32 (float64 for float64 input), detached, exactly 0 outside the mask.

    Raises:
        ValueError: a shape, a dtype or `progress` is outside what is listed above.
    """
    rows.check_tokens("weights", weights, response_mask)
    rows.check_range("progress", progress, 0.0, 1.0)
    valid = response_mask != 0
    return rows.where(valid, 1.0 - progress + progress * rows.prepared(weights, valid), 0.0)


def _normalised(values: Tensor, valid: Tensor) -> Tensor:
    """(B, T) min-max normalised per row; meaningless outside the mask."""
    low, high = rows.row_range(values, valid)
    return (values - low).div_((high - low).clamp(min=RANGE_FLOOR))


def _gate(evidence: Tensor, valid: Tensor, alpha: float) -> Tensor:
    """(B, T) multipliers around 1, above it where a token has more evidence than its response's mean."""
    mean = rows.row_mean(evidence * valid, valid)
    return (evidence - mean).tanh_().mul_(alpha).add_(1.0)
