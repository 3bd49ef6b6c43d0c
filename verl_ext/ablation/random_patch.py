# SPDX-License-Identifier: Apache-2.0
"""Black out random square patches of an image."""

from typing import TypeVar

import numpy as np
from PIL import Image

Picture = TypeVar("Picture", Image.Image, np.ndarray)


def random_patch(
    image: Picture,
    *,
    patch_size: int = 14,
    probability: float = 0.6,
    generator: np.random.Generator | np.random.RandomState,
) -> Picture:
    """Black out each ``patch_size`` square with the given probability, independently.

    One uniform number is drawn per patch in row-major order, all in one call; a patch turns black when its number is
    below ``probability``. Patches cut off by the right and lower edge count as patches.

    Args:
        image: PIL image of any mode that converts to RGB (converted before masking), or (H, W, 3) uint8 array.
        patch_size: int >= 1, in pixels.
        probability: in [0, 1].
        generator: numpy ``Generator`` or ``RandomState``; advanced by the number of patches.

    Returns:
        A new RGB image or array; the kind that came in. The input is not modified.

    Raises:
        ValueError: an argument is out of range, or the array is not (H, W, 3) uint8.
        TypeError: ``image`` or ``generator`` is of another type.

    Source: PAPO (arXiv 2507.06448), ``verl/trainer/papo_utils.py:random_patch_blackening``. Deviations: conversion to
    RGB comes first, and the generator is explicit.
    """
    _check(patch_size, probability, generator)
    if isinstance(image, Image.Image):
        pixels = np.asarray(_in_rgb(image))
        return Image.fromarray(_blacken(pixels, patch_size, probability, generator))
    _check_array(image)
    return _blacken(image, patch_size, probability, generator)


def _in_rgb(image: Image.Image) -> Image.Image:
    # Pillow converts premultiplied alpha only to the same mode without it.
    plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return (image.convert(plain) if plain else image).convert("RGB")


def _blacken(
    pixels: np.ndarray, patch_size: int, probability: float, generator: np.random.Generator | np.random.RandomState
) -> np.ndarray:
    height, width = pixels.shape[:2]
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    black = (generator.random(rows * columns) < probability).reshape(rows, columns)
    black = black.repeat(patch_size, axis=0)[:height].repeat(patch_size, axis=1)[:, :width]
    return np.where(black[..., None], np.uint8(0), pixels)


def _check(patch_size: int, probability: float, generator: object) -> None:
    if not isinstance(patch_size, int) or patch_size < 1:
        raise ValueError(f"patch_size is {patch_size!r}; it must be an int >= 1")
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability is {probability!r}; it must be in [0, 1]")
    if not isinstance(generator, np.random.Generator | np.random.RandomState):
        raise TypeError(f"generator is a {type(generator).__name__}; it must be a numpy Generator or RandomState")


def _check_array(image: object) -> None:
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image is a {type(image).__name__}; it must be a PIL image or a numpy array")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image has shape {image.shape} and dtype {image.dtype}; it must be (H, W, 3) uint8")
