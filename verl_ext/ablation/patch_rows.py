# SPDX-License-Identifier: Apache-2.0
"""Black out random patches of images that a Qwen-VL processor has already cut into rows."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from verl_ext.ablation.layout import check_merge_size, check_normalisation, in_row_order, read_grids, uniform_row


def random_patch_rows(
    pixel_values: Tensor,
    image_grid_thw: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    merge_size: int,
    probability: float = 0.6,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Set each patch row to black with the given probability, independently.

    A row is one vision patch of the RESIZED image (14 x 14 pixels for Qwen2-VL and Qwen2.5-VL, 16 x 16 for Qwen3-VL).
    One uniform number is drawn per patch line by line over the image, as in ``random_patch``, and then follows its
    patch to where the processor put it. Equal draws therefore black out the same places as ``random_patch`` on the
    resized image with the vision patch for its ``patch_size``; PAPO itself masks before the resize.

    Args:
        pixel_values: (N, C * Tp * P * P) floating point, channel-major rows, all images concatenated.
        image_grid_thw: (n_images, 3) integer patch counts; sum of t * h * w is N. Read on the host.
        mean, std: C numbers each, the processor's normalisation; black is ``(0 - mean) / std`` per channel.
        merge_size: patches along one side of a merge block (2 for Qwen-VL); divides every h and w.
        probability: in [0, 1].
        generators: one CPU generator per image, advanced by that image's number of rows. The draws of an image depend
            on its generator alone, not on the images batched with it.

    Returns:
        New tensor of the shape, dtype and device of ``pixel_values``.

    Raises:
        ValueError: an argument is out of range, or counts and shapes disagree.

    Source: PAPO (arXiv 2507.06448), see ``random_patch``.
    """
    grids = read_grids(pixel_values, image_grid_thw, generators)
    check_normalisation(pixel_values, mean, std)
    check_merge_size(grids, merge_size)
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability is {probability!r}; it must be in [0, 1]")
    draws = [
        in_row_order(torch.rand(math.prod(grid), generator=generator, dtype=torch.float64), grid, merge_size)
        for grid, generator in zip(grids, generators, strict=True)
    ]
    black = torch.cat([torch.empty(0, dtype=torch.float64), *draws]) < probability
    black_row = uniform_row(pixel_values, mean, std, level=0.0)
    return torch.where(black.to(pixel_values.device).unsqueeze(-1), black_row, pixel_values)
