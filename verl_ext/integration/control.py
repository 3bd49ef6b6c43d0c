# SPDX-License-Identifier: Apache-2.0
"""A control for experiments: weights of the same strength on other tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from verl_ext.ablation.seeding import generators
from verl_ext.methods.base import RolloutSignals


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
