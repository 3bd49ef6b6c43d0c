# SPDX-License-Identifier: Apache-2.0
"""Small PNG files of the images of a prompt, made from what the processor handed to the model."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from verl_ext.ablation.layout import PatchFormat
from verl_ext.ablation.pictures import pictures
from verl_ext.report.images import LONGEST_SIDE


def thumbnails(inputs: dict[str, Any], patch_format: PatchFormat) -> list[bytes]:
    """One PNG an image, at most `LONGEST_SIDE` pixels wide and high; none for a row without images.

    Args:
        inputs: `multi_modal_inputs` of one row.
        patch_format: how the processor writes patch rows.
    """
    if inputs.get("pixel_values") is None:
        return []
    grids = [(t, h, w) for t, h, w in inputs["image_grid_thw"].tolist()]
    return [_png(Image.fromarray(pixels.numpy())) for pixels in pictures(inputs["pixel_values"], grids, patch_format)]


def _png(image: Image.Image) -> bytes:
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
