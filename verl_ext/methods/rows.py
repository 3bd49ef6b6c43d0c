# SPDX-License-Identifier: Apache-2.0
"""What the methods share: checks of (B, T) inputs, and statistics over each row's valid tokens.

Every function takes `valid` (B, T) bool and ignores whatever stands outside it, also infinities and NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
"""Of the same size as the floating-point type."""


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


def check_non_negative(name: str, value: float) -> None:
    """Require 0 <= value < inf.

    Raises:
        ValueError: it is not, or is NaN.
    """
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be finite and >= 0")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Require `value` to be one of `choices`.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {tuple(choices)}")


def prepared(values: Tensor, valid: Tensor) -> Tensor:
    """Detached, float32 or better, 0 outside the mask."""
    values = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    return where(valid, values, 0.0)


def where(condition: Tensor, values: Tensor, otherwise: float) -> Tensor:
    """`values` or a number, in the dtype of `values`; several times faster than `torch.where` with a Python number."""
    return torch.where(condition, values, values.new_full((), otherwise))


def row_count(valid: Tensor) -> Tensor:
    """(B, 1) long: number of valid tokens."""
    return valid.sum(dim=-1, keepdim=True)


def row_mean(values: Tensor, valid: Tensor) -> Tensor:
    """(B, 1) mean of `prepared` values; 0 for an empty row."""
    return values.sum(dim=-1, keepdim=True) / row_count(valid).clamp(min=1)


def row_range(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1) smallest and largest valid value; both 0 for an empty row."""
    if values.shape[-1] == 0:
        return values.new_zeros(values.shape[0], 1), values.new_zeros(values.shape[0], 1)
    some = row_count(valid) > 0
    low = where(valid, values, math.inf).amin(dim=-1, keepdim=True)
    high = where(valid, values, -math.inf).amax(dim=-1, keepdim=True)
    return torch.where(some, low, 0.0), torch.where(some, high, 0.0)


def kth_largest(values: Tensor, valid: Tensor, k: Tensor) -> Tensor:
    """(B, 1) the k-th largest valid value of each row; -inf beyond the valid tokens, NaN where k is 0.

    Bisects the ordered bit patterns of floating-point numbers: 32 or 64 counting passes, several times faster than
    sorting, and exact.

    Args:
        values: (B, T) float32 or float64.
        valid: (B, T) bool.
        k: (B, 1) long.
    """
    kept = where(valid, values, -math.inf)
    # A floating-point result of the comparison: counting one is several times faster than counting booleans.
    passing = torch.empty_like(kept)

    def reached(key: Tensor) -> Tensor:
        torch.ge(kept, _float_of(key, kept.dtype), out=passing)
        return passing.sum(dim=-1, keepdim=True) >= k

    integer = INTEGERS[kept.dtype]
    zero = k.new_zeros(k.shape, dtype=integer)
    key = torch.where(reached(zero), zero, _key_of(kept.new_full(k.shape, -math.inf)))
    for bit in reversed(range(torch.iinfo(integer).bits - 1)):
        higher = key + (1 << bit)
        key = torch.where(reached(higher), higher, key)
    return _float_of(key, kept.dtype)


def largest(values: Tensor, valid: Tensor, k: Tensor) -> Tensor:
    """(B, T) bool: the k largest valid values of each row, exactly k, the earlier token first among equals."""
    threshold = kth_largest(values, valid, k)
    above, equal = valid & (values > threshold), valid & (values == threshold)
    # 32-bit, like the positions compared with it: mixed integer types cost a conversion of all tokens.
    room = (k - row_count(above)).int()
    return above | (equal & (equal.cumsum(dim=-1, dtype=torch.int32) <= room))


def _key_of(values: Tensor) -> Tensor:
    """The bit patterns as integers in the order of the numbers."""
    integers = values.view(INTEGERS[values.dtype])
    return torch.where(integers < 0, integers ^ torch.iinfo(integers.dtype).max, integers)


def _float_of(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Inverse of `_key_of`."""
    return torch.where(keys < 0, keys ^ torch.iinfo(keys.dtype).max, keys).view(dtype)
