# SPDX-License-Identifier: Apache-2.0
"""The sampling temperature that logits are divided by."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def temperature_column(temperature: float | Tensor, tokens: torch.Size, like: Tensor) -> Tensor:
    """One temperature a token, ready to divide (N, V) logits.

    Args:
        temperature: a number > 0, or a floating-point tensor with one a token (values are not read on the host).
        tokens: the shape of one number a token; N is its product.
        like: gives dtype and device.

    Returns:
        (N, 1).

    Raises:
        ValueError: the number is not finite and > 0, or the tensor has another shape or dtype.
    """
    if isinstance(temperature, Tensor):
        if temperature.shape != tokens or not temperature.is_floating_point():
            raise ValueError(
                f"temperature has shape {tuple(temperature.shape)} and dtype {temperature.dtype}; "
                f"it must be a number or a floating-point tensor of shape {tuple(tokens)}"
            )
        return temperature.detach().to(like).reshape(-1, 1)
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature!r}; it must be finite and > 0")
    return like.new_full((tokens.numel(), 1), temperature)
