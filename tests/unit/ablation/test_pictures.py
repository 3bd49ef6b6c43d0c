# SPDX-License-Identifier: Apache-2.0
"""Patch rows back to pictures, against the processor that wrote them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from support import tiny

from verl_ext.ablation.layout import PatchFormat
from verl_ext.ablation.pictures import pictures
from verl_ext.models.facts import patch_format
from verl_ext.records.thumbnails import thumbnails
from verl_ext.report.images import LONGEST_SIDE


def picture(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def processed(*pixels, **options):
    images = [Image.fromarray(image) for image in pixels]
    return tiny.processor().image_processor(images, return_tensors="pt", **options)


def test_what_the_processor_was_given_comes_back():
    given = [picture(56, 84, 0), picture(112, 56, 1)]
    inputs = processed(*given, do_resize=False)
    found = pictures(inputs["pixel_values"], inputs["image_grid_thw"].tolist(), patch_format(tiny.processor()))
    for image, expected in zip(found, given, strict=True):
        assert np.array_equal(image.numpy(), expected)


def test_half_precision_is_off_by_little():
    given = picture(56, 56, 2)
    inputs = processed(given, do_resize=False)
    rows = inputs["pixel_values"].bfloat16()
    found = pictures(rows, inputs["image_grid_thw"].tolist(), patch_format(tiny.processor()))[0]
    assert np.abs(found.numpy().astype(int) - given).max() <= 2


def test_counts_must_fit():
    form = PatchFormat((0.5,) * 3, (0.5,) * 3, 2, 2)
    with pytest.raises(ValueError, match="4 rows; the grids ask for 16"):
        pictures(torch.zeros(4, 3 * 2 * 14 * 14), [(1, 4, 4)], form)


def test_thumbnails_are_small_png_files():
    inputs = processed(picture(560, 280, 3), do_resize=False)
    (png,) = thumbnails(dict(inputs), patch_format(tiny.processor()))
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.size) == ("PNG", (LONGEST_SIDE // 2, LONGEST_SIDE))


def test_a_row_without_images_has_no_thumbnails():
    assert thumbnails({}, patch_format(tiny.processor())) == []
