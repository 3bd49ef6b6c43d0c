# SPDX-License-Identifier: Apache-2.0
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.patches import seeded, still_rows

from verl_ext.ablation import annealed_step, vp_diffusion_rows
from verl_ext.ablation.diffusion import signal_power

GRID = torch.tensor([[1, 2, 4], [1, 4, 2]])
LARGE = torch.tensor([[1, 40, 60]])


def diffused(pixel_values, grid, step, *seeds):
    return vp_diffusion_rows(
        pixel_values, grid, step=step, channels=3, temporal_patch_size=2, generators=seeded(*seeds)
    )


def test_signal_power_is_the_running_product():
    power, powers = 1.0, [1.0]
    for step in range(1000):
        power *= 1.0 - (1e-4 + (0.02 - 1e-4) * step / 999)
        powers.append(power)
    assert [signal_power(step) for step in range(1001)] == pytest.approx(powers, rel=1e-9)
    assert signal_power(1) == pytest.approx(0.9999)
    assert signal_power(1000) == pytest.approx(4.04e-5, rel=0.01)


def test_one_step_after_another_gives_the_same_distribution():
    """abar_t = abar_(t-1) (1 - beta_t) is what makes the closed form right: noise variances add up."""
    variance = 0.0
    for step in range(1, 1001):
        beta = 1e-4 + (0.02 - 1e-4) * (step - 1) / 999
        variance = (1 - beta) * variance + beta
        assert 1 - signal_power(step) == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_step_zero_is_the_image(dtype):
    pixel_values = still_rows(GRID).to(dtype)
    result = diffused(pixel_values, GRID, 0, 1, 2)
    assert torch.equal(result, pixel_values)
    assert result.data_ptr() != pixel_values.data_ptr()


@pytest.mark.parametrize("step", [1, 100, 500, 999, 1000])
def test_unit_variance_is_preserved(step):
    """Within five standard errors, seven with the chance correlation of image and noise."""
    result = diffused(still_rows(LARGE, pixels=16), LARGE, step, 3).view(-1, 3, 2, 16)[:, :, 0].double()
    count = result.numel()
    assert abs(result.var() - 1) < 7 * (2 / count) ** 0.5
    assert abs(result.mean()) < 7 / count**0.5


@pytest.mark.parametrize("step", [1, 250, 500, 750, 1000])
def test_the_formula(step):
    pixel_values = still_rows(GRID)
    noise = diffused(torch.zeros(16, 24), GRID, step, 1, 2)
    kept = math.sqrt(signal_power(step))
    torch.testing.assert_close(diffused(pixel_values, GRID, step, 1, 2), kept * pixel_values + noise)
    spread = diffused(torch.zeros(2400, 24), LARGE, step, 3).double().std().item()
    assert spread == pytest.approx(math.sqrt(1 - signal_power(step)), rel=0.03)


def test_the_image_fades_with_the_steps():
    pixel_values = still_rows(LARGE)
    correlations = [
        torch.stack([pixel_values.flatten(), diffused(pixel_values, LARGE, step, 3).flatten()]).corrcoef()[0, 1].item()
        for step in (0, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
    ]
    assert all(later < earlier for earlier, later in pairwise(correlations))
    assert correlations[0] == pytest.approx(1.0)
    assert abs(correlations[-1]) < 0.03


def test_noise_is_the_same_at_every_step():
    """Only its weight changes, so that annealing changes the strength alone."""
    early, late = (diffused(torch.zeros(16, 24), GRID, step, 1, 2) for step in (10, 900))
    torch.testing.assert_close(
        early / math.sqrt(1 - signal_power(10)), late / math.sqrt(1 - signal_power(900)), rtol=1e-5, atol=1e-6
    )


def test_a_still_image_stays_still():
    frames = diffused(still_rows(GRID), GRID, 500, 1, 2).view(16, 3, 2, 4)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])


def test_half_precision_is_rounded_once():
    pixel_values = still_rows(GRID).bfloat16()
    assert torch.equal(
        diffused(pixel_values, GRID, 300, 1, 2), diffused(pixel_values.float(), GRID, 300, 1, 2).bfloat16()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_values": torch.zeros(17, 24)}, r"pixel_values has 17 rows; image_grid_thw asks for 16"),
        ({"pixel_values": torch.zeros(16)}, r"pixel_values has shape \(16,\)"),
        ({"image_grid_thw": torch.tensor([[4, 4]])}, r"image_grid_thw has shape \(1, 2\)"),
        ({"generators": seeded(0, 1)}, "generators has 2 entries; it must have 1"),
        ({"step": -1}, r"step is -1; it must be an int in \[0, 1000\]"),
        ({"step": 1001}, "step is 1001"),
        ({"step": 500.0}, r"step is 500\.0"),
        ({"step": True}, "step is True"),
        ({"channels": -3}, "channels is -3"),
        ({"temporal_patch_size": 0}, "temporal_patch_size is 0"),
        ({"channels": 7}, "24 columns; they must divide evenly into 7 channels of 2 frames"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {
        "pixel_values": torch.zeros(16, 24),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "step": 500,
        "channels": 3,
        "temporal_patch_size": 2,
        "generators": seeded(0),
    }
    with pytest.raises(ValueError, match=message):
        vp_diffusion_rows(**(good | arguments))


def test_annealing_from_start_to_nothing():
    assert [annealed_step(progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)] == [497, 462, 250, 38, 3]
    assert annealed_step(0.5, start=1000) == 500
    assert annealed_step(0.0, start=0) == 0


@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_annealing_is_the_sigmoid(progress, start):
    sigmoid = 1 / (1 + np.exp(-10 * (progress - 0.5)))
    step = annealed_step(progress, start)
    assert isinstance(step, int)
    assert abs(step - start * (1 - sigmoid)) <= 0.5 + 1e-9
    assert annealed_step(min(1.0, progress + 0.1), start) <= step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"progress": -0.01}, r"progress is -0\.01; it must be in \[0, 1\]"),
        ({"progress": 1.01}, r"progress is 1\.01"),
        ({"progress": float("nan")}, "progress is nan"),
        ({"start": -1}, r"start is -1; it must be an int in \[0, 1000\]"),
        ({"start": 1001}, "start is 1001"),
        ({"start": 500.0}, r"start is 500\.0"),
    ],
)
def test_annealing_rejects_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        annealed_step(**({"progress": 0.5} | arguments))
