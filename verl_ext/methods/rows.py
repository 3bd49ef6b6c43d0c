# SPDX-License-Identifier: Apache-2.0
"""What the methods share: checks of (B, T) inputs, and statistics over each row's valid tokens.

Every function takes `valid` (B, T) bool and ignores whatever stands outside it, also infinities and NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_tokens(name: str, values: Tensor, response_mask: Tensor) -> None:
    """Require `values` to be floating point, (B, T), and as large as the mask.

    Raises:
        ValueError: it is not.
    """
    if values.ndim != 2 or not values.is_floating_point():
        raise ValueError(
            f"{name} has shape {tuple(values.shape)} and dtype {values.dtype}; "
            "it must be a floating-point tensor of shape (B, T)"
        )
    if response_mask.shape != values.shape:
        raise ValueError(
            f"response_mask has shape {tuple(response_mask.shape)}; it must equal {name}'s {tuple(values.shape)}"
        )


def check_rows(name: str, values: Tensor, rows: int) -> None:
    """Require one entry a row.

    Raises:
        ValueError: `values` is not (B,).
    """
    if values.shape != (rows,):
        raise ValueError(f"{name} has shape {tuple(values.shape)}; it must be ({rows},), one entry a row")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Require low <= value <= high.

    Raises:
        ValueError: it is not, or is NaN.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be in [{low:g}, {high:g}]")


def prepared(values: Tensor, valid: Tensor) -> Tensor:
    """Detached, float32 or better, 0 outside the mask."""
    values = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    return torch.where(valid, values, values.new_zeros(()))


def row_count(valid: Tensor) -> Tensor:
    """(B, 1) long: number of valid tokens."""
    return valid.sum(dim=-1, keepdim=True)


def row_mean(values: Tensor, valid: Tensor) -> Tensor:
    """(B, 1) mean of `prepared` values; 0 for an empty row."""
    return values.sum(dim=-1, keepdim=True) / row_count(valid).clamp(min=1)


def row_range(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1) smallest and largest of `prepared` values; both 0 for an empty row."""
    # Adding a large number outside the mask is several times faster than selecting, and exact inside it.
    outside = (~valid).to(values.dtype) * torch.finfo(values.dtype).max / 4
    some = valid.any(dim=-1, keepdim=True)
    low, high = (values + outside).amin(-1, keepdim=True), (values - outside).amax(-1, keepdim=True)
    return low * some, high * some


def kth_largest(values: Tensor, valid: Tensor, k: Tensor, most: int) -> Tensor:
    """(B, 1) the k-th largest valid value of each row; meaningless where k is 0 or exceeds the valid tokens.

    Args:
        values: (B, T) prepared.
        valid: (B, T) bool.
        k: (B, 1) long, at most `most`.
        most: bound known without reading `k` back from the device.
    """
    most = max(1, min(most, values.shape[-1]))
    top = torch.where(valid, values, values.new_full((), -math.inf)).topk(most, dim=-1).values
    return top.gather(-1, (k - 1).clamp(0, most - 1))


def largest(values: Tensor, valid: Tensor, k: Tensor, most: int) -> Tensor:
    """(B, T) bool: the k largest valid values of each row, exactly k, the earlier token first among equals."""
    threshold = kth_largest(values, valid, k, most)
    above, equal = valid & (values > threshold), valid & (values == threshold)
    room = k - above.sum(dim=-1, keepdim=True)
    return (above | (equal & (equal.cumsum(dim=-1, dtype=torch.int32) <= room))) & (k > 0)
