# SPDX-License-Identifier: Apache-2.0
"""Replace images by a single shade of grey."""

from collections.abc import Sequence

from torch import Tensor

from verl_ext.ablation.layout import check_normalisation, check_pixels, uniform_row


def blank_rows(pixel_values: Tensor, *, mean: Sequence[float], std: Sequence[float], level: float = 0.0) -> Tensor:
    """Set every pixel to one level.

    Args:
        pixel_values: (N, C * Tp * P * P) floating point, channel-major rows, all images concatenated.
        mean, std: C numbers each, the processor's normalisation; a pixel becomes ``(level - mean) / std``.
        level: in [0, 1]; 0 is black, 1 white.

    Returns:
        New tensor of the shape, dtype and device of ``pixel_values``.

    Raises:
        ValueError: an argument is out of range, or shapes disagree.
    """
    check_pixels(pixel_values)
    check_normalisation(pixel_values, mean, std)
    if not 0.0 <= level <= 1.0:
        raise ValueError(f"level is {level!r}; it must be in [0, 1]")
    return uniform_row(pixel_values, mean, std, level).repeat(pixel_values.shape[0], 1)
