# SPDX-License-Identifier: Apache-2.0
"""What a perception method is: hyper-parameters, the signals it needs, and where it acts.

A method is a frozen dataclass whose fields are its hyper-parameters. It acts at one or both of two places: a
multiplier of the advantage, and extra terms of the loss.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

ABLATED_LOG_PROB = "ablated_log_prob"
"""Signal: log-probabilities of the response tokens under the image-ablated view."""

SIGNALS = frozenset({ABLATED_LOG_PROB})
"""Every signal that the trainer can measure."""

LOGITS_SIGNALS: frozenset[str] = frozenset()
"""The signals that need the full logits, which fused kernels never produce."""


@dataclass(frozen=True)
class RolloutSignals:
    """What was measured over one whole rollout batch under the rollout policy, padding rows excluded.

    Attributes:
        response_mask: (B, T) bool, true where a token counts.
        has_image: (B,) bool.
        group_ids: (B,) long; equal for the responses to one prompt.
        old_log_prob: (B, T) fp32.
        ablated_log_prob: (B, T) fp32, or None if no method asked for it.
    """

    response_mask: Tensor
    has_image: Tensor
    group_ids: Tensor
    old_log_prob: Tensor
    ablated_log_prob: Tensor | None = None


@dataclass(frozen=True)
class LossInputs:
    """One micro-batch during the update.

    Attributes:
        log_prob: (B, T) fp32 with gradient.
        response_mask: (B, T) bool.
        has_image: (B,) bool.
        ablated_log_prob: (B, T) fp32 without gradient, or None.
        steps_done: optimiser-independent count of finished training steps.
        total_steps: number of training steps of the run.
    """

    log_prob: Tensor
    response_mask: Tensor
    has_image: Tensor
    ablated_log_prob: Tensor | None
    steps_done: int
    total_steps: int


@dataclass(frozen=True)
class LossTerm:
    """`coef * aggregate(values)`, to be added to the loss.

    Attributes:
        name: metric name, without prefix.
        values: (B, T) per-token values, zero outside the mask, differentiable where they should be.
        coef: signed coefficient.
        token_mean: average over all tokens of the mini-batch whatever `loss_agg_mode` the policy loss uses.
    """

    name: str
    values: Tensor
    coef: float
    token_mean: bool = False


@dataclass(frozen=True)
class Method(ABC):
    """Base class of the methods. Subclasses are frozen dataclasses and override what they act on."""

    name: ClassVar[str]

    def signals(self) -> frozenset[str]:
        """Names of the signals needed with the present hyper-parameters; a neutral setting needs none."""
        return frozenset()

    def advantage_weights(self, signals: RolloutSignals) -> Tensor | None:
        """(B, T) multipliers of the advantage, detached and zero outside the mask; None leaves advantages alone."""
        return None

    def loss_terms(self, inputs: LossInputs) -> list[LossTerm]:
        """Terms to add to the policy loss; an empty list leaves it alone."""
        return []


def bounded(default: Any, low: float, high: float) -> Any:
    """A dataclass field whose value must lie in [low, high] when the configuration is read."""
    return field(default=default, metadata={"bounds": (low, high)})


def choice(default: str, *others: str) -> Any:
    """A dataclass field whose value must be `default` or one of `others` when the configuration is read."""
    return field(default=default, metadata={"choices": (default, *others)})
