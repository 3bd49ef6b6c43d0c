# SPDX-License-Identifier: Apache-2.0
"""From signals to weighted advantages, over one whole rollout batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from verl_ext.methods.base import Method, RolloutSignals


def combined_weights(methods: Sequence[Method], signals: RolloutSignals) -> Tensor | None:
    """(B, T) product of the methods' advantage weights; None if no method weights advantages.

    Raises:
        FloatingPointError: a weight is not finite; names the method and the row.
    """
    named = [(method.name, method.advantage_weights(signals)) for method in methods]
    weights = [_finite(name, weight) for name, weight in named if weight is not None]
    return reduce(torch.mul, weights) if weights else None


def group_ids(uids: Sequence[str]) -> Tensor:
    """(B,) long: a small number for each uid, in order of appearance."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(uid, len(numbers)) for uid in uids], dtype=torch.long)


def _finite(name: str, weights: Tensor) -> Tensor:
    bad = (~torch.isfinite(weights)).any(dim=-1).nonzero().flatten().tolist()
    if bad:
        raise FloatingPointError(f"{name}: advantage weights of rows {bad[:5]} are not finite; the step is not taken")
    return weights
