# SPDX-License-Identifier: Apache-2.0
"""What every ablation of pixels keeps to, through the one function that applies them all."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.patches import FORMAT, MEAN, STD, rows, seeded

from verl_ext.ablation import (
    KINDS,
    AblationSpec,
    ablate_pixels,
    annealed_step,
    blank_rows,
    gaussian_noise_rows,
    random_patch_rows,
    vp_diffusion_rows,
)

PIXEL_KINDS = [kind for kind in KINDS if kind not in ("drop_vision", "shuffle_text")]
RANDOM_KINDS = [kind for kind in PIXEL_KINDS if kind != "blank"]
GRIDS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=4).map(
    lambda blocks: torch.tensor([[1, 2 * h, 2 * w] for h, w in blocks])
)
ONE = torch.tensor([[1, 4, 6]])
MILD = {"probability": 0.5, "level": 0.5, "sigma": 1.0}


def ablated(kind, pixel_values, grid, *seeds, progress=0.0, patch_format=FORMAT, **strength):
    return ablate_pixels(
        AblationSpec(kind=kind, **(MILD | strength)),
        pixel_values,
        grid,
        patch_format=patch_format,
        generators=seeded(*seeds),
        progress=progress,
    )


@pytest.mark.parametrize("kind", PIXEL_KINDS)
@settings(max_examples=15)
@given(grid=GRIDS, dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]))
def test_result_is_new_and_of_the_same_kind(kind, grid, dtype):
    pixel_values = rows(grid, dtype=dtype)
    copy = pixel_values.clone()
    result = ablated(kind, pixel_values, grid, *range(len(grid)))
    assert (result.shape, result.dtype, result.device) == (copy.shape, dtype, copy.device)
    assert result.is_contiguous()
    assert result.isfinite().all()
    result.zero_()
    assert torch.equal(pixel_values, copy)


@pytest.mark.parametrize("kind", PIXEL_KINDS)
def test_result_is_on_the_device_of_the_pixels(kind):
    """ "meta" stands for an accelerator: mixing it with the CPU fails alike."""
    result = ablated(kind, rows(ONE).to("meta"), ONE, 0)
    assert (result.device.type, result.shape) == ("meta", (24, 24))


@pytest.mark.parametrize("kind", PIXEL_KINDS)
@settings(max_examples=15)
@given(grid=GRIDS, random=st.randoms(use_true_random=False))
def test_an_image_is_ablated_alike_in_every_batch(kind, grid, random):
    counts = grid.prod(-1).tolist()
    pixel_values = rows(grid)
    pieces = pixel_values.split(counts)
    together = ablated(kind, pixel_values, grid, *range(len(grid))).split(counts)
    order = random.sample(range(len(grid)), len(grid))
    moved = ablated(kind, torch.cat([pieces[i] for i in order]), grid[order], *order)
    for index, got in zip(order, moved.split([counts[i] for i in order]), strict=True):
        assert torch.equal(got, together[index])
        assert torch.equal(got, ablated(kind, pieces[index], grid[index : index + 1], index))


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_the_seed_decides(kind):
    first = ablated(kind, rows(ONE), ONE, 7)
    torch.manual_seed(1)
    assert torch.equal(ablated(kind, rows(ONE), ONE, 7), first)
    assert not torch.equal(ablated(kind, rows(ONE), ONE, 8), first)


def test_blank_needs_no_seed():
    assert torch.equal(ablated("blank", rows(ONE), ONE, 7), ablated("blank", rows(ONE), ONE, 8))


@pytest.mark.parametrize("kind", PIXEL_KINDS)
def test_no_images_no_rows(kind):
    assert ablated(kind, torch.zeros(0, 24), torch.zeros(0, 3, dtype=torch.long)).shape == (0, 24)


@pytest.mark.parametrize("kind", PIXEL_KINDS)
def test_columns_of_other_formats(kind):
    """Four channels, three frames and a single pixel in each."""
    wide = dataclasses.replace(FORMAT, mean=(0.5,) * 4, std=(0.25,) * 4, temporal_patch_size=3)
    assert ablated(kind, rows(ONE, columns=12), ONE, 0, patch_format=wide).shape == (24, 12)


def test_every_kind_is_the_function_of_its_name():
    pixel_values, frames = rows(ONE), {"channels": 3, "temporal_patch_size": 2}
    normalisation = {"mean": MEAN, "std": STD}
    expected = {
        "random_patch": random_patch_rows(
            pixel_values, ONE, **normalisation, merge_size=2, probability=0.3, generators=seeded(4)
        ),
        "blank": blank_rows(pixel_values, **normalisation, level=0.9),
        "gaussian_noise": gaussian_noise_rows(pixel_values, ONE, sigma=0.7, **frames, generators=seeded(4)),
        "vp_diffusion": vp_diffusion_rows(pixel_values, ONE, step=33, **frames, generators=seeded(4)),
    }
    assert sorted(expected) == sorted(PIXEL_KINDS)
    for kind, result in expected.items():
        strengths = {"probability": 0.3, "level": 0.9, "sigma": 0.7, "diffusion_step": 33}
        assert torch.equal(ablated(kind, pixel_values, ONE, 4, **strengths), result), kind


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_only_annealed_diffusion_follows_progress(progress):
    pixel_values = rows(ONE)
    for kind in PIXEL_KINDS:
        fixed = ablated(kind, pixel_values, ONE, 4, progress=progress)
        assert torch.equal(fixed, ablated(kind, pixel_values, ONE, 4)), kind
    annealed = ablated(
        "vp_diffusion", pixel_values, ONE, 4, progress=progress, diffusion_step=800, diffusion_anneal=True
    )
    step = annealed_step(progress, 800)
    assert 0 < step < 800
    assert torch.equal(annealed, ablated("vp_diffusion", pixel_values, ONE, 4, diffusion_step=step))


@pytest.mark.parametrize("kind", ["drop_vision", "blur"])
def test_a_kind_without_pixels_is_refused(kind):
    with pytest.raises(ValueError, match=f"spec.kind is '{kind}'; it must be one of random_patch, blank"):
        ablated(kind, rows(ONE), ONE, 0)


def test_progress_out_of_range():
    with pytest.raises(ValueError, match=r"progress is 1\.5"):
        ablated("vp_diffusion", rows(ONE), ONE, 0, progress=1.5, diffusion_anneal=True)
