# SPDX-License-Identifier: Apache-2.0
"""The ablation of a specification, applied to patch rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verl_ext.ablation.blank import blank_rows
from verl_ext.ablation.diffusion import annealed_step, vp_diffusion_rows
from verl_ext.ablation.layout import PatchFormat
from verl_ext.ablation.noise import gaussian_noise_rows
from verl_ext.ablation.patch_rows import random_patch_rows
from verl_ext.ablation.spec import AblationSpec


def ablate_pixels(
    spec: AblationSpec,
    pixel_values: Tensor,
    image_grid_thw: Tensor,
    *,
    patch_format: PatchFormat,
    generators: Sequence[torch.Generator],
    progress: float = 0.0,
) -> Tensor:
    """Apply `spec` to the images of one or more rows.

    Args:
        spec: any kind but "drop_vision" and "shuffle_text", which are not about pixels.
        pixel_values: (N, C * Tp * P * P) floating point, channel-major rows, all images concatenated.
        image_grid_thw: (n_images, 3) integer patch counts; sum of t * h * w is N. Read on the host.
        patch_format: how the processor wrote the rows.
        generators: one CPU generator per image; kinds that draw nothing leave them alone.
        progress: fraction of the run in [0, 1], for strengths that change over it.

    Returns:
        New tensor of the shape, dtype and device of `pixel_values`.

    Raises:
        ValueError: the kind has no pixels to change, an argument is out of range, or counts and shapes disagree.
    """
    if spec.kind not in _ABLATIONS:
        raise ValueError(f"spec.kind is {spec.kind!r}; it must be one of {', '.join(_ABLATIONS)}")
    images = _Images(pixel_values, image_grid_thw, patch_format, generators, progress)
    return _ABLATIONS[spec.kind](spec, images)


@dataclass(frozen=True)
class _Images:
    pixel_values: Tensor
    grid: Tensor
    format: PatchFormat
    generators: Sequence[torch.Generator]
    progress: float


def _random_patch(spec: AblationSpec, images: _Images) -> Tensor:
    return random_patch_rows(
        images.pixel_values,
        images.grid,
        mean=images.format.mean,
        std=images.format.std,
        merge_size=images.format.merge_size,
        probability=spec.probability,
        generators=images.generators,
    )


def _blank(spec: AblationSpec, images: _Images) -> Tensor:
    return blank_rows(images.pixel_values, mean=images.format.mean, std=images.format.std, level=spec.level)


def _gaussian_noise(spec: AblationSpec, images: _Images) -> Tensor:
    return gaussian_noise_rows(
        images.pixel_values,
        images.grid,
        sigma=spec.sigma,
        channels=len(images.format.mean),
        temporal_patch_size=images.format.temporal_patch_size,
        generators=images.generators,
    )


def _vp_diffusion(spec: AblationSpec, images: _Images) -> Tensor:
    annealed = spec.diffusion_anneal
    return vp_diffusion_rows(
        images.pixel_values,
        images.grid,
        step=annealed_step(images.progress, spec.diffusion_step) if annealed else spec.diffusion_step,
        channels=len(images.format.mean),
        temporal_patch_size=images.format.temporal_patch_size,
        generators=images.generators,
    )


_ABLATIONS: Mapping[str, Callable[[AblationSpec, _Images], Tensor]] = {
    "random_patch": _random_patch,
    "blank": _blank,
    "gaussian_noise": _gaussian_noise,
    "vp_diffusion": _vp_diffusion,
}
