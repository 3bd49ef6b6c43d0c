# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny
from support.patches import seeded, still_rows

from verl_ext.ablation import gaussian_noise_rows

GRID = torch.tensor([[1, 2, 4], [1, 4, 2]])
LARGE = torch.tensor([[1, 40, 60]])


def noisy(pixel_values, grid, sigma, *seeds, temporal_patch_size=2):
    return gaussian_noise_rows(
        pixel_values,
        grid,
        sigma=sigma,
        channels=3,
        temporal_patch_size=temporal_patch_size,
        generators=seeded(*seeds),
    )


@pytest.mark.parametrize("sigma", [0.1, 2.0, 30.0])
def test_mean_and_spread(sigma):
    """Within five standard errors."""
    pixel_values = still_rows(LARGE, pixels=16)
    noise = (noisy(pixel_values, LARGE, sigma, 3) - pixel_values).view(-1, 3, 2, 16)[:, :, 0].double() / sigma
    count = noise.numel()
    assert abs(noise.mean()) < 5 / count**0.5
    assert abs(noise.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs((noise**4).mean() - 3) < 5 * (96 / count) ** 0.5


def test_pixels_are_independent():
    noise = noisy(torch.zeros(2400, 96), LARGE, 1.0, 3).view(2400, 3, 2, 16)[:, :, 0].flatten(1).double()
    correlation = noise.T.corrcoef() - torch.eye(48)
    assert correlation.abs().max() < 5 / 2400**0.5
    neighbours = (noise[1:] * noise[:-1]).mean(0)
    assert neighbours.abs().max() < 5 / 2400**0.5


@settings(max_examples=25)
@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_noise_is_proportional_to_sigma(first, second):
    nothing = torch.zeros(16, 24)
    torch.testing.assert_close(
        noisy(nothing, GRID, first, 1, 2) * second, noisy(nothing, GRID, second, 1, 2) * first, rtol=1e-5, atol=1e-30
    )


def test_no_sigma_no_noise():
    pixel_values = still_rows(GRID)
    assert torch.equal(noisy(pixel_values, GRID, 0.0, 1, 2), pixel_values)


def test_noise_does_not_depend_on_the_image():
    pixel_values = still_rows(GRID)
    noise = noisy(torch.zeros(16, 24), GRID, 2.0, 1, 2)
    torch.testing.assert_close(noisy(pixel_values, GRID, 2.0, 1, 2), pixel_values + noise)


def test_a_still_image_stays_still():
    output = tiny.processor().image_processor(images=[tiny.picture(84, 84, seed=0)], return_tensors="pt")
    pixel_values, grid = output["pixel_values"], output["image_grid_thw"]
    frames = noisy(pixel_values, grid, 2.0, 5).view(-1, 3, 2, 14 * 14)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    assert not torch.equal(frames[:, :, 0], pixel_values.view(frames.shape)[:, :, 0])
    apart = noisy(pixel_values, grid, 2.0, 5, temporal_patch_size=1).view(frames.shape)
    assert not torch.equal(apart[:, :, 0], apart[:, :, 1])


def test_half_precision_is_rounded_once():
    pixel_values = still_rows(GRID).bfloat16()
    expected = noisy(pixel_values.float(), GRID, 2.0, 1, 2).bfloat16()
    assert torch.equal(noisy(pixel_values, GRID, 2.0, 1, 2), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_values": torch.zeros(15, 24)}, r"pixel_values has 15 rows; image_grid_thw asks for 16"),
        ({"pixel_values": torch.zeros(16)}, r"pixel_values has shape \(16,\)"),
        ({"pixel_values": torch.zeros(16, 24, dtype=torch.long)}, r"dtype torch\.int64"),
        ({"image_grid_thw": torch.tensor([1, 4, 4])}, r"image_grid_thw has shape \(3,\)"),
        ({"image_grid_thw": torch.tensor([[1.0, 4.0, 4.0]])}, r"image_grid_thw .*torch\.float32"),
        ({"generators": []}, "generators has 0 entries; it must have 1"),
        ({"sigma": -0.1}, r"sigma is -0\.1; it must be finite and >= 0"),
        ({"sigma": float("nan")}, "sigma is nan"),
        ({"sigma": float("inf")}, "sigma is inf"),
        ({"channels": 0}, "channels is 0"),
        ({"channels": True}, "channels is True"),
        ({"temporal_patch_size": 0}, "temporal_patch_size is 0"),
        ({"temporal_patch_size": 2.0}, r"temporal_patch_size is 2\.0"),
        ({"temporal_patch_size": 5}, "24 columns; they must divide evenly into 3 channels of 5 frames"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {
        "pixel_values": torch.zeros(16, 24),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "sigma": 2.0,
        "channels": 3,
        "temporal_patch_size": 2,
        "generators": seeded(0),
    }
    with pytest.raises(ValueError, match=message):
        gaussian_noise_rows(**(good | arguments))
