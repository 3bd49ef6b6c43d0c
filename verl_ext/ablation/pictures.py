# SPDX-License-Identifier: Apache-2.0
"""From the patch rows of a Qwen-VL processor back to pictures: what the model was shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from verl_ext.ablation.layout import Grid, PatchFormat, check_frames, check_merge_size, check_normalisation


def pictures(pixel_values: Tensor, grids: Sequence[Grid], patch_format: PatchFormat) -> list[Tensor]:
    """The first frame of each image.

    Args:
        pixel_values: (N, C * Tp * P * P) floating point, channel-major rows, all images concatenated.
        grids: patches (t, h, w) of each image; the sum of t * h * w is N.
        patch_format: how the processor wrote the rows.

    Returns:
        One (h * P, w * P, C) uint8 tensor an image, after the processor's resize.

    Raises:
        ValueError: counts and shapes disagree.
    """
    channels = len(patch_format.mean)
    check_normalisation(pixel_values, patch_format.mean, patch_format.std)
    check_merge_size(grids, patch_format.merge_size)
    check_frames(pixel_values, channels, patch_format.temporal_patch_size)
    counts = [math.prod(grid) for grid in grids]
    if sum(counts) != pixel_values.shape[0]:
        raise ValueError(f"pixel_values has {pixel_values.shape[0]} rows; the grids ask for {sum(counts)}")
    return [
        _picture(rows.float(), grid, patch_format) for rows, grid in zip(pixel_values.split(counts), grids, strict=True)
    ]


def _picture(rows: Tensor, grid: Grid, patch_format: PatchFormat) -> Tensor:
    _, h, w = grid
    m, channels = patch_format.merge_size, len(patch_format.mean)
    side = math.isqrt(rows.shape[1] // (channels * patch_format.temporal_patch_size))
    patches = rows[: h * w].view(h // m, w // m, m, m, channels, patch_format.temporal_patch_size, side, side)
    # (h/m, w/m, m, m, C, P, P) -> (h/m, m, P, w/m, m, P, C)
    pixels = patches[..., 0, :, :].permute(0, 2, 5, 1, 3, 6, 4).reshape(h * side, w * side, channels)
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in (patch_format.mean, patch_format.std))
    return ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
