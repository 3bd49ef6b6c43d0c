# SPDX-License-Identifier: Apache-2.0
"""Add Gaussian noise to images that a Qwen-VL processor has already cut into rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from verl_ext.ablation.layout import check_frames, read_grids, still_noise


def gaussian_noise_rows(
    pixel_values: Tensor,
    image_grid_thw: Tensor,
    *,
    sigma: float,
    channels: int,
    temporal_patch_size: int,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Add independent N(0, sigma^2) to the normalised pixels.

    A row holds ``temporal_patch_size`` copies of a still image's patch. All copies of a pixel get the same noise, so
    that the noisy view is a still image too. The sum is not clamped to the range of real pixels.

    Args:
        pixel_values: (N, C * Tp * P * P) floating point, channel-major rows of still images, all concatenated.
        image_grid_thw: (n_images, 3) integer patch counts; sum of t * h * w is N. Read on the host.
        sigma: finite, >= 0, in units of the normalised pixels.
        channels: C.
        temporal_patch_size: Tp.
        generators: one CPU generator per image, advanced by that image's N * C * P * P normal numbers. The noise of an
            image depends on its generator alone, not on the images batched with it.

    Returns:
        New tensor of the shape, dtype and device of ``pixel_values``; the sum is computed in fp32 or better.

    Raises:
        ValueError: an argument is out of range, or counts and shapes disagree.

    Source: VEPO (arXiv 2606.03937), which uses sigma 2. Deviation: the noise is added once to a view; the released loop
    adds it again for every response that shares the image.
    """
    grids = read_grids(pixel_values, image_grid_thw, generators)
    check_frames(pixel_values, channels, temporal_patch_size)
    if not 0.0 <= sigma < float("inf"):
        raise ValueError(f"sigma is {sigma!r}; it must be finite and >= 0")
    noise = still_noise(pixel_values, grids, generators, channels, temporal_patch_size)
    return (pixel_values + sigma * noise).to(pixel_values.dtype)
