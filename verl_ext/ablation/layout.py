# SPDX-License-Identifier: Apache-2.0
"""How a Qwen-VL processor lays images out as patch rows, and what every ablation of those rows checks.

A row is one vision patch of the RESIZED image: C * Tp * P * P normalised pixels, channel first, where a still image
fills its Tp frames with copies of itself. The rows of an image are grouped in merge blocks of m x m patches, the
patches that become one image token: their order is (t, h / m, w / m, m, m) over the grid (t, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Grid = tuple[int, int, int]
"""Patches of one image: (t, h, w)."""


@dataclass(frozen=True)
class PatchFormat:
    """How a processor writes its patch rows.

    Attributes:
        mean, std: the normalisation, one number per channel.
        merge_size: patches along one side of the square that becomes one image token.
        temporal_patch_size: frames in a row; a still image repeats itself in them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    merge_size: int
    temporal_patch_size: int


def uniform_row(pixel_values: Tensor, mean: Sequence[float], std: Sequence[float], level: float) -> Tensor:
    """(C * Tp * P * P,) a patch whose pixels all have `level` in [0, 1], normalised."""
    channels = torch.tensor([(level - m) / s for m, s in zip(mean, std, strict=True)], dtype=torch.float64)
    row = channels.repeat_interleave(pixel_values.shape[1] // len(mean))
    return row.to(dtype=pixel_values.dtype, device=pixel_values.device)


def in_row_order(values: Tensor, grid: Grid, merge_size: int) -> Tensor:
    """(t * h * w,) from line by line over the grid to the order of the processor's rows."""
    t, h, w = grid
    blocks = values.view(t, h // merge_size, merge_size, w // merge_size, merge_size)
    return blocks.transpose(2, 3).reshape(-1)


def still_noise(
    pixel_values: Tensor,
    grids: Sequence[Grid],
    generators: Sequence[torch.Generator],
    channels: int,
    temporal_patch_size: int,
) -> Tensor:
    """(N, C * Tp * P * P) fp32 standard normal, alike in all Tp frames; each image from its generator, row by row."""
    pixels = pixel_values.shape[1] // (channels * temporal_patch_size)
    draws = [
        torch.randn(t * h * w, channels, 1, pixels, generator=generator)
        for (t, h, w), generator in zip(grids, generators, strict=True)
    ]
    frame = torch.cat([torch.empty(0, channels, 1, pixels), *draws]).to(pixel_values.device)
    return frame.expand(-1, -1, temporal_patch_size, -1).reshape(pixel_values.shape)


def read_grids(pixel_values: Tensor, image_grid_thw: Tensor, generators: Sequence[torch.Generator]) -> list[Grid]:
    """The grid of each image, read on the host once it is known to fit the rows and generators.

    Raises:
        ValueError: shapes, dtypes or counts disagree, or a generator is not on the CPU.
    """
    check_pixels(pixel_values)
    if image_grid_thw.ndim != 2 or image_grid_thw.shape[1] != 3 or image_grid_thw.is_floating_point():
        raise ValueError(
            f"image_grid_thw has shape {tuple(image_grid_thw.shape)} and dtype {image_grid_thw.dtype}; "
            "it must be an integer tensor of shape (images, 3)"
        )
    grids = [(t, h, w) for t, h, w in image_grid_thw.tolist()]
    rows = sum(t * h * w for t, h, w in grids)
    if rows != pixel_values.shape[0]:
        raise ValueError(
            f"pixel_values has {pixel_values.shape[0]} rows; image_grid_thw asks for {rows} (sum of t * h * w)"
        )
    if len(generators) != len(grids):
        raise ValueError(f"generators has {len(generators)} entries; it must have {len(grids)}, one per image")
    for index, generator in enumerate(generators):
        if generator.device.type != "cpu":
            raise ValueError(f"generators[{index}] is on {generator.device}; it must be on the CPU")
    return grids


def check_pixels(pixel_values: Tensor) -> None:
    """Raises: ValueError: not a floating-point matrix."""
    if pixel_values.ndim != 2 or not pixel_values.is_floating_point():
        raise ValueError(
            f"pixel_values has shape {tuple(pixel_values.shape)} and dtype {pixel_values.dtype}; "
            "it must be a floating-point tensor of shape (rows, C * Tp * P * P)"
        )


def check_normalisation(pixel_values: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises: ValueError: not one positive `std` and one `mean` per channel."""
    if len(mean) == 0 or len(mean) != len(std) or pixel_values.shape[1] % len(mean):
        raise ValueError(
            f"mean has {len(mean)} and std {len(std)} entries; both must have one per channel, and the "
            f"{pixel_values.shape[1]} columns of pixel_values must divide evenly into channels"
        )
    if not all(value > 0.0 for value in std):
        raise ValueError(f"std is {tuple(std)!r}; every entry must be > 0")


def check_merge_size(grids: Sequence[Grid], merge_size: int) -> None:
    """Raises: ValueError: not a positive int, or a grid does not divide into merge blocks."""
    if not is_int(merge_size) or merge_size < 1:
        raise ValueError(f"merge_size is {merge_size!r}; it must be an int >= 1")
    for index, (_, height, width) in enumerate(grids):
        if height % merge_size or width % merge_size:
            raise ValueError(
                f"image_grid_thw[{index}] is {height} x {width} patches; merge_size {merge_size} must divide both"
            )


def check_frames(pixel_values: Tensor, channels: int, temporal_patch_size: int) -> None:
    """Raises: ValueError: not positive ints, or the columns do not divide into channels and frames."""
    for name, value in (("channels", channels), ("temporal_patch_size", temporal_patch_size)):
        if not is_int(value) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be an int >= 1")
    if pixel_values.shape[1] % (channels * temporal_patch_size):
        raise ValueError(
            f"pixel_values has {pixel_values.shape[1]} columns; they must divide evenly into {channels} channels of "
            f"{temporal_patch_size} frames (channels, temporal_patch_size)"
        )


def is_int(value: object) -> bool:
    """Whether `value` is an int and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)
