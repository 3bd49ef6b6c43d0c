# SPDX-License-Identifier: Apache-2.0
"""VGPO: advantages scaled by how much each token and each response looks at the image (arXiv 2604.09349).

The formulas follow ``verl/workers/actor/dp_actor.py`` and ``verl/trainer/core_algos.py`` of the official code.
Deviations: groups are those of ``group_ids``, not runs of adjacent rows; the tokens of responses with constant scores
are left alone; responses without an image or without a valid token are left alone and do not shift their group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from verl_ext.methods.base import Method, RolloutSignals, bounded, choice
from verl_ext.methods.registry import register_method
from verl_ext.methods.visual_factors import token_factors, trajectory_factors
from verl_ext.methods.visual_weights import OFFSETS, compensation_ramp, visual_weights
from verl_ext.signals.request import Signal, Similarity

__all__ = ["VGPO", "VISUAL_FOCUS", "compensation_ramp", "token_factors", "trajectory_factors", "visual_weights"]


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
