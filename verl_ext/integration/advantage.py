# SPDX-License-Identifier: Apache-2.0
"""From signals to weighted advantages, over one whole rollout batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from verl_ext.methods.base import Method, RolloutSignals
from verl_ext.signals.request import AblatedLogProb


def method_weights(methods: Sequence[Method], signals: RolloutSignals) -> dict[str, Tensor]:
    """(B, T) advantage weights of each method that has any, by its name.

    Raises:
        FloatingPointError: a weight is not finite; names the method and the row.
    """
    named = {method.name: method.advantage_weights(signals) for method in methods}
    return {name: _finite(name, weights) for name, weights in named.items() if weights is not None}


def refuse_broken(signals: RolloutSignals) -> None:
    """Stop before a broken number reaches a weight or the loss.

    Of log-probabilities -inf is none: a token may be impossible without the image.

    Raises:
        FloatingPointError: names the signal and the rows.
    """
    for signal, values in signals.measured.items():
        broken = torch.isnan(values) if isinstance(signal, AblatedLogProb) else ~torch.isfinite(values)
        bad = (broken & signals.response_mask).any(dim=-1).nonzero().flatten().tolist()
        if bad:
            raise FloatingPointError(f"{signal.field}: NaN or infinite in rows {bad[:5]}; the step is not taken")


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


def group_ids(uids: Sequence[str]) -> Tensor:
    """(B,) long: a small number for each uid, in order of appearance."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(uid, len(numbers)) for uid in uids], dtype=torch.long)


def _finite(name: str, weights: Tensor) -> Tensor:
    bad = (~torch.isfinite(weights)).any(dim=-1).nonzero().flatten().tolist()
    if bad:
        raise FloatingPointError(f"{name}: advantage weights of rows {bad[:5]} are not finite; the step is not taken")
    return weights
