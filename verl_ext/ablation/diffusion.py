# SPDX-License-Identifier: Apache-2.0
"""Diffuse images that a Qwen-VL processor has already cut into rows."""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from verl_ext.ablation.layout import check_frames, is_int, read_grids, still_noise

STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 0.02


def vp_diffusion_rows(
    pixel_values: Tensor,
    image_grid_thw: Tensor,
    *,
    step: int,
    channels: int,
    temporal_patch_size: int,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """The normalised pixels after `step` steps of variance-preserving forward diffusion.

    ``x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps`` with eps standard normal and
    ``abar_t = (1 - beta_1) ... (1 - beta_t)``: step 0 is the image itself, step 1000 all but pure noise. Pixels of unit
    variance, which normalisation gives on average, keep it.

    A row holds ``temporal_patch_size`` copies of a still image's patch. All copies of a pixel get the same noise, so
    that the diffused view is a still image too.

    Args:
        pixel_values: (N, C * Tp * P * P) floating point, channel-major rows of still images, all concatenated.
        image_grid_thw: (n_images, 3) integer patch counts; sum of t * h * w is N. Read on the host.
        step: t, an int in [0, 1000].
        channels: C.
        temporal_patch_size: Tp.
        generators: one CPU generator per image, advanced by that image's N * C * P * P normal numbers, whatever the
            step. The noise of an image depends on its generator alone, not on the images batched with it.

    Returns:
        New tensor of the shape, dtype and device of ``pixel_values``; the sum is computed in fp32 or better.

    Raises:
        ValueError: an argument is out of range, or counts and shapes disagree.

    Source: the view of DVRP (arXiv 2601.06801), known only second-hand. What could be read of it names the process and
    the step but not the betas, nor whether pixels are normalised before; the 1000 betas, linear from 1e-4 to 0.02, are
    those of Ho et al. 2020 (arXiv 2006.11239), an assumption.
    """
    grids = read_grids(pixel_values, image_grid_thw, generators)
    check_frames(pixel_values, channels, temporal_patch_size)
    if not is_int(step) or not 0 <= step <= STEPS:
        raise ValueError(f"step is {step!r}; it must be an int in [0, {STEPS}]")
    kept = signal_power(step)
    noise = still_noise(pixel_values, grids, generators, channels, temporal_patch_size)
    # Scaling half-precision pixels would round them before the sum.
    clean = pixel_values.to(torch.promote_types(pixel_values.dtype, torch.float32))
    return (math.sqrt(kept) * clean + math.sqrt(1.0 - kept) * noise).to(pixel_values.dtype)


def annealed_step(progress: float, start: int = 500) -> int:
    """The diffusion step after a fraction of the run: nearly `start` at first, half of it midway, nearly 0 at the end.

    ``start * (1 - sigmoid(10 * (progress - 0.5)))``, rounded.

    Args:
        progress: in [0, 1].
        start: an int in [0, 1000].

    Raises:
        ValueError: an argument is out of range.

    Source: DVRP (arXiv 2601.06801), second-hand: ``500 * (1 - sigmoid(10 * (s - s_mid) / s_max))`` at training step s.
    That s_mid is half of s_max is our reading.
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress is {progress!r}; it must be in [0, 1]")
    if not is_int(start) or not 0 <= start <= STEPS:
        raise ValueError(f"start is {start!r}; it must be an int in [0, {STEPS}]")
    return round(start / (1.0 + math.exp(10.0 * (progress - 0.5))))


def signal_power(step: int) -> float:
    """abar: the share of the variance that is still the image after `step` steps, 1 after none."""
    return _signal_powers()[step]


@cache
def _signal_powers() -> list[float]:
    betas = torch.linspace(FIRST_BETA, LAST_BETA, STEPS, dtype=torch.float64)
    powers: list[float] = (1.0 - betas).cumprod(0).tolist()
    return [1.0, *powers]
