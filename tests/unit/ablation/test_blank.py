# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import tiny
from support.patches import MEAN, STD

from verl_ext.ablation import blank_rows, random_patch_rows
from verl_ext.ablation.seeding import generators


@given(st.integers(0, 5), st.floats(0.0, 1.0))
def test_every_pixel_has_the_level(count, level):
    result = blank_rows(torch.full((count, 24), 9.0), mean=MEAN, std=STD, level=level)
    pixels = result.view(count, 3, 8) * torch.tensor(STD).view(3, 1) + torch.tensor(MEAN).view(3, 1)
    torch.testing.assert_close(pixels, torch.full((count, 3, 8), level))


@pytest.mark.parametrize("shade", [0, 51, 255])
def test_the_rows_of_a_picture_in_that_shade(shade):
    image_processor = tiny.processor().image_processor
    sizes = [(84, 84), (64, 100)]
    expected = image_processor(
        images=[Image.fromarray(np.full((h, w, 3), shade, np.uint8)) for w, h in sizes], return_tensors="pt"
    )["pixel_values"]
    seen = image_processor(images=[tiny.picture(*size, seed=1) for size in sizes], return_tensors="pt")["pixel_values"]
    result = blank_rows(seen, mean=image_processor.image_mean, std=image_processor.image_std, level=shade / 255)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0.0)


def test_black_is_every_patch_masked():
    pixel_values, grid = torch.ones(16, 24), torch.tensor([[1, 4, 4]])
    normalisation = {"mean": MEAN, "std": STD}
    all_masked = random_patch_rows(
        pixel_values, grid, **normalisation, merge_size=2, probability=1.0, generators=generators(0, 0, 1)
    )
    assert torch.equal(blank_rows(pixel_values, **normalisation), all_masked)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_values": torch.zeros(16)}, r"pixel_values has shape \(16,\)"),
        ({"pixel_values": torch.zeros(16, 24, dtype=torch.uint8)}, r"dtype torch\.uint8"),
        ({"mean": (0.5,)}, "mean has 1 and std 3 entries"),
        ({"mean": (), "std": ()}, "mean has 0 and std 0 entries"),
        ({"mean": (0.5,) * 5, "std": (0.5,) * 5}, "24 columns"),
        ({"std": (0.2, -0.1, 0.2)}, r"std is \(0\.2, -0\.1, 0\.2\)"),
        ({"level": 1.01}, r"level is 1\.01; it must be in \[0, 1\]"),
        ({"level": -0.5}, r"level is -0\.5"),
        ({"level": float("nan")}, "level is nan"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"pixel_values": torch.zeros(16, 24), "mean": MEAN, "std": STD}
    with pytest.raises(ValueError, match=message):
        blank_rows(**(good | arguments))
