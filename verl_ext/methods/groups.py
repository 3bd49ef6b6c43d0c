# SPDX-License-Identifier: Apache-2.0
"""Statistics over the responses to one prompt, wherever they stand in a batch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import torch
from torch import Tensor

from verl_ext.methods import rows


def group_index(group_ids: Tensor | Sequence[Hashable], like: Tensor) -> Tensor:
    """(B,) long in [0, B), equal where the group is."""
    if isinstance(group_ids, Tensor):
        rows.check_rows("group_ids", group_ids, len(like))
        if group_ids.is_floating_point() or group_ids.is_complex() or group_ids.dtype == torch.bool:
            raise ValueError(f"group_ids has dtype {group_ids.dtype}; a tensor of ids must be of integers")
        ids = group_ids.to(device=like.device, dtype=torch.long)
        return torch.searchsorted(ids.sort().values, ids)
    if len(group_ids) != len(like):
        raise ValueError(f"group_ids has {len(group_ids)} entries; it must have {len(like)}, one a row")
    numbers: dict[Hashable, int] = {}
    return torch.tensor([_number(numbers, group) for group in group_ids], dtype=torch.long, device=like.device)


def _number(numbers: dict[Hashable, int], group: Hashable) -> int:
    """The number of `group`, a new one if it has none."""
    try:
        # Tensors hash by identity: each would be a group of its own.
        if not isinstance(group, Tensor):
            return numbers.setdefault(group, len(numbers))
    except TypeError:
        pass
    raise ValueError(f"group_ids holds {group!r} of type {type(group).__name__}; its entries must be hashable ids")


def per_group(values: Tensor, group: Tensor, counted: Tensor, reduce: Literal["amin", "amax", "mean"]) -> Tensor:
    """(B,) the counted entries of each row's group reduced; meaningless where the group has none."""
    neutral = {"amin": math.inf, "amax": -math.inf, "mean": 0.0}[reduce]
    entries = torch.where(counted, values, neutral)
    if reduce != "mean":
        return torch.full_like(values, neutral).scatter_reduce(0, group, entries, reduce)[group]
    total = torch.zeros_like(values).scatter_add(0, group, entries)
    return (total / torch.zeros_like(values).scatter_add(0, group, counted.to(values.dtype)).clamp(min=1.0))[group]
