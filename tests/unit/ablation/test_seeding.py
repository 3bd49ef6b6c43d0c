# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest
import torch

from verl_ext.ablation.patch_rows import random_patch_rows
from verl_ext.ablation.seeding import PIXEL_ROWS, generators, sample_rows

PROMPT = torch.tensor([5, 6, 7, 8])
PIXELS = torch.rand(40, 12, generator=torch.Generator().manual_seed(0))


def draws(seed=3, step=10, images=1, content=(PROMPT, PIXELS)):
    return [torch.rand(6, generator=g).tolist() for g in generators(seed, step, images, *content)]


def test_the_same_everything_gives_the_same_mask():
    assert draws() == draws(content=(PROMPT.clone(), PIXELS.clone()))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 4},
        {"step": 11},
        {"content": (PROMPT + 1, PIXELS)},
        {"content": (PROMPT, PIXELS + 1)},
        {"content": (PROMPT,)},
        {"content": (PROMPT, PIXELS, torch.tensor([9]))},
    ],
    ids=["seed", "step", "prompt", "pixels", "no pixels", "response"],
)
def test_everything_that_a_mask_depends_on(other):
    assert draws() != draws(**other)


def test_seed_and_step_are_not_interchangeable():
    assert draws(seed=3, step=10) != draws(seed=10, step=3)
    assert draws(seed=0, step=1) != draws(seed=1, step=0)


def test_images_of_a_prompt_differ_and_do_not_depend_on_their_number():
    three = draws(images=3)
    assert len({tuple(image) for image in three}) == 3
    assert draws(images=1) == three[:1]
    assert draws(images=0) == []


def test_memory_layout_and_global_state_do_not_count():
    transposed = PIXELS.t().contiguous().t()
    assert not transposed.is_contiguous()
    torch.manual_seed(1)
    first = draws(content=(PROMPT, transposed))
    torch.manual_seed(2)
    assert draws() == first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pixels_of_any_type(dtype):
    assert len(draws(content=(PROMPT, PIXELS.to(dtype)))[0]) == 6


def test_another_process_draws_the_same():
    code = (
        "import torch; from verl_ext.ablation.seeding import generators\n"
        "print(torch.rand(6, generator=generators(3, 10, 1, torch.tensor([5, 6, 7, 8]))[0]).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(draws(content=(PROMPT,))[0])


def test_a_mask_does_not_depend_on_what_else_is_batched():
    grid = torch.tensor([[1, 4, 4], [1, 2, 6]])
    pixels = torch.rand(28, 6, generator=torch.Generator().manual_seed(1))
    settings = {"mean": [0.5] * 3, "std": [0.25] * 3, "merge_size": 2, "probability": 0.5}

    def masked(pixels, grid, *seeded):
        return random_patch_rows(pixels, grid, generators=list(seeded), **settings)

    def fresh(name):
        return generators(0, 1, 1, torch.tensor([name]))[0]

    together = masked(pixels, grid, fresh(1), fresh(2))
    assert torch.equal(together[:16], masked(pixels[:16], grid[:1], fresh(1)))
    assert torch.equal(together[16:], masked(pixels[16:], grid[1:], fresh(2)))


@pytest.mark.parametrize(("rows", "kept"), [(0, 0), (1, 1), (64, 64), (65, 33), (1000, 63), (6400, 64)])
def test_sample_rows(rows, kept):
    pixels = torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, 3)
    sampled = sample_rows(pixels)
    assert sampled.shape == (kept, 3)
    assert kept <= PIXEL_ROWS
    gaps = sampled[:, 0].diff().unique()
    assert len(gaps) <= 1
    if rows:
        assert sampled[0, 0] == 0
        assert rows - sampled[-1, 0] <= max(1, rows // 32)
