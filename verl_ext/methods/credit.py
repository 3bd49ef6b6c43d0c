# SPDX-License-Identifier: Apache-2.0
"""From the methods' weights to the credit of one whole rollout batch, as the run's options change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from verl_ext.ablation.seeding import generators
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


def influence(progress: float, fade_over: float | None) -> float:
    """How much of the methods acts: 1, falling linearly to 0 over the share `fade_over` of the run.

    Args:
        progress: share of the training steps that are done.
        fade_over: share of the run in (0, 1]; None for no fading.
    """
    return 1.0 if fade_over is None else max(0.0, 1.0 - progress / fade_over)


def faded(weights: Tensor, response_mask: Tensor, share: float) -> Tensor:
    """(B, T) weights that lie between 1 (`share` 0) and themselves (`share` 1); 0 outside of the mask."""
    return weights if share == 1.0 else (1.0 + share * (weights - 1.0)) * response_mask


def shuffled(weights: Tensor, signals: RolloutSignals, seed: int, step: int) -> Tensor:
    """Each response's weights, permuted among its tokens.

    Args:
        weights: (B, T) advantage weights.
        signals: of the same rows.
        seed, step: of the run; with the response's log-probabilities they fix its permutation, whatever the order of
            the batch.

    Returns:
        New (B, T) tensor.
    """
    result = weights.clone()
    for row, mask in enumerate(signals.response_mask):
        (generator,) = generators(seed, step, 1, signals.old_log_prob[row][mask])
        own = weights[row][mask]
        result[row][mask] = own[torch.randperm(len(own), generator=generator)]
    return result
