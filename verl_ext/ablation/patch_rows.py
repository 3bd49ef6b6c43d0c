# SPDX-License-Identifier: Apache-2.0
"""Black out random patches of images that a Qwen-VL processor has already cut into rows."""

from collections.abc import Sequence

import torch
from torch import Tensor


def random_patch_rows(
    pixel_values: Tensor,
    image_grid_thw: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    probability: float = 0.6,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Set each patch row to black with the given probability, independently.

    A row is one vision patch of the RESIZED image (14 x 14 pixels for Qwen2-VL and Qwen2.5-VL, 16 x 16 for Qwen3-VL),
    whatever the order of the rows: processors emit them grouped in merge blocks rather than line by line. The draws are
    independent and alike, so that order does not change the distribution of the masked image; it only means that equal
    draws black out other places than in ``random_patch``, which also works before the resize.

    Args:
        pixel_values: (N, C * Tp * P * P) floating point, channel-major rows, all images concatenated.
        image_grid_thw: (n_images, 3) integer patch counts; sum of t * h * w is N. Read on the host.
        mean, std: C numbers each, the processor's normalisation; black is ``(0 - mean) / std`` per channel.
        probability: in [0, 1].
        generators: one CPU generator per image, advanced by that image's number of rows. The draws of an image depend
            on its generator alone, not on the images batched with it.

    Returns:
        New tensor of the shape, dtype and device of ``pixel_values``.

    Raises:
        ValueError: an argument is out of range, or counts and shapes disagree.
    """
    _check(pixel_values, image_grid_thw, mean, std, probability)
    counts = _rows_per_image(pixel_values, image_grid_thw, generators)
    draws = [torch.rand(count, generator=g, dtype=torch.float64) for count, g in zip(counts, generators, strict=True)]
    black = torch.cat([torch.empty(0, dtype=torch.float64), *draws]) < probability
    return torch.where(black.to(pixel_values.device).unsqueeze(-1), _black_row(pixel_values, mean, std), pixel_values)


def _black_row(pixel_values: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(C * Tp * P * P,) a black patch after normalisation."""
    channels = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float64)
    row = channels.repeat_interleave(pixel_values.shape[1] // len(mean))
    return row.to(dtype=pixel_values.dtype, device=pixel_values.device)


def _rows_per_image(pixel_values: Tensor, image_grid_thw: Tensor, generators: Sequence[torch.Generator]) -> list[int]:
    counts: list[int] = image_grid_thw.prod(dim=-1).tolist()
    if sum(counts) != pixel_values.shape[0]:
        raise ValueError(
            f"pixel_values has {pixel_values.shape[0]} rows; image_grid_thw asks for {sum(counts)} (sum of t * h * w)"
        )
    if len(generators) != len(counts):
        raise ValueError(f"generators has {len(generators)} entries; it must have {len(counts)}, one per image")
    for index, generator in enumerate(generators):
        if generator.device.type != "cpu":
            raise ValueError(f"generators[{index}] is on {generator.device}; it must be on the CPU")
    return counts


def _check(
    pixel_values: Tensor, image_grid_thw: Tensor, mean: Sequence[float], std: Sequence[float], probability: float
) -> None:
    if pixel_values.ndim != 2 or not pixel_values.is_floating_point():
        raise ValueError(
            f"pixel_values has shape {tuple(pixel_values.shape)} and dtype {pixel_values.dtype}; "
            "it must be a floating-point tensor of shape (rows, C * Tp * P * P)"
        )
    if image_grid_thw.ndim != 2 or image_grid_thw.shape[1] != 3 or image_grid_thw.is_floating_point():
        raise ValueError(
            f"image_grid_thw has shape {tuple(image_grid_thw.shape)} and dtype {image_grid_thw.dtype}; "
            "it must be an integer tensor of shape (images, 3)"
        )
    if len(mean) == 0 or len(mean) != len(std) or pixel_values.shape[1] % len(mean):
        raise ValueError(
            f"mean has {len(mean)} and std {len(std)} entries; both must have one per channel, and the "
            f"{pixel_values.shape[1]} columns of pixel_values must divide evenly into channels"
        )
    if not all(value > 0.0 for value in std):
        raise ValueError(f"std is {tuple(std)!r}; every entry must be > 0")
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability is {probability!r}; it must be in [0, 1]")
