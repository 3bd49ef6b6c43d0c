# SPDX-License-Identifier: Apache-2.0
"""Which picture is it? A number made of every bit of its patch rows, on the device that has them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

Picture = tuple[int, ...]
"""Frames, height and width in patches, and the fingerprint of the rows."""

ROWS = 128
"""Mixed at a time, in a cache."""
WORD = 8
LOW_HALF = 0xFFFFFFFF
STEP = -7046029254386353131
MULTIPLIER = -4658895280553007687


def pictures_of(pixel_values: Tensor, grid: Tensor) -> list[Picture]:
    """The identity of each of some pictures; waits for the device once.

    Args:
        pixel_values: (N, D) patch rows, one picture behind another.
        grid: (pictures, 3) long; frames, height and width of each in patches.
    """
    sizes = grid.tolist()
    parts = pixel_values.split([frames * height * width for frames, height, width in sizes])
    prints = torch.stack([fingerprint(part) for part in parts]).tolist() if parts else []
    return [(*size, found) for size, found in zip(sizes, prints, strict=True)]


def fingerprint(rows: Tensor) -> Tensor:
    """() long: a hash of the bits of (N, D) rows and of their order, the same on every device.

    Pictures that differ by as little as one bit have different ones but for a chance below 2^-30; it is no defence
    against an opponent.
    """
    words = _words(rows.detach())
    weights = _weights(words.shape[1]).to(words.device)
    mixed = torch.cat([_folded(_folded(part) * weights).sum(1) for part in words.split(ROWS)])
    places = torch.arange(len(mixed), device=mixed.device)
    return _folded(_folded(_folded(mixed + places * STEP) * MULTIPLIER) * STEP).sum()


def _words(rows: Tensor) -> Tensor:
    """(N, W) long: the same bits, filled up with zeros to whole words."""
    size = rows.element_size()
    missing = -rows.shape[1] % (WORD // size)
    return (pad(rows, (0, missing)) if missing else rows.contiguous()).view(torch.int64)


def _folded(values: Tensor) -> Tensor:
    """The high bits, which a product fills and is blind to, also in the low ones."""
    return values ^ ((values >> 32) & LOW_HALF)


@cache
def _weights(columns: int) -> Tensor:
    """(columns,) long, odd: products with them lose nothing."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (columns,), generator=generator) * 2 + 1
