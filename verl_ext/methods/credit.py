# SPDX-License-Identifier: Apache-2.0
"""From signals to weighted advantages, over one whole rollout batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from verl_ext.methods.base import Method, RolloutSignals


def method_weights(methods: Sequence[Method], signals: RolloutSignals) -> dict[str, Tensor]:
    """(B, T) advantage weights of each method that has any, by its name."""
    named = {method.name: method.advantage_weights(signals) for method in methods}
    return {name: weights for name, weights in named.items() if weights is not None}


def combined(weights: Mapping[str, Tensor]) -> Tensor | None:
    """(B, T) product of the methods' weights; None if there are none."""
    return reduce(torch.mul, weights.values()) if weights else None


def without_equal_reward_groups(advantages: Tensor, rewards: Tensor, groups: Tensor) -> Tensor:
    """`advantages` with 0 for the responses of groups whose rewards are all the same, groups of one included.

    Args:
        advantages: (B, T).
        rewards: (B,) reward of each response.
        groups: (B,) long; equal for the responses to one prompt.
    """
    low, high = (
        torch.zeros_like(rewards).scatter_reduce(0, groups, rewards, reduce, include_self=False)
        for reduce in ("amin", "amax")
    )
    return advantages * (high > low)[groups][:, None]
