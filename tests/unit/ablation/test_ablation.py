# SPDX-License-Identifier: Apache-2.0
"""Random patches turn black: in pictures, and in the rows that a processor makes of them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import tiny
from support.patches import MEAN, STD, rows, seeded

from verl_ext.ablation import random_patch, random_patch_rows


def picture(height, width, seed=0):
    """No zero in it, so that black means masked."""
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


def reference_patch(image, patch_size, probability, generator):
    masked = image.copy()
    for top in range(0, image.shape[0], patch_size):
        for left in range(0, image.shape[1], patch_size):
            if generator.random() < probability:
                masked[top : top + patch_size, left : left + patch_size] = 0
    return masked


@settings(max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    patch_size=st.integers(1, 16),
    probability=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    make=st.sampled_from([np.random.default_rng, np.random.RandomState]),
)
def test_matches_a_loop_over_patches(height, width, patch_size, probability, make):
    image = picture(height, width)
    options = {"patch_size": patch_size, "probability": probability}
    expected = reference_patch(image, **options, generator=make(7))
    assert np.array_equal(random_patch(image, **options, generator=make(7)), expected)
    from_pil = random_patch(Image.fromarray(image), **options, generator=make(7))
    assert np.array_equal(np.asarray(from_pil), expected)


def test_result_is_new_and_the_input_is_kept():
    image = picture(30, 30)
    copy = image.copy()
    result = random_patch(image, probability=0.0, generator=np.random.default_rng(0))
    assert np.array_equal(result, image)
    result[:] = 0
    assert np.array_equal(image, copy)
    pil = Image.fromarray(image)
    random_patch(pil, probability=1.0, generator=np.random.default_rng(0))
    assert np.array_equal(np.asarray(pil), copy)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_is_seen_as_rgb_before_masking(mode):
    image = Image.fromarray(picture(30, 45)).convert("L" if mode == "I;16" else "RGB").convert(mode)
    result = random_patch(image, generator=np.random.default_rng(3))
    expected = reference_patch(np.asarray(image.convert("RGB")), 14, 0.6, np.random.default_rng(3))
    assert result.mode == "RGB"
    assert np.array_equal(np.asarray(result), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 0}, "patch_size is 0"),
        ({"patch_size": 14.0}, r"patch_size is 14\.0"),
        ({"probability": 1.2}, r"probability is 1\.2; it must be in \[0, 1\]"),
        ({"probability": float("nan")}, "probability is nan"),
        ({"image": np.zeros((4, 4), np.uint8)}, r"shape \(4, 4\)"),
        ({"image": np.zeros((4, 4, 4), np.uint8)}, r"shape \(4, 4, 4\)"),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "dtype float32"),
    ],
)
def test_random_patch_rejects_bad_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        random_patch(**({"image": picture(4, 4), "generator": np.random.default_rng(0)} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"image": "cat.png"}, "image is a str"), ({"generator": None}, "generator is a NoneType")],
)
def test_random_patch_rejects_other_types(arguments, message):
    with pytest.raises(TypeError, match=message):
        random_patch(**({"image": picture(4, 4), "generator": np.random.default_rng(0)} | arguments))


def masked(pixel_values, grid, generators, probability=0.6, merge_size=1):
    return random_patch_rows(
        pixel_values, grid, mean=MEAN, std=STD, merge_size=merge_size, probability=probability, generators=generators
    )


def reference_places(t, h, w, merge_size):
    """For each processor row, the place of its patch line by line."""
    ranges = (range(t), range(h // merge_size), range(w // merge_size), range(merge_size), range(merge_size))
    return [
        (frame * h + block_y * merge_size + y) * w + block_x * merge_size + x
        for frame, block_y, block_x, y, x in itertools.product(*ranges)
    ]


GRIDS = st.lists(st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4)


@settings(max_examples=40)
@given(GRIDS, st.sampled_from([0.0, 0.4, 1.0]), st.integers(1, 3))
def test_rows_are_black_exactly_where_drawn(shapes, probability, merge_size):
    grid = torch.tensor(shapes) * torch.tensor([1, merge_size, merge_size])
    pixel_values = rows(grid)
    result = masked(pixel_values, grid, seeded(*range(len(shapes))), probability, merge_size)
    draws = []
    for shape, generator in zip(grid.tolist(), seeded(*range(len(shapes))), strict=True):
        line_by_line = torch.rand(int(np.prod(shape)), generator=generator, dtype=torch.float64).tolist()
        draws += [line_by_line[place] for place in reference_places(*shape, merge_size)]
    black = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)])
    assert len(draws) == len(result)
    for row, draw in enumerate(draws):
        if draw < probability:
            torch.testing.assert_close(result[row].view(3, -1), black[:, None].expand(3, 8))
        else:
            assert torch.equal(result[row], pixel_values[row])


@settings(max_examples=30)
@given(GRIDS, st.randoms(use_true_random=False))
def test_an_image_is_masked_alike_in_every_batch(shapes, random):
    grid = torch.tensor(shapes)
    counts = grid.prod(-1).tolist()
    pixel_values = rows(grid)
    together = masked(pixel_values, grid, seeded(*range(len(shapes)))).split(counts)
    order = random.sample(range(len(shapes)), len(shapes))
    pieces = pixel_values.split(counts)
    moved = masked(torch.cat([pieces[i] for i in order]), grid[order], seeded(*order))
    for index, got in zip(order, moved.split([counts[i] for i in order]), strict=True):
        assert torch.equal(got, together[index])
        assert torch.equal(got, masked(pieces[index], grid[index : index + 1], seeded(index)))


def test_share_of_black_rows_is_the_probability():
    grid = torch.tensor([[1, 100, 100]])
    result = masked(rows(grid), grid, seeded(0), probability=0.3)
    assert (result < 0).all(-1).float().mean().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_rows_keep_their_dtype_and_the_input(dtype):
    grid = torch.tensor([[1, 4, 4]])
    pixel_values = rows(grid, dtype=dtype)
    copy = pixel_values.clone()
    result = masked(pixel_values, grid, seeded(0))
    assert result.dtype == dtype
    assert torch.equal(pixel_values, copy)
    assert not torch.equal(result, copy)


def test_no_images_no_rows():
    result = masked(torch.zeros(0, 24), torch.zeros(0, 3, dtype=torch.long), [])
    assert result.shape == (0, 24)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_values": torch.zeros(15, 24)}, r"pixel_values has 15 rows; image_grid_thw asks for 16"),
        ({"pixel_values": torch.zeros(16)}, r"pixel_values has shape \(16,\)"),
        ({"pixel_values": torch.zeros(16, 24, dtype=torch.uint8)}, r"dtype torch\.uint8"),
        ({"image_grid_thw": torch.tensor([1, 4, 4])}, r"image_grid_thw has shape \(3,\)"),
        ({"image_grid_thw": torch.tensor([[1.0, 4.0, 4.0]])}, r"image_grid_thw .*torch\.float32"),
        ({"generators": seeded(0, 1)}, "generators has 2 entries; it must have 1"),
        ({"mean": (0.5,)}, "mean has 1 and std 3 entries"),
        ({"mean": (0.5,) * 5, "std": (0.5,) * 5}, "24 columns"),
        ({"std": (0.2, 0.0, 0.2)}, r"std is \(0\.2, 0\.0, 0\.2\)"),
        ({"probability": -0.1}, r"probability is -0\.1"),
        ({"merge_size": 0}, "merge_size is 0"),
        ({"merge_size": 2.0}, r"merge_size is 2\.0"),
        ({"merge_size": 3}, r"image_grid_thw\[0\] is 4 x 4 patches; merge_size 3"),
        ({"image_grid_thw": torch.tensor([[1, 1, 16]])}, r"image_grid_thw\[0\] is 1 x 16 patches; merge_size 2"),
    ],
)
def test_random_patch_rows_rejects_bad_arguments(arguments, message):
    good = {
        "pixel_values": torch.zeros(16, 24),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mean": MEAN,
        "std": STD,
        "merge_size": 2,
        "generators": seeded(0),
    }
    with pytest.raises(ValueError, match=message):
        random_patch_rows(**(good | arguments))


class TorchDraws(np.random.RandomState):
    """Gives `random_patch` the numbers of a torch generator."""

    def __init__(self, seed):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def random(self, size):
        return torch.rand(size, generator=self.generator, dtype=torch.float64).numpy()


def processed(images, **options):
    output = tiny.processor().image_processor(images=images, return_tensors="pt", **options)
    return output["pixel_values"], output["image_grid_thw"]


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ([(84, 84)], {}),
        ([(252, 28)], {}),
        ([(28, 252), (84, 84), (252, 28)], {}),
        ([(112, 56), (84, 140), (28, 28), (140, 112)], {"size": {"shortest_edge": 1, "longest_edge": 10**6}}),
    ],
    ids=["square", "wide", "three", "four"],
)
def test_rows_of_a_picture_are_masked_as_the_picture(sizes, options, probability):
    """Equal draws black out the same places before and after the processor, when it does not resize."""
    images = [Image.fromarray(picture(height, width, seed)) for seed, (width, height) in enumerate(sizes)]
    pixel_values, grid = processed(images, **options)
    assert [(w * 14, h * 14) for _, h, w in grid.tolist()] == sizes, "these sizes must need no resize"
    image_processor = tiny.processor().image_processor
    result = random_patch_rows(
        pixel_values,
        grid,
        mean=image_processor.image_mean,
        std=image_processor.image_std,
        merge_size=image_processor.merge_size,
        probability=probability,
        generators=seeded(*range(len(sizes))),
    )
    blackened = [
        random_patch(image, patch_size=14, probability=probability, generator=TorchDraws(seed))
        for seed, image in enumerate(images)
    ]
    expected, _ = processed(blackened, **options)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0.0)
    share = (result != pixel_values).any(-1).float().mean().item()
    assert share == pytest.approx(probability, abs=0.25)
