# SPDX-License-Identifier: Apache-2.0
"""What a perception method is: hyper-parameters, the signals it needs, and where it acts.

A method is a frozen dataclass whose fields are its hyper-parameters. It acts at one or both of two places: a
multiplier of the advantage, and extra terms of the loss.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from verl_ext.signals.request import Signal


class _Measured:
    measured: Mapping[Signal, Tensor]

    def __getitem__(self, signal: Signal) -> Tensor:
        """(B, T) fp32 values of a signal.

        Raises:
            KeyError: nobody asked for it.
        """
        if signal not in self.measured:
            raise KeyError(f"{signal} was not measured; a method must name it in signals()")
        return self.measured[signal]


@dataclass(frozen=True)
class RolloutSignals(_Measured):
    """What was measured over one whole rollout batch under the rollout policy, padding rows excluded.

    Attributes:
        response_mask: (B, T) bool, true where a token counts.
        has_image: (B,) bool.
        group_ids: (B,) long; equal for the responses to one prompt.
        old_log_prob: (B, T) fp32.
        measured: the signals that the methods asked for, each (B, T) fp32.
        progress: share of the run's training steps that are done, in [0, 1].
    """

    response_mask: Tensor
    has_image: Tensor
    group_ids: Tensor
    old_log_prob: Tensor
    measured: Mapping[Signal, Tensor] = field(default_factory=dict)
    progress: float = 0.0


@dataclass(frozen=True)
class LossInputs(_Measured):
    """One micro-batch during the update.

    Attributes:
        log_prob: (B, T) fp32 with gradient.
        response_mask: (B, T) bool.
        has_image: (B,) bool.
        measured: the signals that the methods asked for, each (B, T) fp32 without gradient.
        steps_done: optimiser-independent count of finished training steps.
        total_steps: number of training steps of the run.
    """

    log_prob: Tensor
    response_mask: Tensor
    has_image: Tensor
    measured: Mapping[Signal, Tensor]
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
    """Base class of the methods. Subclasses are frozen dataclasses and override what they act on.

    Attributes:
        name: how the configuration calls it.
        selects_tokens: whether its weights are zero on most tokens. Two such methods are not composed.
        excludes: names of methods that it cannot be composed with, and why.
    """

    name: ClassVar[str]
    selects_tokens: ClassVar[bool] = False
    excludes: ClassVar[Mapping[str, str]] = {}

    def signals(self) -> frozenset[Signal]:
        """The signals needed with the present hyper-parameters; a neutral setting needs none."""
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
